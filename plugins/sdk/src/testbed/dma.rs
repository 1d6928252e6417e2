//! Memory that a device under test can reach, by addresses of its own. What was freed, or never
//! given, cannot be reached: an access there is an error that a test sees.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::vec::Vec;

/// Alignment of every range, in bytes.
const ALIGN: usize = 4096;

/// All ranges, by device address.
#[derive(Debug, Default)]
pub struct Dma {
    ranges: BTreeMap<u64, Range>,
    next: u64,
}

#[derive(Debug)]
struct Range {
    base: *mut u8,
    length: usize,
}

impl Dma {
    /// Gives a new zeroed range of `length` bytes: its device address and where it is.
    pub fn allocate(&mut self, length: usize) -> (u64, *mut u8) {
        let layout = layout(length);
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        assert!(!base.is_null(), "out of memory");
        // Never used again, and never next to another range.
        let address = 0x1_0000_0000 + self.next;
        self.next += (layout.size() + 2 * ALIGN) as u64;
        self.ranges.insert(address, Range { base, length });
        (address, base)
    }

    /// Takes the range at `address` away.
    pub fn free(&mut self, address: u64) {
        let range = self.ranges.remove(&address).expect("a range begins there");
        // SAFETY: allocated with the same layout.
        unsafe { dealloc(range.base, layout(range.length)) };
    }

    fn place(&self, address: u64, length: usize) -> Option<*mut u8> {
        let (base, range) = self.ranges.range(..=address).next_back()?;
        let offset = usize::try_from(address - base).ok()?;
        (offset.checked_add(length)? <= range.length).then(|| range.base.wrapping_add(offset))
    }

    /// Where the byte at `address` is; null where the device has no memory.
    pub fn pointer(&self, address: u64) -> *const u8 {
        self.place(address, 1).map_or(core::ptr::null(), |place| place.cast_const())
    }

    /// Reads `length` bytes as the device; `None` where it has no memory.
    pub fn read(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        let place = self.place(address, length)?;
        // SAFETY: inside a live range. Nothing else runs.
        Some(unsafe { std::slice::from_raw_parts(place, length) }.to_vec())
    }

    /// Reads a little endian word of `N` bytes as the device.
    pub fn word<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        self.read(address, N)?.try_into().ok()
    }

    /// Writes as the device; `false` where it has no memory.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        match self.place(address, bytes.len()) {
            Some(place) => {
                // SAFETY: inside a live range, which `bytes` is not. Nothing else runs.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
                true
            }
            None => false,
        }
    }
}

fn layout(length: usize) -> Layout {
    Layout::from_size_align(length.max(1), ALIGN).expect("a small range")
}

impl Drop for Dma {
    fn drop(&mut self) {
        let addresses: Vec<u64> = self.ranges.keys().copied().collect();
        addresses.into_iter().for_each(|address| self.free(address));
    }
}
