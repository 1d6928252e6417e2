//! A PCI BAR mapped from sysfs. The only module with raw memory access.
#![allow(unsafe_code)] // Mapping a BAR and volatile accesses to it.

use anyhow::{Context, Result};
use rustix::mm::{MapFlags, ProtFlags};
use std::path::Path;

/// A mapped BAR.
pub(crate) struct Bar {
    base: *mut u8,
    length: usize,
}

impl Bar {
    /// Maps `length` bytes of the BAR behind the sysfs resource file `path`.
    pub(crate) fn map(path: &Path, length: usize) -> Result<Self> {
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open {} (root needed)", path.display()))?;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }
        .with_context(|| format!("cannot map {}", path.display()))?;
        Ok(Self { base: base.cast(), length })
    }

    fn at(&self, offset: usize, size: usize) -> *mut u8 {
        assert!(offset + size <= self.length && offset.is_multiple_of(size));
        // SAFETY: the offset was just checked against the mapping's length.
        unsafe { self.base.add(offset) }
    }

    /// Reads `size` bytes (1, 2, 4 or 8) at the aligned `offset`.
    pub(crate) fn read(&self, offset: usize, size: usize) -> u64 {
        let at = self.at(offset, size);
        // SAFETY: `at` is inside the mapping and aligned for the size; any value is valid.
        unsafe {
            match size {
                1 => at.read_volatile().into(),
                2 => at.cast::<u16>().read_volatile().into(),
                4 => at.cast::<u32>().read_volatile().into(),
                _ => at.cast::<u64>().read_volatile(),
            }
        }
    }

    /// Writes the low `size` bytes of `value` at the aligned `offset`.
    pub(crate) fn write(&mut self, offset: usize, size: usize, value: u64) {
        let at = self.at(offset, size);
        // SAFETY: as in `read`; nothing else in this process refers to the mapping.
        unsafe {
            match size {
                1 => at.write_volatile(value as u8),
                2 => at.cast::<u16>().write_volatile(value as u16),
                4 => at.cast::<u32>().write_volatile(value as u32),
                _ => at.cast::<u64>().write_volatile(value),
            }
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // SAFETY: `base` and `length` are of the mapping made in `map`, used nowhere else.
        unsafe { rustix::mm::munmap(self.base.cast(), self.length) }.ok();
    }
}
