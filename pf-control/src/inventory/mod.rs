//! What the host has: PFs, their VFs, IOMMU groups and who has them open, read from sysfs and
//! procfs. It binds VFs to vfio-pci and never decides who gets one.

mod binding;
mod error;
pub(crate) mod process;
mod scan;
mod sysfs;
mod vfio_node;

pub use error::InventoryError;
pub use process::ProcessTable;
pub use scan::{Found, Kind};
pub use sysfs::Sysfs;
pub use vfio_node::{Occupancy, VfioNodes};

use crate::ops::{PciAddress, PciIds};

/// An SR-IOV physical function with a network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pf {
    /// Its place.
    pub address: PciAddress,
    /// Its network interface.
    pub interface: String,
    /// The host driver bound to it.
    pub driver: String,
    /// Identification.
    pub ids: PciIds,
    /// Most VFs that it can have.
    pub total_vfs: u32,
}

/// A virtual function, bound to vfio-pci.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vf {
    /// Its place.
    pub address: PciAddress,
    /// Its number at the PF, from 0.
    pub index: u32,
    /// Its IOMMU group.
    pub iommu_group: u32,
    /// Identification.
    pub ids: PciIds,
}
