//! The root bus: finds the function and BAR behind an address, serves configuration space,
//! and follows BARs that the guest moves. There is ECAM only: where ports 0xcf8 and 0xcfc
//! answered, guests would use those, at two exits for each access. Gives every BAR an
//! address at the start, so that guests have no reason to move any.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};

use vm_allocator::{AddressAllocator, AllocPolicy, RangeInclusive};

use super::config_space::{Bar, BarKind, ConfigSpace};
use super::device::{HoldError, PciDevice};
use crate::state::{Archive, ArchiveBuilder, Payload, StateError};
use crate::vm::layout::{Layout, Range};

/// Slots on the bus.
const SLOTS: u8 = 32;
/// Bits of an ECAM offset below the function number.
const FUNCTION_SHIFT: u32 = 12;
/// BARs are placed at least this far apart, so that each can be a memory slot.
const PAGE: u64 = 4096;

/// A function behind its lock, as the bus holds it.
pub type SharedDevice = Arc<Mutex<dyn PciDevice>>;

/// A function that could not be added.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// No slot left.
    #[error("all {SLOTS} pci slots are in use")]
    Full,
    /// No room for a BAR.
    #[error("no room for a {size:#x}-byte bar in the pci window at {window:#x}")]
    Window {
        /// Bytes of the BAR.
        size: u64,
        /// Start of the window.
        window: u64,
    },
    /// A function does not hold.
    #[error("the function in pci slot {slot} does not hold still")]
    Hold {
        /// Its slot.
        slot: u8,
        /// Why.
        #[source]
        source: HoldError,
    },
}

/// The root bus of one VM. Thread-safe.
pub struct Bus {
    ecam: Range,
    windows: [Range; 2],
    slots: RwLock<Vec<Slot>>,
    free: Mutex<[AddressAllocator; 2]>,
    map: RwLock<BTreeMap<u64, Mapping>>,
}

struct Slot {
    device: SharedDevice,
    /// The addresses that the bus chose, kept for resets.
    home: Vec<(Bar, u64)>,
}

/// The configuration space of one function.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigState {
    bytes: Vec<u8>,
}

impl Payload for ConfigState {
    const KIND: &'static str = "pci-config";
    const VERSION: u16 = 1;
}

/// A BAR that decodes.
#[derive(Clone, Copy)]
struct Mapping {
    len: u64,
    slot: u8,
    bar: u8,
}

impl Bus {
    /// An empty bus with the windows of `layout`.
    pub fn new(layout: &Layout) -> Self {
        let allocator = |range: &Range| {
            AddressAllocator::new(range.start, range.len).expect("windows of a layout are ranges")
        };
        Self {
            ecam: layout.ecam,
            windows: [layout.mmio32, layout.mmio64],
            slots: RwLock::new(Vec::new()),
            free: Mutex::new([allocator(&layout.mmio32), allocator(&layout.mmio64)]),
            map: RwLock::new(BTreeMap::new()),
        }
    }

    /// Adds a function as function 0 of the next slot, whose number is returned, and gives its
    /// BARs addresses. Only before the VM starts: there is no hotplug.
    pub fn add(&self, device: SharedDevice) -> Result<u8, BusError> {
        let mut slots = self.slots.write().unwrap();
        let slot = slots.len() as u8;
        if slot >= SLOTS {
            return Err(BusError::Full);
        }
        let mut guard = device.lock().unwrap();
        let config = guard.config_mut();
        config.seal();
        let mut home = Vec::new();
        for bar in config.bars().to_vec() {
            let address = self.allocate(&bar)?;
            config.set_bar_address(&bar, address);
            home.push((bar, address));
        }
        drop(guard);
        slots.push(Slot { device, home });
        Ok(slot)
    }

    fn allocate(&self, bar: &Bar) -> Result<u64, BusError> {
        let window = match bar.kind {
            BarKind::Memory32 { .. } => 0,
            BarKind::Memory64 { .. } => 1,
        };
        let size = bar.size.max(PAGE);
        let range: RangeInclusive = self.free.lock().unwrap()[window]
            .allocate(size, size, AllocPolicy::FirstMatch)
            .map_err(|_| BusError::Window { size, window: self.windows[window].start })?;
        Ok(range.start())
    }

    /// Serves a trapped read. Returns false when nothing is there; `data` then reads as ones.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) -> bool {
        data.fill(0xff);
        if self.ecam.contains(address, data.len() as u64) {
            let (function, offset) = ecam_address(address - self.ecam.start);
            self.config_read(function, offset, data);
            return true;
        }
        let Some((device, bar, offset)) = self.find(address, data.len()) else { return false };
        device.lock().unwrap().bar_read(bar, offset, data);
        true
    }

    /// Serves a trapped write. Returns false when nothing is there.
    pub fn mmio_write(&self, address: u64, data: &[u8]) -> bool {
        if self.ecam.contains(address, data.len() as u64) {
            let (function, offset) = ecam_address(address - self.ecam.start);
            self.config_write(function, offset, data);
            return true;
        }
        let Some((device, bar, offset)) = self.find(address, data.len()) else { return false };
        device.lock().unwrap().bar_write(bar, offset, data);
        true
    }

    /// The BAR that an access falls into, and the offset in it. No lock is held on return.
    fn find(&self, address: u64, len: usize) -> Option<(SharedDevice, u8, u64)> {
        let map = self.map.read().unwrap();
        let (base, mapping) = map.range(..=address).next_back()?;
        let offset = address - base;
        if offset + len as u64 > mapping.len {
            return None;
        }
        let (slot, bar) = (mapping.slot, mapping.bar);
        drop(map);
        Some((self.device(slot)?, bar, offset))
    }

    fn device(&self, slot: u8) -> Option<SharedDevice> {
        self.slots.read().unwrap().get(usize::from(slot)).map(|slot| slot.device.clone())
    }

    /// A configuration read; `function` is device << 3 | function.
    pub fn config_read(&self, function: u8, offset: u16, data: &mut [u8]) {
        data.fill(0xff);
        let Some(device) = self.function(function) else { return };
        let mut device = device.lock().unwrap();
        device.config_read_hook(offset, data.len());
        device.config().read(offset, data);
    }

    /// A configuration write: takes effect, moves BARs, then tells the device.
    pub fn config_write(&self, function: u8, offset: u16, data: &[u8]) {
        let Some(device) = self.function(function) else { return };
        let mut device = device.lock().unwrap();
        let before = self.placements(device.config());
        device.config_mut().write(offset, data);
        let after = self.placements(device.config());
        self.place(function >> 3, &mut *device, &before, &after);
        device.config_written(offset, data.len());
    }

    fn function(&self, function: u8) -> Option<SharedDevice> {
        if function & 7 != 0 {
            return None;
        }
        self.device(function >> 3)
    }

    /// Where each BAR decodes. An address outside the windows (a guest probing a BAR's size
    /// leaves ones there) decodes nothing, so no BAR can ever cover RAM or another chip.
    fn placements(&self, config: &ConfigSpace) -> Vec<(Bar, Option<u64>)> {
        let place = |bar: &Bar| {
            let address = config.bar_address(bar);
            let inside = self.windows.iter().any(|window| window.contains(address, bar.size));
            (config.memory_enabled() && inside).then_some(address)
        };
        config.bars().iter().map(|bar| (*bar, place(bar))).collect()
    }

    /// Tells the device what changed: first what went, then what came.
    fn place(
        &self,
        slot: u8,
        device: &mut dyn PciDevice,
        before: &[(Bar, Option<u64>)],
        after: &[(Bar, Option<u64>)],
    ) {
        let changed = || before.iter().zip(after).filter(|(old, new)| old.1 != new.1);
        for ((bar, old), _) in changed() {
            if let Some(base) = old {
                self.unmap(*base, slot, bar.index);
                device.bar_placed(bar.index, None);
            }
        }
        for (_, (bar, new)) in changed() {
            if let Some(base) = *new {
                let mapping = Mapping { len: bar.size, slot, bar: bar.index };
                self.map.write().unwrap().entry(base).or_insert(mapping);
                device.bar_placed(bar.index, Some(base));
            }
        }
    }

    /// A guest may put two BARs at one address; the first keeps it, so only the owner unmaps.
    fn unmap(&self, base: u64, slot: u8, bar: u8) {
        let mut map = self.map.write().unwrap();
        if map.get(&base).is_some_and(|mapping| mapping.slot == slot && mapping.bar == bar) {
            map.remove(&base);
        }
    }

    /// What the functions are, by slot.
    pub fn identities(&self) -> Vec<String> {
        let slots = self.slots.read().unwrap();
        slots.iter().map(|slot| slot.device.lock().unwrap().identity()).collect()
    }

    /// Makes every function hold.
    ///
    /// # Errors
    /// [`BusError::Hold`]; those before it hold then, and all are to be resumed.
    pub fn suspend(&self) -> Result<(), BusError> {
        for (slot, entry) in (0..).zip(self.slots.read().unwrap().iter()) {
            let held = entry.device.lock().unwrap().suspend();
            held.map_err(|source| BusError::Hold { slot, source })?;
        }
        Ok(())
    }

    /// Lets every function go on.
    pub fn resume(&self) {
        for slot in self.slots.read().unwrap().iter() {
            slot.device.lock().unwrap().resume();
        }
    }

    /// Adds the state of all functions, which hold.
    ///
    /// # Errors
    /// Of the first function that cannot be saved.
    pub fn save(&self, state: &mut ArchiveBuilder) -> Result<(), StateError> {
        for (slot, entry) in self.slots.read().unwrap().iter().enumerate() {
            let (device, slot) = (entry.device.lock().unwrap(), slot.to_string());
            state.put(&slot, &ConfigState { bytes: device.config().contents().to_vec() })?;
            device.save(&slot, state)?;
        }
        Ok(())
    }

    /// Takes over the state of a bus with equal functions, which then hold.
    ///
    /// # Errors
    /// Of the first function that the state does not suit.
    pub fn restore(&self, state: &mut Archive) -> Result<(), StateError> {
        for (number, entry) in (0..).zip(self.slots.read().unwrap().iter()) {
            let mut device = entry.device.lock().unwrap();
            let slot = number.to_string();
            let saved: ConfigState = state.take(&slot)?;
            let before = self.placements(device.config());
            if !device.config_mut().adopt(&saved.bytes) {
                let reason = "it differs in what no guest can change";
                return Err(StateError::unsuitable::<ConfigState>(&slot, reason));
            }
            let after = self.placements(device.config());
            self.place(number, &mut *device, &before, &after);
            device.restore(&slot, state)?;
        }
        Ok(())
    }

    /// Resets every function; BARs are back at the addresses that the bus chose, not decoding.
    pub fn reset(&self) {
        let slots = self.slots.read().unwrap();
        for (number, slot) in (0..).zip(slots.iter()) {
            let mut device = slot.device.lock().unwrap();
            let before = self.placements(device.config());
            let after: Vec<_> = before.iter().map(|(bar, _)| (*bar, None)).collect();
            self.place(number, &mut *device, &before, &after);
            device.reset();
            let config = device.config_mut();
            config.reset();
            for (bar, address) in &slot.home {
                config.set_bar_address(bar, *address);
            }
        }
    }
}

/// Splits an offset into ECAM: function number and register.
fn ecam_address(offset: u64) -> (u8, u16) {
    ((offset >> FUNCTION_SHIFT) as u8, (offset & ((1 << FUNCTION_SHIFT) - 1)) as u16)
}

#[cfg(test)]
#[path = "bus_test.rs"]
mod tests;
