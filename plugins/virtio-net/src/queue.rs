//! What receive and transmit share: the rings of a split virtqueue and who is to be told what.

use npa_plugin_sdk::memory::{observe, publish, synchronise};
use npa_plugin_sdk::{Error, Memory, Ring, Window};

use crate::info::{VIRTIO_F_RING_EVENT_IDX, VirtioInfo};
use crate::layout::{DESCRIPTOR, QueueLayout};

/// Descriptor flag: the chain goes on at `next`.
pub(crate) const F_NEXT: u16 = 1;
/// Descriptor flag: the device writes.
pub(crate) const F_WRITE: u16 = 2;

/// Driver area flag: no interrupts.
const NO_INTERRUPT: u16 = 1;
/// Device area flag: no doorbells.
const NO_NOTIFY: u16 = 1;

/// A buffer that the device gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    /// First descriptor of its chain, as the device says.
    pub(crate) id: u32,
    /// Bytes written, as the device says.
    pub(crate) length: u32,
}

/// One split virtqueue.
#[derive(Debug)]
pub(crate) struct Queue {
    memory: Memory,
    index: u32,
    doorbell: usize,
    event_index: bool,
    descriptors: Ring<u64>,
    driver_flags: Ring<u16>,
    driver_index: Ring<u16>,
    driver_ring: Ring<u16>,
    used_event: Ring<u16>,
    device_flags: Ring<u16>,
    device_index: Ring<u16>,
    /// Two words per element; elements are 4-byte aligned only.
    device_ring: Ring<u32>,
    avail_event: Ring<u16>,
    /// Chains made available so far, modulo 2^16.
    offered: u16,
    /// Value of `offered` at the last doorbell decision.
    announced: u16,
    /// Chains taken back so far, modulo 2^16.
    taken: u16,
}

impl Queue {
    /// Lays a queue out in `memory`.
    pub(crate) fn new(info: &VirtioInfo, index: u32, memory: Memory) -> Result<Self, Error> {
        let entries = memory.entries();
        let count = entries as usize;
        let layout = QueueLayout::new(entries);
        let driver = layout.driver as usize;
        let device = layout.device as usize;
        let parts = || {
            Some(Self {
                memory,
                index,
                doorbell: info.doorbell(index),
                event_index: info.has(VIRTIO_F_RING_EVENT_IDX),
                descriptors: memory.ring(layout.descriptors as usize, 2 * count)?,
                driver_flags: memory.word(driver)?,
                driver_index: memory.word(driver + 2)?,
                driver_ring: memory.ring(driver + 4, count)?,
                used_event: memory.word(driver + 4 + 2 * count)?,
                device_flags: memory.word(device)?,
                device_index: memory.word(device + 2)?,
                device_ring: memory.ring(device + 4, 2 * count)?,
                avail_event: memory.word(device + 4 + 8 * count)?,
                offered: 0,
                announced: 0,
                taken: 0,
            })
        };
        parts().ok_or(Error::Config)
    }

    /// Number of descriptors.
    pub(crate) fn entries(&self) -> u32 {
        self.memory.entries()
    }

    /// Zeroes everything, the plugin's own part too; interrupts are off.
    pub(crate) fn reset(&mut self) {
        self.memory.zero();
        (self.offered, self.announced, self.taken) = (0, 0, 0);
        self.disarm();
    }

    /// Writes descriptor `index`.
    pub(crate) fn describe(&self, index: u32, address: u64, length: u32, flags: u16, next: u32) {
        let word = u64::from(length) | u64::from(flags) << 32 | u64::from(next as u16) << 48;
        self.descriptors.store(2 * index, address);
        self.descriptors.store(2 * index + 1, word);
    }

    /// Makes the chain that begins at `head` available; the device sees it after
    /// [`Queue::announce`].
    pub(crate) fn offer(&mut self, head: u32) {
        self.driver_ring.store(self.offered.into(), head as u16);
        self.offered = self.offered.wrapping_add(1);
    }

    /// Shows the device what was offered and rings the doorbell if it wants that.
    pub(crate) fn announce(&mut self, window: Window) {
        if self.offered == self.announced {
            return;
        }
        publish();
        self.driver_index.store(0, self.offered);
        synchronise();
        let wanted = if self.event_index {
            is_passed(self.avail_event.load(0), self.announced, self.offered)
        } else {
            self.device_flags.load(0) & NO_NOTIFY == 0
        };
        self.announced = self.offered;
        if wanted {
            window.write16(self.doorbell, self.index as u16);
        }
    }

    /// Number of chains that the device gave back and that were not taken yet; never more than
    /// are with it, whatever it says.
    pub(crate) fn waiting(&self) -> u16 {
        let said = self.device_index.load(0).wrapping_sub(self.taken);
        observe();
        said.min(self.offered.wrapping_sub(self.taken))
    }

    /// The chain `ahead` places after the oldest one given back; below [`Queue::waiting`].
    pub(crate) fn look(&self, ahead: u16) -> Used {
        let place = 2 * u32::from(self.taken.wrapping_add(ahead));
        Used { id: self.device_ring.load(place), length: self.device_ring.load(place + 1) }
    }

    /// Takes the `count` oldest chains given back.
    pub(crate) fn take(&mut self, count: u16) {
        self.taken = self.taken.wrapping_add(count);
    }

    /// Asks for an interrupt once `more` further chains, after those taken, have come back (0:
    /// the next one). Answers whether they already have.
    pub(crate) fn arm(&mut self, more: u16) -> bool {
        if self.event_index {
            self.used_event.store(0, self.taken.wrapping_add(more));
        } else {
            self.driver_flags.store(0, 0);
        }
        synchronise();
        self.waiting() > more
    }

    /// Asks for no interrupts; one may still come.
    pub(crate) fn disarm(&mut self) {
        if self.event_index {
            // The device compares for equality in passing: what lies behind is passed only after
            // another 65,535 chains.
            self.used_event.store(0, self.taken.wrapping_sub(1));
        } else {
            self.driver_flags.store(0, NO_INTERRUPT);
        }
    }

    /// The device address of the byte at `offset` in the queue's memory.
    pub(crate) fn device_address(&self, offset: usize) -> u64 {
        self.memory.device_address(offset)
    }
}

/// Bytes of the descriptor area are whole descriptors of two words.
const _: () = assert!(DESCRIPTOR as usize == 2 * size_of::<u64>());

/// Whether an index that went from `old` to `new` has passed `event` (virtio 1.2, 2.7.7.1).
fn is_passed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::is_passed;

    #[test]
    fn an_event_is_passed_once_also_across_the_wrap() {
        assert!(is_passed(5, 5, 6));
        assert!(!is_passed(6, 5, 6));
        assert!(!is_passed(4, 5, 6));
        assert!(is_passed(0xffff, 0xfffe, 1));
        assert!(is_passed(0, 0xfffe, 1));
        assert!(!is_passed(1, 0xfffe, 1));
    }
}
