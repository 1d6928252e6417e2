//! The PCI bus that a guest sees: configuration space, BARs and MSI-X. Knows nothing of what the
//! functions behind it do.

mod bus;
mod config_space;
mod device;
mod host_bridge;
mod msix;

pub use bus::{Bus, BusError, SharedDevice};
pub use config_space::{Bar, BarKind, ConfigHeader, ConfigSpace, offset};
pub use device::{HoldError, PciDevice};
pub use host_bridge::HostBridge;
pub use msix::{MsixCapability, MsixVectors};

/// Capability identifiers (PCI 3.0, appendix H).
pub mod capability {
    /// Vendor specific.
    pub const VENDOR: u8 = 0x09;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
}

/// Bits of the command register (PCI 3.0, 6.2.2).
pub mod command {
    /// Memory space enable.
    pub const MEMORY: u16 = 1 << 1;
    /// Bus master enable.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// INTx disable.
    pub const INTX_DISABLE: u16 = 1 << 10;
}
