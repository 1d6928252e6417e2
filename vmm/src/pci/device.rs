//! What the PCI bus asks of a function. Knows nothing of any device class.

use super::config_space::ConfigSpace;
use crate::state::{Archive, ArchiveBuilder, StateError};

/// Why a function does not hold.
pub type HoldError = Box<dyn std::error::Error + Send + Sync>;

/// A PCI function on the VM's root bus.
///
/// The bus holds each function behind one mutex and calls it from vCPU threads, so nothing here
/// may wait for the guest, another vCPU, or a peer process.
///
/// Between [`PciDevice::suspend`] and [`PciDevice::resume`] a function *holds*: it starts no work,
/// changes no guest memory, and keeps what arrives for it. It is saved and restored only so. A
/// restored function holds until it is resumed, and then goes on where the saved one stopped; the
/// guest may get interrupts that it did not need, and misses none.
pub trait PciDevice: Send {
    /// The 4 KiB configuration space, whose BARs and capabilities the bus serves by itself.
    fn config(&self) -> &ConfigSpace;

    /// See [`PciDevice::config`].
    fn config_mut(&mut self) -> &mut ConfigSpace;

    /// Called after the guest wrote `len` bytes (1, 2 or 4) at `offset` of the configuration
    /// space and the write took effect there; capabilities with side effects (MSI-X control,
    /// the virtio configuration access window) act here.
    fn config_written(&mut self, offset: u16, len: usize);

    /// Called before a configuration read of `len` bytes at `offset`, so that a capability whose
    /// bytes are computed can refresh them.
    fn config_read_hook(&mut self, _offset: u16, _len: usize) {}

    /// A trapped read of `data.len()` bytes (1, 2, 4 or 8) at `offset` into BAR `bar`.
    /// Must fill `data`; what nobody serves reads as all ones.
    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]);

    /// A trapped write, the counterpart of [`PciDevice::bar_read`].
    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]);

    /// The guest placed, moved or disabled BAR `bar` (memory-space enable included): `base` is
    /// its guest physical address, or `None` while it decodes nothing. Memory slots and
    /// ioeventfds that live in the BAR follow here.
    fn bar_placed(&mut self, bar: u8, base: Option<u64>);

    /// What kind of function this is, with what a guest can see of its host side (addresses,
    /// sizes): equal texts make one stand in for the other.
    fn identity(&self) -> String;

    /// Makes the function hold.
    ///
    /// # Errors
    /// When a thread of it does not answer in time; it is then to be resumed.
    fn suspend(&mut self) -> Result<(), HoldError>;

    /// Ends [`PciDevice::suspend`], and does nothing without one.
    fn resume(&mut self);

    /// Adds the state of a function that holds, as instance `slot` of each of its payloads. The
    /// configuration space is saved by the bus.
    ///
    /// # Errors
    /// When it cannot be saved now.
    fn save(&self, slot: &str, state: &mut ArchiveBuilder) -> Result<(), StateError>;

    /// Takes a state over: called once, on a function as constructed, whose configuration space
    /// is restored and whose BARs are placed. It then holds.
    ///
    /// # Errors
    /// When the state is none of such a function's; it is then of no use any more.
    fn restore(&mut self, slot: &str, state: &mut Archive) -> Result<(), StateError>;

    /// Bus reset: back to the state after construction, with BARs unplaced.
    fn reset(&mut self);
}
