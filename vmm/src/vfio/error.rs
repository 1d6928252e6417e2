//! What can go wrong with a VF in VFIO, worded for whoever has to mend it.

use std::io;
use std::path::PathBuf;

use pf_control::vf_control::VfControlError;

use super::sys::VfioError;

/// Why a VF could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum VfError {
    /// No such PCI function.
    #[error("VF {vf} does not exist on this host; is its PF up and sriov_numvfs set?")]
    Missing {
        /// PCI address.
        vf: String,
    },
    /// Another driver has it.
    #[error(
        "VF {vf} is driven by '{driver}', not vfio-pci; let pf-control bind it, or write vfio-pci \
         to its driver_override and bind it anew"
    )]
    NotBound {
        /// PCI address.
        vf: String,
        /// The driver that has it, or "no driver".
        driver: String,
    },
    /// VFIO itself is not there.
    #[error("cannot open /dev/vfio/vfio: load the vfio-pci module, or allow this user to use it")]
    Container(#[source] io::Error),
    /// KVM has no VFIO device.
    #[error("KVM cannot be told of VFs; load the vfio-pci module")]
    Kvm(#[source] io::Error),
    /// Another function of the group is with a host driver.
    #[error(
        "IOMMU group {group} is not viable: every other function in it must be bound to vfio-pci \
         or to no driver"
    )]
    NotViable {
        /// IOMMU group.
        group: u32,
    },
    /// Some VFIO call.
    #[error("VFIO refused VF {vf}")]
    Vfio {
        /// PCI address.
        vf: String,
        /// VFIO's reason.
        #[source]
        source: VfioError,
    },
    /// Guest RAM could not be mapped.
    #[error(
        "cannot map guest RAM for DMA ({0}); pf-control raises this process's limit of locked memory \
         if it runs as root: see its log, or raise the limit (ulimit -l) above the guest's memory"
    )]
    Dma(#[source] VfioError),
    /// A range that must not or cannot be mapped.
    #[error(
        "{length:#x} bytes at {offset:#x} of BAR {bar} of VF {vf} cannot be given to a guest: {reason}"
    )]
    Region {
        /// PCI address.
        vf: String,
        /// BAR.
        bar: u8,
        /// Offset in the BAR.
        offset: u64,
        /// Bytes.
        length: u64,
        /// Why.
        reason: &'static str,
    },
    /// A vector that the VF does not have.
    #[error("VF {vf} has {count} interrupt vectors, vector {vector} is asked for")]
    Vector {
        /// PCI address.
        vf: String,
        /// Asked for.
        vector: u16,
        /// There.
        count: u16,
    },
    /// An eventfd.
    #[error("cannot make an eventfd for a VF")]
    Event(#[source] io::Error),
    /// The control page did not do what was asked.
    #[error("VF {vf} could not be set up")]
    Control {
        /// PCI address.
        vf: String,
        /// The reason.
        #[source]
        source: VfControlError,
    },
    /// The device tree in sysfs.
    #[error("cannot read {}", path.display())]
    Sysfs {
        /// What was read.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}
