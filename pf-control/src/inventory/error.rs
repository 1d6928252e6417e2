//! Why the host's hardware cannot be served. Each message says what to do.

use crate::ops::PciAddress;
use std::io;
use std::path::PathBuf;

/// A PF or VF that cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The kernel shows only the header of a configuration space.
    #[error(
        "the kernel does not show the capabilities of {function}: serving functions on their own takes \
         CAP_SYS_ADMIN (as a service: a drop-in with 'CapabilityBoundingSet=CAP_SYS_ADMIN')"
    )]
    NoCapabilities {
        /// The function.
        function: PciAddress,
    },
    /// No such interface.
    #[error("there is no network interface '{interface}': see 'ip link' for their names")]
    NoInterface {
        /// The name.
        interface: String,
    },
    /// The interface is no PCI function with an SR-IOV capability.
    #[error(
        "'{interface}' is no SR-IOV physical function: name the PF's interface, and enable \
         SR-IOV in the firmware if the NIC has it"
    )]
    NotSriov {
        /// The name.
        interface: String,
    },
    /// No such function.
    #[error("there is no PCI function {function}: see 'lspci -D' for their addresses")]
    NoFunction {
        /// Its place.
        function: PciAddress,
    },
    /// The host itself uses it.
    #[error("{function} is the host's interface '{interface}', which is up: take it down first")]
    FunctionInUse {
        /// Its place.
        function: PciAddress,
        /// The interface.
        interface: String,
    },
    /// The PF cannot have that many VFs.
    #[error("'{interface}' can have at most {total} VFs: ask for fewer than {wanted} (--vfs)")]
    TooManyVfs {
        /// The PF's interface.
        interface: String,
        /// How many it can have.
        total: u32,
        /// How many were asked for.
        wanted: u32,
    },
    /// Another number of VFs exists and some are in use.
    #[error(
        "'{interface}' has {present} VFs, not {wanted}, and VF {vf} is in use: serve with \
         --vfs {present}, or stop its user first"
    )]
    VfsInUse {
        /// The PF's interface.
        interface: String,
        /// How many there are.
        present: u32,
        /// How many were asked for.
        wanted: u32,
        /// One that is in use.
        vf: PciAddress,
    },
    /// The function has no IOMMU group.
    #[error(
        "VF {vf} has no IOMMU group: enable VT-d or AMD-Vi in the firmware and boot with \
         'intel_iommu=on' or 'amd_iommu=on'"
    )]
    NoIommu {
        /// The function.
        vf: PciAddress,
    },
    /// Something else is in the function's group.
    #[error(
        "VF {vf} shares IOMMU group {group} with {other}: it cannot be given away alone; use a \
         slot whose bridge has ACS"
    )]
    SharedGroup {
        /// The function.
        vf: PciAddress,
        /// Its group.
        group: u32,
        /// Another member.
        other: String,
    },
    /// The module that hands functions to user space is absent.
    #[error("the vfio-pci driver is not loaded: run 'modprobe vfio-pci'")]
    NoVfio,
    /// Binding did not take.
    #[error(
        "VF {vf} was not taken by vfio-pci (its driver is {driver}): see the kernel's log",
        driver = driver.as_deref().unwrap_or("none")
    )]
    NotBound {
        /// The function.
        vf: PciAddress,
        /// What drives it instead.
        driver: Option<String>,
    },
    /// A file could not be read or written.
    #[error("cannot {verb} {}{}", path.display(), advice(source))]
    File {
        /// What was tried: "read" or "write".
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file holds something unexpected.
    #[error("{} holds '{text}', which is not understood", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Its content.
        text: String,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (run as root)",
        _ => "",
    }
}
