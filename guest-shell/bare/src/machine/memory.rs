//! Memory by address, and an allocator of blocks that come back: one free list per power of two.
#![allow(unsafe_code)] // Addresses become accesses here.

use core::ptr::NonNull;

/// A value at any address; on x86 one access all the same.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Anywhere<T>(T);

/// Reads a `T` at `address`, any alignment, in one access; `T` is plain integers.
pub(crate) fn load<T: Copy>(address: u64) -> T {
    // SAFETY: the first 4 GiB and what `paging` maps are readable, one to one; the callers read
    // tables and registers whose addresses the firmware or the PCI function gave.
    unsafe { (address as *const Anywhere<T>).read_volatile() }.0
}

/// Writes a `T` at `address`, aligned.
pub(crate) fn store<T: Copy>(address: u64, value: T) {
    // SAFETY: as for `load`; the callers write page tables and registers only.
    unsafe { (address as *mut T).write_volatile(value) }
}

const SMALLEST: u32 = 6;
const LISTS: usize = 26;

/// The allocator: blocks of 64 bytes to 2 GiB, each aligned to its size up to a page.
#[derive(Debug)]
pub(crate) struct Memory {
    next: u64,
    end: u64,
    /// By power of two: address of the first free block, whose first word is the next one's.
    free: [u64; LISTS],
}

impl Memory {
    /// All of `start..end`, which is usable and page-aligned.
    pub(crate) const fn new(start: u64, end: u64) -> Self {
        Self { next: start, end, free: [0; LISTS] }
    }

    fn class(length: usize) -> Option<(usize, u64)> {
        let size = length.checked_next_power_of_two()?.max(1 << SMALLEST) as u64;
        let class = (size.trailing_zeros() - SMALLEST) as usize;
        (class < LISTS).then_some((class, size))
    }

    /// A block of at least `length` bytes, zeroed.
    pub(crate) fn alloc(&mut self, length: usize) -> Option<NonNull<u8>> {
        let (class, size) = Self::class(length)?;
        let list = self.free.get_mut(class)?;
        let block = if *list != 0 {
            let block = *list;
            *list = load(block);
            block
        } else {
            let block = self.next.next_multiple_of(size.min(4096));
            let end = block.checked_add(size).filter(|end| *end <= self.end)?;
            self.next = end;
            block
        };
        // SAFETY: the block is usable memory that nobody else has.
        unsafe { (block as *mut u8).write_bytes(0, size as usize) };
        NonNull::new(block as *mut u8)
    }

    /// Takes back a block of `length` bytes.
    pub(crate) fn free(&mut self, block: NonNull<u8>, length: usize) {
        let at = block.as_ptr() as u64;
        if let Some((class, _)) = Self::class(length)
            && let Some(list) = self.free.get_mut(class)
        {
            store(at, *list);
            *list = at;
        }
    }
}
