//! Where the parts of a virtqueue lie in a queue's memory. The control side programs these
//! addresses into the device.

use npa_abi::image::RingNeed;

/// Bytes of a descriptor (virtio 1.2, 2.7.5).
pub(crate) const DESCRIPTOR: u32 = 16;

/// Ring memory of a receive queue.
pub(crate) const RX_NEED: RingNeed = RingNeed {
    per_entry: DESCRIPTOR + 2 + 8 + RX_BOOKS,
    fixed: FIXED,
    align: 64,
    min_entries: 32,
    max_entries: 1024,
};

/// Ring memory of a transmit queue.
pub(crate) const TX_NEED: RingNeed = RingNeed {
    per_entry: DESCRIPTOR + 2 + 8 + TX_BOOKS,
    fixed: FIXED,
    align: 64,
    min_entries: 32,
    max_entries: 1024,
};

/// Bytes beside the entries: both areas' indices and events, and alignment.
const FIXED: u32 = 64;

/// The driver's own bytes per receive entry: the free list and who is posted.
const RX_BOOKS: u32 = 2 + 2;

/// The driver's own bytes per transmit entry: the frame header and the chain's length.
const TX_BOOKS: u32 = 16 + 2;

/// Offsets in a queue's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLayout {
    /// Descriptor area (virtio 1.2, 2.7): the address for `queue_desc`.
    pub descriptors: u64,
    /// Driver area, the available ring: the address for `queue_driver`.
    pub driver: u64,
    /// Device area, the used ring: the address for `queue_device`.
    pub device: u64,
    /// The plugin's own part.
    pub(crate) books: u64,
}

impl QueueLayout {
    /// The layout of a queue of `entries` entries, receive or transmit alike.
    pub const fn new(entries: u32) -> Self {
        let entries = entries as u64;
        let driver = entries * DESCRIPTOR as u64;
        // flags, idx, ring, used_event
        let device = (driver + 2 + 2 + 2 * entries + 2).next_multiple_of(4);
        // flags, idx, ring, avail_event
        let books = (device + 2 + 2 + 8 * entries + 2).next_multiple_of(16);
        Self { descriptors: 0, driver, device, books }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_fits_the_memory_that_is_asked_for() {
        for need in [RX_NEED, TX_NEED] {
            let own = u64::from(need.per_entry - DESCRIPTOR - 2 - 8);
            let mut entries = u32::from(need.min_entries);
            while entries <= need.max_entries.into() {
                let layout = QueueLayout::new(entries);
                assert!(layout.books + own * u64::from(entries) <= need.bytes(entries));
                assert_eq!(layout.descriptors % 16, 0);
                assert_eq!(layout.driver % 2, 0);
                assert_eq!(layout.device % 4, 0);
                entries *= 2;
            }
        }
    }
}
