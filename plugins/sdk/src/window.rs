//! The VF window. Accesses are volatile, aligned, and never outside the window.

#![allow(unsafe_code)] // Device registers are raw memory.

/// The VF's data pages as the guest sees them: uncached device memory.
///
/// A read outside the window, or of a VF that is gone, gives ones; a write there does nothing.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    base: *mut u8,
    length: usize,
}

// SAFETY: device registers belong to no thread, and each access is one instruction.
unsafe impl Send for Window {}
// SAFETY: as before.
unsafe impl Sync for Window {}

impl Window {
    /// Wraps a window.
    ///
    /// # Safety
    /// `base` is null or stays valid for reads and writes of `length` bytes, 4-byte aligned, for
    /// as long as the result or a copy of it is used.
    pub(crate) unsafe fn new(base: *mut u8, length: usize) -> Self {
        Self { base, length: if base.is_null() { 0 } else { length } }
    }

    /// Length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Where an access of `size` bytes at `offset` goes; `None` outside or misaligned.
    #[inline]
    fn place(&self, offset: usize, size: usize) -> Option<*mut u8> {
        let inside = offset < self.length && self.length - offset >= size;
        // The cast keeps the offset within the window, checked just before.
        (inside && offset.is_multiple_of(size)).then(|| self.base.wrapping_add(offset))
    }

    /// Reads the 32-bit register at `offset` bytes.
    #[inline]
    pub fn read32(&self, offset: usize) -> u32 {
        match self.place(offset, size_of::<u32>()) {
            // SAFETY: inside the window and aligned, as `place` checked; valid by `new`'s contract.
            Some(place) => unsafe { place.cast::<u32>().read_volatile() },
            None => u32::MAX,
        }
    }

    /// Writes the 32-bit register at `offset` bytes.
    #[inline]
    pub fn write32(&self, offset: usize, value: u32) {
        if let Some(place) = self.place(offset, size_of::<u32>()) {
            // SAFETY: inside the window and aligned, as `place` checked; valid by `new`'s contract.
            unsafe { place.cast::<u32>().write_volatile(value) }
        }
    }

    /// Writes the 16-bit register at `offset` bytes.
    #[inline]
    pub fn write16(&self, offset: usize, value: u16) {
        if let Some(place) = self.place(offset, size_of::<u16>()) {
            // SAFETY: inside the window and aligned, as `place` checked; valid by `new`'s contract.
            unsafe { place.cast::<u16>().write_volatile(value) }
        }
    }

    /// Reads the register at `offset` up to `attempts` times until `mask` of it equals `value`.
    /// Answers whether it did. There is no other loop on a register: a device that is gone must
    /// not hold the guest.
    pub fn wait32(&self, offset: usize, mask: u32, value: u32, attempts: u32) -> bool {
        (0..attempts).any(|_| {
            core::hint::spin_loop();
            self.read32(offset) & mask == value
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_outside_read_ones_and_write_nothing() {
        let mut page = [0u32; 4];
        // SAFETY: the array outlives the window.
        let window = unsafe { Window::new(page.as_mut_ptr().cast(), size_of_val(&page)) };
        window.write32(12, 7);
        window.write16(2, 5);
        for offset in [16, 13, 14, usize::MAX, usize::MAX - 3] {
            window.write32(offset, 1);
            window.write16(offset | 1, 1);
            assert_eq!(window.read32(offset), u32::MAX, "offset {offset}");
        }
        assert_eq!((window.read32(12), window.read32(0)), (7, 5 << 16));
        assert!(!window.wait32(16, 1, 0, 100), "a device that is gone never becomes ready");
        // SAFETY: a null window is empty.
        let gone = unsafe { Window::new(core::ptr::null_mut(), 4096) };
        assert_eq!((gone.length(), gone.read32(0)), (0, u32::MAX));
    }
}
