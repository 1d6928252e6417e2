//! Numbers and owns the VM's KVM memory slots: guest RAM, and windows of device memory that
//! come and go while the guest runs. Never allocates or maps host memory itself.
#![allow(unsafe_code)] // A slot hands host memory to the guest.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use super::hypervisor::{Hypervisor, Slot, SlotFlags};

/// Slots that every KVM offers on x86 (KVM_CAP_NR_MEMSLOTS is 32764; far fewer are needed).
const MAX_SLOTS: u32 = 509;

/// A memory slot that could not be made or found.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// All slots are taken.
    #[error("all {MAX_SLOTS} memory slots are in use")]
    Exhausted,
    /// No such slot.
    #[error("memory slot {0} does not exist")]
    Unknown(u32),
    /// KVM refused.
    #[error("kvm refused memory slot at {gpa:#x}, length {len:#x}")]
    Kvm {
        /// Guest physical address asked for.
        gpa: u64,
        /// Length asked for.
        len: u64,
        /// KVM's reason; EEXIST means that the range overlaps another slot.
        #[source]
        source: io::Error,
    },
}

/// Names a slot made by [`MemorySlots::add`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(u32);

/// The slots of one VM. Thread-safe.
pub struct MemorySlots {
    hypervisor: Arc<dyn Hypervisor>,
    slots: Mutex<BTreeMap<u32, Slot>>,
}

impl MemorySlots {
    /// No slots yet.
    pub fn new(hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self { hypervisor, slots: Mutex::new(BTreeMap::new()) }
    }

    /// Makes `len` bytes at `host_addr` of this process appear at `gpa` (all page aligned).
    ///
    /// # Safety
    /// The host range must stay mapped until the slot is removed or replaced, and no Rust
    /// reference may exist to it while the guest can write there.
    pub unsafe fn add(
        &self,
        gpa: u64,
        host_addr: u64,
        len: u64,
        flags: SlotFlags,
    ) -> Result<SlotId, SlotError> {
        let mut slots = self.slots.lock().unwrap();
        let id = (0..MAX_SLOTS).find(|id| !slots.contains_key(id)).ok_or(SlotError::Exhausted)?;
        let slot = Slot { id, gpa, len, host: host_addr, flags };
        // SAFETY: passed on to our caller.
        unsafe { self.set(slot) }?;
        slots.insert(id, slot);
        Ok(SlotId(id))
    }

    /// Puts other host memory, of the same length, in the place of a slot. The guest sees the
    /// old memory, for some microseconds none (such an access is retried by KVM or reads as
    /// ones through the VMM), then the new. If KVM refuses the new memory the old one is put
    /// back.
    ///
    /// # Safety
    /// As for [`MemorySlots::add`]. The old range may be unmapped once this returned `Ok`.
    pub unsafe fn replace(&self, id: SlotId, host_addr: u64) -> Result<(), SlotError> {
        let mut slots = self.slots.lock().unwrap();
        let slot = slots.get_mut(&id.0).ok_or(SlotError::Unknown(id.0))?;
        let old = *slot;
        let new = Slot { host: host_addr, ..old };
        // SAFETY: deleting a slot has no requirement on memory.
        unsafe { self.set(Slot { len: 0, ..old }) }?;
        // SAFETY: passed on to our caller.
        if let Err(error) = unsafe { self.set(new) } {
            // SAFETY: the old memory is still mapped, since this call has not succeeded.
            unsafe { self.set(old) }?;
            return Err(error);
        }
        *slot = new;
        Ok(())
    }

    /// Moves a slot to another guest physical address.
    pub fn relocate(&self, id: SlotId, gpa: u64) -> Result<(), SlotError> {
        let mut slots = self.slots.lock().unwrap();
        let slot = slots.get_mut(&id.0).ok_or(SlotError::Unknown(id.0))?;
        let new = Slot { gpa, ..*slot };
        // SAFETY: the same host memory as before, whose owner promised to keep it mapped.
        unsafe { self.set(new) }?;
        *slot = new;
        Ok(())
    }

    /// Changes a slot's flags, for example to start its dirty log.
    pub fn set_flags(&self, id: SlotId, flags: SlotFlags) -> Result<(), SlotError> {
        let mut slots = self.slots.lock().unwrap();
        let slot = slots.get_mut(&id.0).ok_or(SlotError::Unknown(id.0))?;
        let new = Slot { flags, ..*slot };
        // SAFETY: the same host memory as before, whose owner promised to keep it mapped.
        unsafe { self.set(new) }?;
        *slot = new;
        Ok(())
    }

    /// Takes a slot away; accesses exit to the VMM from now on. On return KVM has dropped all
    /// its mappings of the host memory, which may then be unmapped.
    pub fn remove(&self, id: SlotId) -> Result<(), SlotError> {
        let mut slots = self.slots.lock().unwrap();
        let slot = *slots.get(&id.0).ok_or(SlotError::Unknown(id.0))?;
        // SAFETY: deleting a slot has no requirement on memory.
        unsafe { self.set(Slot { len: 0, ..slot }) }?;
        slots.remove(&id.0);
        Ok(())
    }

    /// KVM's number of the slot, for dirty logs.
    pub fn kvm_slot(&self, id: SlotId) -> u32 {
        id.0
    }

    /// # Safety
    /// As for [`Hypervisor::set_memory_slot`].
    unsafe fn set(&self, slot: Slot) -> Result<(), SlotError> {
        // SAFETY: passed on to our caller.
        unsafe { self.hypervisor.set_memory_slot(slot) }.map_err(|source| SlotError::Kvm {
            gpa: slot.gpa,
            len: slot.len,
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::hypervisor::fake::FakeHypervisor;
    use super::*;

    fn slots() -> (Arc<FakeHypervisor>, MemorySlots) {
        let fake = Arc::new(FakeHypervisor::default());
        let slots = MemorySlots::new(fake.clone());
        (fake, slots)
    }

    /// The fake never touches the memory.
    fn add(slots: &MemorySlots, gpa: u64) -> Result<SlotId, SlotError> {
        // SAFETY: the fake hypervisor maps nothing.
        unsafe { slots.add(gpa, 0x7000_0000, 0x1000, SlotFlags::empty()) }
    }

    #[test]
    fn numbers_are_reused() {
        let (fake, slots) = slots();
        let first = add(&slots, 0x1000).unwrap();
        let second = add(&slots, 0x2000).unwrap();
        slots.remove(first).unwrap();
        let third = add(&slots, 0x3000).unwrap();
        assert_eq!(third, first);
        assert_ne!(third, second);
        assert_eq!(fake.slots().len(), 2);
    }

    #[test]
    fn overlap_is_refused_and_leaves_nothing_behind() {
        let (fake, slots) = slots();
        add(&slots, 0x1000).unwrap();
        assert!(matches!(add(&slots, 0x1000), Err(SlotError::Kvm { .. })));
        assert_eq!(fake.slots().len(), 1);
    }

    #[test]
    fn replace_keeps_place_and_flags() {
        let (fake, slots) = slots();
        let id = add(&slots, 0x1000).unwrap();
        slots.set_flags(id, SlotFlags::LOG_DIRTY).unwrap();
        // SAFETY: the fake hypervisor maps nothing.
        unsafe { slots.replace(id, 0x8000_0000) }.unwrap();
        let slot = fake.slots()[0];
        assert_eq!((slot.gpa, slot.host, slot.flags), (0x1000, 0x8000_0000, SlotFlags::LOG_DIRTY));
    }

    #[test]
    fn unknown_slots_are_errors() {
        let (_, slots) = slots();
        let id = add(&slots, 0x1000).unwrap();
        slots.remove(id).unwrap();
        assert!(matches!(slots.remove(id), Err(SlotError::Unknown(0))));
        assert!(matches!(slots.relocate(id, 0), Err(SlotError::Unknown(0))));
    }
}
