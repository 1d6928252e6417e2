//! What the daemon answers.

use super::{DeviceClass, LeaseId, MacAddr, Op, PciAddress, limits};
use crate::lease::LeaseState;
use serde::{Deserialize, Serialize};

/// Who may touch a region of a VF's BARs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RegionKind {
    /// Rings, doorbells, interrupts: mapped into the guest's VF window.
    Data,
    /// Reset and mailbox: stays with the VMM.
    Control,
}

/// A page-granular part of a VF's BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct Region {
    /// BAR index, 0 to 5.
    pub bar: u8,
    /// Offset in the BAR in bytes, a multiple of 4096.
    pub offset: u64,
    /// Length in bytes, a multiple of 4096.
    pub length: u64,
    /// Who may touch it.
    pub kind: RegionKind,
    /// Where a data region appears in the VF window, in bytes; `None` for a control region.
    pub window_offset: Option<u64>,
}

/// The identification registers of a PCI function's configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct PciIds {
    /// Vendor.
    pub vendor: u16,
    /// Device. A VF's comes from the PF's SR-IOV capability.
    pub device: u16,
    /// Subsystem vendor.
    pub subsystem_vendor: u16,
    /// Subsystem.
    pub subsystem: u16,
}

/// How a VF's MSI-X vectors are divided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct Vectors {
    /// Vectors in the VF's table.
    pub total: u16,
    /// Those that the plugin uses, in the order in which it knows them.
    pub plugin: Vec<u16>,
    /// The one that announces mailbox messages and resets; it stays with the VMM.
    pub control: Option<u16>,
}

/// A VF that was acquired: all that a VMM needs to open it and give it to a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct Acquired {
    /// Handle for further operations.
    pub lease: LeaseId,
    /// The VF's place on the host.
    pub vf: PciAddress,
    /// Its IOMMU group: `/dev/vfio/<group>`.
    pub iommu_group: u32,
    /// The address that it carries until [`Activate`](super::Request::Activate).
    pub placeholder_mac: MacAddr,
    /// Control and data regions, at most [`limits::REGIONS`].
    pub regions: Vec<Region>,
    /// Interrupt vectors.
    pub vectors: Vectors,
    /// The plugin to inject.
    pub plugin: String,
    /// Identification.
    pub pci_ids: PciIds,
    /// What the plugin is told of its VF. Words 0 to 7 belong to the device class and are zero
    /// here: the VMM fills them. The others are the vendor's and pass unseen.
    pub device_info: [u32; limits::DEVICE_INFO_WORDS],
    /// Largest MTU in bytes that the VF may use: the uplink's.
    pub mtu: u16,
}

/// A lease and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct LeaseInfo {
    /// The description given at acquire.
    #[serde(flatten)]
    pub acquired: Acquired,
    /// Where the lease stands.
    pub state: LeaseState,
    /// The address that the VF carries now.
    pub mac: MacAddr,
    /// The switch port of the emulated path, once known.
    pub port: Option<String>,
    /// Whether the uplink has a link.
    pub link_up: bool,
}

/// A line of the pool's inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct VfEntry {
    /// The VF.
    pub vf: PciAddress,
    /// The PF's network interface.
    pub pf: String,
    /// Its number at the PF, from 0.
    pub index: u32,
    /// What it is.
    pub class: DeviceClass,
    /// The plugin that drives it.
    pub plugin: String,
    /// Its IOMMU group.
    pub iommu_group: u32,
    /// Where its lease stands.
    pub state: LeaseState,
    /// The address that it carries.
    pub mac: MacAddr,
    /// The process that holds it.
    pub owner_pid: Option<u32>,
    /// The VM that holds it, when it said so.
    pub vm: Option<String>,
    /// The VM's device that it serves, when it said so.
    pub device: Option<String>,
    /// Why it is [`LeaseState::Failed`].
    pub fault: Option<String>,
    /// Its PF is in maintenance: it is given to nobody, and wanted back from who holds it.
    pub maintenance: bool,
    /// The uplink has a carrier.
    pub link_up: bool,
    /// The profiles that it fits now. One that asks for bandwidth is not among them while there is no link.
    pub profiles: Vec<String>,
}

/// Whether an adapter serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Its VFs are given to VMs.
    Enabled,
    /// An operator has put it into maintenance.
    Maintenance,
    /// It, or its driver, does not answer.
    Failed,
}

/// An adapter of the host's: a PF, or a function on its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct AdapterEntry {
    /// Its place.
    pub address: PciAddress,
    /// The network interface of its uplink.
    pub interface: String,
    /// The vendor module, or the family, that serves it.
    pub module: String,
    /// The host driver bound to it.
    pub driver: String,
    /// Identification.
    pub pci_ids: PciIds,
    /// The NUMA node that it is near to.
    pub numa_node: Option<u32>,
    /// The embedded switch that it is part of, as the kernel names it.
    pub switch: Option<String>,
    /// The uplink's address.
    pub mac: Option<MacAddr>,
    /// The uplink's MTU in bytes.
    pub mtu: Option<u16>,
    /// The uplink has a carrier.
    pub link_up: bool,
    /// The uplink's speed in Mbit/s.
    pub speed_mbit: Option<u32>,
    /// What its VFs are.
    pub class: DeviceClass,
    /// The plugin that drives them.
    pub plugin: String,
    /// How many there are.
    pub vfs: u32,
    /// How many of them nobody holds.
    pub free: u32,
    /// Whether it serves.
    pub health: Health,
    /// Why it is [`Health::Failed`].
    pub fault: Option<String>,
}

/// How far a VM's request for a VF is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RequestState {
    /// It waits for a VF, emulated meanwhile.
    Initial,
    /// It has one, which is made ready.
    BindStarted,
    /// The VM's traffic goes over the VF.
    Bound,
    /// A step failed; the VF is cleaned, and the request is over then.
    BindFailed,
    /// The traffic is back on the emulated path; the VF is given back.
    Unbound,
}

impl From<LeaseState> for RequestState {
    fn from(lease: LeaseState) -> Self {
        match lease {
            LeaseState::Free => Self::Initial,
            LeaseState::Acquired | LeaseState::Initialised => Self::BindStarted,
            LeaseState::Active => Self::Bound,
            LeaseState::Failed => Self::BindFailed,
            LeaseState::Quiesced => Self::Unbound,
        }
    }
}

/// A VM's request for a VF. It is known by process, VM and device: asked again, it is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct RequestEntry {
    /// The process that asked.
    pub pid: u32,
    /// The VM, as it told.
    pub vm: String,
    /// The VM's device, as it told.
    pub device: String,
    /// How far it is.
    pub state: RequestState,
    /// The VF that it has.
    pub vf: Option<PciAddress>,
    /// For how long it has waited, in seconds, while it does.
    pub seconds: Option<u64>,
}

/// The answer to [`Request::IsSupported`](super::Request::IsSupported).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct Supported {
    /// VFs of that class, free or not.
    pub vfs: u32,
    /// Those that are free now.
    pub free: u32,
    /// Operations that the vendor module serves.
    pub ops: Vec<Op>,
}

/// Counters of one queue pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct QueueStats {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// The state of one queue pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct QueueStatus {
    /// The PF lets it receive.
    pub rx_enabled: bool,
    /// The PF lets it send.
    pub tx_enabled: bool,
}

/// The answer to a [`Request`](super::Request).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// Done; nothing to tell.
    Done,
    /// To `is-supported`.
    Supported(Supported),
    /// To `acquire`.
    Acquired(Box<Acquired>),
    /// To `get-info`.
    Info(Box<LeaseInfo>),
    /// To `queue-stats`.
    QueueStats(QueueStats),
    /// To `queue-status`.
    QueueStatus(QueueStatus),
}
