//! A second owner on the same PCI function, with a vendor capability and a BAR of its own.

use std::fmt;
use std::sync::Arc;

use crate::pci::{BarKind, MsixVectors};
use crate::state::{Archive, ArchiveBuilder, StateError};
use crate::virtio::interrupt::Interrupts;

/// The BAR that an extension owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarSpec {
    /// Register number; BARs 0 to 2 belong to the transport.
    pub index: u8,
    /// Kind of BAR.
    pub kind: BarKind,
    /// Bytes, a power of two.
    pub size: u64,
}

/// What an extension shares with the function that it extends.
#[derive(Clone)]
pub struct Connection {
    /// The function's MSI-X vectors; those from `first_extra` on are the extension's.
    pub vectors: Arc<MsixVectors>,
    /// Number of the first vector reserved for the extension.
    pub first_extra: u16,
    /// How many vectors are reserved for the extension.
    pub extra: u16,
    /// The virtio device's interrupts: [`Interrupts::raise_config`] announces an event of the
    /// extension on the configuration vector.
    pub interrupts: Arc<Interrupts>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("first_extra", &self.first_extra)
            .field("extra", &self.extra)
            .finish_non_exhaustive()
    }
}

/// Extends a virtio PCI function. Calls come from vCPU threads under the function's lock, so
/// none may wait for the guest, another vCPU or a peer process.
pub trait PciExtension: Send {
    /// The vendor capability as it stands in configuration space. The first byte is the
    /// capability id 0x09; the second, the link to the next capability, is filled in.
    fn capability(&self) -> Vec<u8>;

    /// The extension's BAR.
    fn bar(&self) -> BarSpec;

    /// Called once, before the VM runs.
    fn connected(&mut self, connection: Connection);

    /// A trapped read in the BAR; `data` is 1, 2, 4 or 8 bytes and must be filled.
    fn bar_read(&mut self, offset: u64, data: &mut [u8]);

    /// A trapped write in the BAR.
    fn bar_write(&mut self, offset: u64, data: &[u8]);

    /// The BAR now decodes at guest physical address `base`, or nowhere.
    fn bar_placed(&mut self, base: Option<u64>);

    /// The guest's driver changed the virtio device status to `status`, which is not zero.
    fn device_status_changed(&mut self, status: u8);

    /// What the extension adds to the function, in words; see [`crate::pci::PciDevice::identity`].
    fn identity(&self) -> String;

    /// Adds its state, as instance `slot`; nobody calls it but for this while the function holds.
    ///
    /// # Errors
    /// When it cannot be saved now.
    fn save(&self, slot: &str, state: &mut ArchiveBuilder) -> Result<(), StateError>;

    /// Takes a state over, once, before the VM runs.
    ///
    /// # Errors
    /// When the state is none of such an extension's.
    fn restore(&mut self, slot: &str, state: &mut Archive) -> Result<(), StateError>;

    /// The driver reset the virtio device, or the bus was reset.
    fn reset(&mut self);
}
