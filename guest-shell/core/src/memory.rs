//! Tables in memory that the operating system gives: fixed length, zeroed at first, every access
//! checked. Freed by hand, because freeing needs the operating system.
#![allow(unsafe_code)] // Raw memory becomes typed slices here, and only here.

use crate::os::{Os, RxHandle, TxHandle};
use core::ptr::NonNull;
use npa_abi::PAGE_SIZE;
use npa_abi::net::{TxFrame, TxSegment};

/// Types for which all zero bytes are a valid value, without drop glue, aligned to 64 or less.
///
/// # Safety
/// The implementer vouches for all of that.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u8 {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}
// SAFETY: all zero is `None` for an option of a non-zero integer.
unsafe impl Plain for Option<RxHandle> {}
// SAFETY: as above.
unsafe impl Plain for Option<TxHandle> {}
// SAFETY: integers and a raw pointer, for which null is valid.
unsafe impl Plain for TxFrame {}
// SAFETY: integers.
unsafe impl Plain for TxSegment {}
// SAFETY: an array of plain values.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Writes to each page of `length` bytes from `base` on, and changes none: a hypervisor that logs
/// what the guest writes then knows what a device wrote there.
///
/// # Safety
/// The bytes are writable memory, to which no reference exists and nothing else writes meanwhile.
pub unsafe fn mark_pages(base: NonNull<u8>, length: usize) {
    let mut at = 0;
    while at < length {
        let place = base.as_ptr().wrapping_add(at);
        // SAFETY: inside the range, by the caller's word; volatile, since the write is for its own
        // sake.
        unsafe { place.write_volatile(place.read_volatile()) };
        at += PAGE_SIZE - (place as usize & (PAGE_SIZE - 1));
    }
}

/// A table of `T` in the operating system's memory.
#[derive(Debug)]
pub(crate) struct Table<T> {
    base: NonNull<T>,
    length: usize,
}

// SAFETY: the table owns its memory like a boxed slice of plain values.
unsafe impl<T: Plain> Send for Table<T> {}

impl<T: Plain> Table<T> {
    /// Allocates `length` zeroed entries; `None` without memory or for an empty table.
    pub(crate) fn new(os: &impl Os, length: usize) -> Option<Self> {
        const { assert!(align_of::<T>() <= 64) };
        let bytes = length.checked_mul(size_of::<T>()).filter(|bytes| *bytes != 0)?;
        let base = os.memory_alloc(bytes)?.cast();
        Some(Self { base, length })
    }

    /// The entries.
    pub(crate) fn as_slice(&self) -> &[T] {
        // SAFETY: `new` got this much zeroed, aligned memory, which `T: Plain` makes valid
        // entries; `&self` keeps writers off.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.length) }
    }

    /// The entries, for writing.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, and `&mut self` makes the access exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.length) }
    }

    /// Address of entry `index`, for handing the memory on; accesses through it must not overlap in
    /// time with references from this table, and `index` must be below its length.
    pub(crate) const fn address(&self, index: usize) -> *mut T {
        self.base.as_ptr().wrapping_add(index)
    }

    /// Frees the memory.
    pub(crate) fn free(self, os: &impl Os) {
        os.memory_free(self.base.cast(), self.length.saturating_mul(size_of::<T>()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marking_changes_nothing_and_stays_inside() {
        let mut bytes: [u8; 3 * PAGE_SIZE] = core::array::from_fn(|at| at as u8);
        let before = bytes;
        for (start, length) in [(0, 0), (5, 1), (100, 2 * PAGE_SIZE), (1, 3 * PAGE_SIZE - 1)] {
            let base = NonNull::new(bytes.as_mut_ptr().wrapping_add(start)).unwrap();
            // SAFETY: within the array, which nothing else uses.
            unsafe { mark_pages(base, length) };
        }
        assert_eq!(bytes, before);
    }
}
