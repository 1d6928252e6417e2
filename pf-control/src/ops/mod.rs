//! The op table: every operation that a hypervisor can ask of a PF, its request and its reply.
//!
//! The set is that of VMware's Network Plugin Architecture (23 codes). A vendor module that does
//! not serve one of them answers [`OpError::NotSupported`]; the table itself never grows a hole.
//! This module holds data only: nothing here performs I/O.

mod address;
mod error;
mod reply;
mod request;

pub use address::{MacAddr, ParseAddressError, PciAddress};
pub use error::OpError;
#[cfg(feature = "daemon")]
pub(crate) use error::with_causes;
pub use reply::{
    Acquired, AdapterEntry, Health, LeaseInfo, PciIds, QueueStats, QueueStatus, Region, RegionKind,
    Reply, RequestEntry, RequestState, Supported, Vectors, VfEntry,
};
pub use request::{
    AcquireRequest, DeviceClass, LeaseId, MirrorDirection, Op, OpenRequest, Request, Ring, Rings,
    RxMode, VlanRange,
};

/// Sizes that both sides rely on (NPA's).
pub mod limits {
    /// Most multicast addresses that one VF may filter by address.
    pub const MULTICAST_FILTERS: usize = 32;
    /// Most register regions that one VF may describe.
    pub const REGIONS: usize = npa_abi::image::REGIONS_MAX;
    /// 32-bit words that the plugin is told of its VF.
    pub const DEVICE_INFO_WORDS: usize = npa_abi::register::DEVICE_INFO_WORDS;
    /// Most queues of one direction that one VF may use.
    pub const QUEUES: usize = 8;
    /// Longest name of a VM or a device, in bytes. It has no control characters.
    pub const NAME: usize = 64;
    /// Most VFs that one process may hold.
    pub const LEASES_PER_PROCESS: usize = 16;
    /// Most devices of one process that may wait for a VF.
    pub const WAITING_PER_PROCESS: usize = 16;
}
