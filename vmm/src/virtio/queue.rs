//! One virtqueue as a device sees it: chains that are checked before anyone uses them, used
//! buffers, and both directions of notification suppression. Never trusts the guest: whatever it
//! wrote ends in a [`QueueError`], not a panic and not an endless loop.

use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes, GuestAddress};

use super::interrupt::Interrupts;
use crate::vm::GuestRam;

// Offsets in the rings (VIRTIO 1.2, sections 2.7.6 and 2.7.8).
const USED_INDEX: u64 = 2;
const USED_RING: u64 = 4;
const USED_ELEMENT: u64 = 8;
/// `used_event` follows the available ring's entries, two bytes each.
const USED_EVENT: u64 = 4;

/// What a guest driver did wrong with a queue. The device stops and asks for a reset.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The ring itself is not usable.
    #[error("unusable ring")]
    Ring(#[from] virtio_queue::Error),
    /// A descriptor chain loops, leaves the table, or is unreadable.
    #[error("descriptor chain {head} loops or leaves its table")]
    BrokenChain {
        /// Index of the chain's first descriptor.
        head: u16,
    },
    /// A descriptor points outside guest RAM.
    #[error("descriptor chain {head} points outside guest memory at {address:#x}")]
    OutsideMemory {
        /// Index of the chain's first descriptor.
        head: u16,
        /// The guest physical address.
        address: u64,
    },
    /// A chain without room for what every request has.
    #[error("descriptor chain {head} is too short for a request")]
    TooShort {
        /// Index of the chain's first descriptor.
        head: u16,
    },
    /// A writable descriptor where only readable ones belong, or the other way round.
    #[error("descriptor chain {head} has a descriptor of the wrong direction")]
    WrongDirection {
        /// Index of the chain's first descriptor.
        head: u16,
    },
}

/// One descriptor chain, completely walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Index of the first descriptor, by which the chain is given back.
    pub head: u16,
    /// The buffers in order.
    pub buffers: Vec<Buffer>,
}

/// One buffer of a chain. Its address is not checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest physical address.
    pub address: GuestAddress,
    /// Length in bytes.
    pub len: u32,
    /// Whether the device writes to it.
    pub writable: bool,
}

/// Where a device stands in a queue: what it would pop next and where it would put what it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueuePosition {
    /// Index in the available ring, modulo 2^16.
    pub next_avail: u16,
    /// Index in the used ring, modulo 2^16.
    pub next_used: u16,
}

/// A queue in the hands of its device.
#[derive(Debug)]
pub struct DeviceQueue {
    index: u16,
    queue: Queue,
    memory: Arc<GuestRam>,
    interrupts: Arc<Interrupts>,
    /// Used index at the last look at whether the guest wants an interrupt.
    signalled: Wrapping<u16>,
}

impl DeviceQueue {
    /// Takes over a configured `queue`, whose number is `index`.
    pub fn new(
        index: u16,
        queue: Queue,
        memory: Arc<GuestRam>,
        interrupts: Arc<Interrupts>,
    ) -> Self {
        let signalled = Wrapping(queue.next_used());
        Self { index, queue, memory, interrupts, signalled }
    }

    /// Guest RAM.
    pub fn memory(&self) -> &Arc<GuestRam> {
        &self.memory
    }

    /// The device's interrupts.
    pub fn interrupts(&self) -> &Arc<Interrupts> {
        &self.interrupts
    }

    /// Number of entries.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// How many chains the guest made available that were not popped yet.
    ///
    /// # Errors
    /// When the ring cannot be read or its index is out of range.
    pub fn available(&self) -> Result<u16, QueueError> {
        let index = self.queue.avail_idx(&*self.memory, Ordering::Acquire)?;
        let available = (index - Wrapping(self.queue.next_avail())).0;
        if available > self.queue.size() {
            return Err(virtio_queue::Error::InvalidAvailRingIndex.into());
        }
        Ok(available)
    }

    /// Position in the available ring of the next chain to pop, modulo 2^16.
    pub fn position(&self) -> u16 {
        self.queue.next_avail()
    }

    /// Where the device stands, everything popped being used.
    pub fn stand(&self) -> QueuePosition {
        QueuePosition { next_avail: self.queue.next_avail(), next_used: self.queue.next_used() }
    }

    /// Pops the next available chain into `chain`, whose buffer list is reused. Returns `false`
    /// when the ring is empty.
    ///
    /// # Errors
    /// When the ring or the chain is broken.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        let memory = &*self.memory;
        let Some(descriptors) = self.queue.iter(memory)?.next() else {
            return Ok(false);
        };
        chain.head = descriptors.head_index();
        chain.buffers.clear();
        // The iterator ends without a word on loops, bad indices and unreadable tables; what
        // tells such an end from a proper one is that the last descriptor announced another.
        let mut ended = false;
        for descriptor in descriptors {
            ended = !descriptor.has_next();
            chain.buffers.push(buffer(&descriptor));
        }
        if ended { Ok(true) } else { Err(QueueError::BrokenChain { head: chain.head }) }
    }

    /// Takes back the last [`DeviceQueue::pop`]s, `count` of them, which were not used.
    pub fn unpop(&mut self, count: u16) {
        let position = Wrapping(self.queue.next_avail()) - Wrapping(count);
        self.queue.set_next_avail(position.0);
    }

    /// Gives chains back to the guest, each as its head and the bytes written to it. The guest
    /// sees all of them at once: a frame spread over several chains must not appear in part.
    ///
    /// # Errors
    /// When a head is not an index of this queue, or the ring cannot be written.
    pub fn push_used(&mut self, chains: &[(u16, u32)]) -> Result<(), QueueError> {
        let mut next = Wrapping(self.queue.next_used());
        for &(head, written) in chains {
            if head >= self.queue.size() {
                return Err(virtio_queue::Error::InvalidDescriptorIndex.into());
            }
            let slot = u64::from(next.0 % self.queue.size());
            let element = [u32::from(head).to_le(), written.to_le()];
            self.memory
                .write_obj(element, self.used_address(USED_RING + USED_ELEMENT * slot)?)
                .map_err(virtio_queue::Error::GuestMemory)?;
            next += 1;
        }
        self.queue.set_next_used(next.0);
        self.memory
            .store(next.0.to_le(), self.used_address(USED_INDEX)?, Ordering::Release)
            .map_err(virtio_queue::Error::GuestMemory)?;
        Ok(())
    }

    /// Interrupts the guest for the chains given back since the last call, if it wants that
    /// (VIRTIO 1.2, section 2.7.7.2).
    ///
    /// # Errors
    /// When the ring cannot be read.
    pub fn signal_used(&mut self) -> Result<(), QueueError> {
        let used = Wrapping(self.queue.next_used());
        let added = used - self.signalled;
        if added.0 == 0 {
            return Ok(());
        }
        // The used index must be visible before the guest's wish is read: it may be arming its
        // interrupt right now.
        fence(Ordering::SeqCst);
        let wanted = if self.queue.event_idx_enabled() {
            let event = Wrapping(self.avail_word(USED_EVENT + 2 * u64::from(self.queue.size()))?);
            used - event - Wrapping(1) < added
        } else {
            u32::from(self.avail_word(0)?) & VRING_AVAIL_F_NO_INTERRUPT == 0
        };
        self.signalled = used;
        if wanted {
            self.interrupts.queue_used(self.index);
        }
        Ok(())
    }

    /// Asks the guest not to ring the doorbell.
    ///
    /// # Errors
    /// When the ring cannot be written.
    pub fn suppress_kicks(&mut self) -> Result<(), QueueError> {
        Ok(self.queue.disable_notification(&*self.memory)?)
    }

    /// Asks the guest to ring the doorbell for the next chain. Returns `true` when there already
    /// is one, for which it may not ring.
    ///
    /// # Errors
    /// When the ring cannot be accessed.
    pub fn request_kicks(&mut self) -> Result<bool, QueueError> {
        Ok(self.queue.enable_notification(&*self.memory)?)
    }

    fn avail_word(&self, offset: u64) -> Result<u16, QueueError> {
        let address = GuestAddress(self.queue.avail_ring())
            .checked_add(offset)
            .ok_or(virtio_queue::Error::AddressOverflow)?;
        let word: u16 = self
            .memory
            .load(address, Ordering::Acquire)
            .map_err(virtio_queue::Error::GuestMemory)?;
        Ok(u16::from_le(word))
    }

    fn used_address(&self, offset: u64) -> Result<GuestAddress, QueueError> {
        let address = GuestAddress(self.queue.used_ring()).checked_add(offset);
        Ok(address.ok_or(virtio_queue::Error::AddressOverflow)?)
    }
}

impl Chain {
    /// An empty chain to pop into.
    pub fn new() -> Self {
        Self { head: 0, buffers: Vec::new() }
    }

    /// Sum of the buffers' lengths in bytes.
    pub fn len(&self) -> u64 {
        self.buffers.iter().map(|buffer| u64::from(buffer.len)).sum()
    }

    /// Whether the chain holds no byte at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

fn buffer(descriptor: &Descriptor) -> Buffer {
    Buffer {
        address: descriptor.addr(),
        len: descriptor.len(),
        writable: descriptor.is_write_only(),
    }
}
