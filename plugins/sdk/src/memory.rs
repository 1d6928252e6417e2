//! A queue's DMA memory, and rings of words in it. Accesses are volatile and never outside.

#![allow(unsafe_code)] // DMA memory is shared with a device: raw and volatile.

use core::marker::PhantomData;
use core::sync::atomic::{Ordering, compiler_fence, fence};

use npa_abi::plugin::QueueMemory;

mod sealed {
    pub trait Sealed {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

/// An unsigned integer that the CPU reads and writes whole.
pub trait Word: Copy + Default + sealed::Sealed {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}

/// One queue's memory: shared with the device, coherent, contiguous for it.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    base: *mut u8,
    device_address: u64,
    length: usize,
    entries: u32,
}

// SAFETY: the memory belongs to whoever holds this, not to a thread.
unsafe impl Send for Memory {}

impl Memory {
    /// Wraps a queue's memory; `None` for a queue that is not there or whose entries are not a
    /// power of two.
    ///
    /// # Safety
    /// `memory.base` is null or stays valid for reads and writes of `memory.length` bytes for as
    /// long as the result, or what is made of it, is used.
    pub(crate) unsafe fn new(memory: &QueueMemory) -> Option<Self> {
        (!memory.base.is_null() && memory.entries.is_power_of_two()).then_some(Self {
            base: memory.base,
            device_address: memory.device_address,
            length: memory.length as usize,
            entries: memory.entries,
        })
    }

    /// Number of ring entries that the shell chose, a power of two.
    #[inline]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The device's address of the byte at `offset`.
    #[inline]
    pub fn device_address(&self, offset: usize) -> u64 {
        self.device_address.wrapping_add(offset as u64)
    }

    /// Zeroes all of it.
    pub fn zero(&self) {
        for offset in 0..self.length {
            // SAFETY: inside the memory, valid by `new`'s contract.
            unsafe { self.base.add(offset).write_volatile(0) }
        }
    }

    /// The ring of `count` words that begins `offset` bytes in; `None` if it does not lie inside,
    /// is misaligned, or `count` is no power of two.
    pub fn ring<T: Word>(&self, offset: usize, count: usize) -> Option<Ring<T>> {
        let bytes = count.checked_mul(size_of::<T>())?;
        let inside = offset.checked_add(bytes)? <= self.length;
        let base = self.base.wrapping_add(offset).cast::<T>();
        (inside && count.is_power_of_two() && base.is_aligned()).then_some(Ring {
            base,
            mask: count - 1,
            word: PhantomData,
        })
    }

    /// The single word at `offset` bytes: a ring of one.
    pub fn word<T: Word>(&self, offset: usize) -> Option<Ring<T>> {
        self.ring(offset, 1)
    }
}

/// A ring of words in a queue's memory. Indices wrap, so every index is good.
#[derive(Debug)]
pub struct Ring<T> {
    base: *mut T,
    mask: usize,
    word: PhantomData<T>,
}

impl<T> Clone for Ring<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ring<T> {}

// SAFETY: the memory belongs to whoever holds this, not to a thread.
unsafe impl<T: Word> Send for Ring<T> {}

impl<T: Word> Ring<T> {
    /// Reads word `index`, modulo the ring's length.
    #[inline]
    pub fn load(&self, index: u32) -> T {
        // SAFETY: the mask keeps the index inside the ring, which lies inside the memory.
        unsafe { self.base.add(index as usize & self.mask).read_volatile() }
    }

    /// Writes word `index`, modulo the ring's length.
    #[inline]
    pub fn store(&self, index: u32, value: T) {
        // SAFETY: the mask keeps the index inside the ring, which lies inside the memory.
        unsafe { self.base.add(index as usize & self.mask).write_volatile(value) }
    }
}

/// What the CPU wrote before is seen by the device before what it writes after: before a doorbell
/// or an index. (x86-64 keeps stores in order; only the compiler must be told.)
#[inline]
pub fn publish() {
    compiler_fence(Ordering::Release);
}

/// What the CPU reads after is not older than what it read before: after a done bit or an index.
#[inline]
pub fn observe() {
    fence(Ordering::Acquire);
}

/// What the CPU wrote before is seen by the device before the CPU reads on: between "tell me" and
/// "is there something already".
#[inline]
pub fn synchronise() {
    fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(words: &mut [u64], entries: u32) -> Option<Memory> {
        let length = size_of_val(words) as u32;
        let base = words.as_mut_ptr().cast();
        // SAFETY: each test keeps the array until its end.
        unsafe { Memory::new(&QueueMemory { base, device_address: 0x1000, length, entries }) }
    }

    #[test]
    fn rings_lie_inside_aligned_and_wrap() {
        let mut words = [0u64; 8];
        let memory = memory(&mut words, 4).unwrap();
        let ring = memory.ring::<u16>(8, 4).unwrap();
        for index in 0..9 {
            ring.store(index, index as u16);
        }
        assert_eq!([0, 1, 2, 3, u32::MAX].map(|index| ring.load(index)), [8, 5, 6, 7, 7]);
        assert_eq!(memory.device_address(8), 0x1008);
        assert!(memory.ring::<u64>(0, 16).is_none(), "too long");
        assert!(memory.ring::<u64>(4, 1).is_none(), "misaligned");
        assert!(memory.ring::<u16>(0, 3).is_none(), "no power of two");
        assert!(memory.ring::<u64>(8, usize::MAX / 2 + 1).is_none(), "overflow");
        assert!(memory.word::<u64>(64).is_none(), "behind the end");
        memory.zero();
        assert_eq!(ring.load(0), 0);
    }

    #[test]
    fn a_queue_without_memory_or_with_odd_entries_is_none() {
        let mut words = [0u64; 8];
        assert!(memory(&mut words, 3).is_none());
        assert!(memory(&mut words, 0).is_none());
        let none =
            QueueMemory { base: core::ptr::null_mut(), device_address: 0, length: 64, entries: 4 };
        // SAFETY: a null base is allowed.
        assert!(unsafe { Memory::new(&none) }.is_none());
    }
}
