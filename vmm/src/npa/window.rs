//! The VF window: one memory slot that never changes while the guest runs, over host memory that
//! does. VF pages and dead pages (all ones) replace one another by `mmap(MAP_FIXED)`: the guest's
//! access finds the one or the other, never nothing, and KVM drops only the pages concerned
//! instead of its whole second-stage table, as it would for a slot that is deleted.
//!
//! A dead page is private memory: what the guest writes to it stays with this guest and is gone
//! at the next change. Nothing here decides what may be mapped.
#![allow(unsafe_code)] // Maps device memory and hands it to the guest.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use npa_abi::pci::{DEAD_BYTE, WINDOW_SIZE};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use super::hardware::DeviceMemory;
use crate::vm::{MemorySlots, SlotError, SlotFlags, SlotId};

const SIZE: usize = WINDOW_SIZE as usize;

/// A window that could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// No dead pages.
    #[error("cannot make the dead pages of a VF window")]
    Dead(#[source] io::Error),
    /// A part is outside the window.
    #[error("{length:#x} bytes at {offset:#x} are not in the VF window")]
    Range {
        /// Offset in the window, in bytes.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Not mapped.
    #[error("cannot map the VF's pages at {offset:#x} of the window")]
    Map {
        /// Offset in the window, in bytes.
        offset: u64,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// Not given to KVM.
    #[error("cannot place the VF window at {gpa:#x}")]
    Slot {
        /// Guest physical address.
        gpa: u64,
        /// KVM's reason.
        #[source]
        source: SlotError,
    },
}

/// A part of the window that a VF fills.
#[derive(Clone, Copy, Debug)]
pub struct WindowPart<'a> {
    /// Where in the window, in bytes, page-aligned.
    pub offset: u64,
    /// Bytes, whole pages.
    pub length: u64,
    /// What appears there.
    pub memory: DeviceMemory<'a>,
}

/// The window of one device.
pub struct Window {
    /// A file of [`DEAD_BYTE`]s.
    dead: OwnedFd,
    /// [`SIZE`] bytes of this process, always mapped, dropped with `self`.
    area: NonNull<u8>,
    slots: Arc<MemorySlots>,
    slot: Option<(SlotId, u64)>,
}

// SAFETY: the area is plain memory of this process, reached only through `&mut self` and by the
// guest.
unsafe impl Send for Window {}

impl Window {
    /// A window of dead pages that is nowhere yet.
    ///
    /// # Errors
    /// [`WindowError::Dead`].
    pub fn new(slots: Arc<MemorySlots>) -> Result<Self, WindowError> {
        let dead = dead_file().map_err(WindowError::Dead)?;
        // SAFETY: a new private mapping at an address that the kernel chooses.
        let area = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
                &dead,
                0,
            )
        }
        .map_err(|error| WindowError::Dead(error.into()))?;
        let area = NonNull::new(area.cast()).ok_or_else(|| {
            WindowError::Dead(io::Error::other("the kernel mapped the window at address 0"))
        })?;
        Ok(Self { dead, area, slots, slot: None })
    }

    /// Makes the window appear at guest physical address `gpa`, or nowhere.
    ///
    /// # Errors
    /// [`WindowError::Slot`]; the window is then nowhere.
    pub fn place(&mut self, gpa: Option<u64>) -> Result<(), WindowError> {
        if self.slot.map(|(_, at)| at) == gpa {
            return Ok(());
        }
        if let Some((id, at)) = self.slot.take() {
            self.slots.remove(id).map_err(|source| WindowError::Slot { gpa: at, source })?;
        }
        let Some(gpa) = gpa else { return Ok(()) };
        let host = self.area.as_ptr() as u64;
        // SAFETY: the area stays mapped, with one content or another, until `drop`, which removes
        // the slot first; no reference to it is ever made.
        let id = unsafe { self.slots.add(gpa, host, WINDOW_SIZE, SlotFlags::empty()) }
            .map_err(|source| WindowError::Slot { gpa, source })?;
        self.slot = Some((id, gpa));
        Ok(())
    }

    /// Replaces dead pages by a VF's.
    ///
    /// # Errors
    /// [`WindowError::Range`] or [`WindowError::Map`]; the whole window is then dead.
    pub fn map(&mut self, parts: &[WindowPart<'_>]) -> Result<(), WindowError> {
        parts.iter().try_for_each(|part| self.map_part(part)).inspect_err(|_| {
            if let Err(error) = self.kill() {
                tracing::error!(error = &error as &dyn std::error::Error, "dead pages");
            }
        })
    }

    fn map_part(&mut self, part: &WindowPart<'_>) -> Result<(), WindowError> {
        let &WindowPart { offset, length, memory } = part;
        let range = WindowError::Range { offset, length };
        let page = npa_abi::PAGE_SIZE as u64;
        let whole = offset.is_multiple_of(page) && length.is_multiple_of(page) && length > 0;
        if !whole || offset.checked_add(length).is_none_or(|end| end > WINDOW_SIZE) {
            return Err(range);
        }
        // SAFETY: the target was checked to lie inside the area, which belongs to this window and
        // to which no reference exists.
        unsafe {
            rustix::mm::mmap(
                self.area.as_ptr().add(offset as usize).cast(),
                length as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                memory.file,
                memory.offset,
            )
        }
        .map(drop)
        .map_err(|error| WindowError::Map { offset, source: error.into() })
    }

    /// Makes every page a fresh dead page. On return the guest can no longer reach a VF.
    ///
    /// # Errors
    /// [`WindowError::Dead`].
    pub fn kill(&mut self) -> Result<(), WindowError> {
        // SAFETY: exactly the area, as in `map_part`.
        unsafe {
            rustix::mm::mmap(
                self.area.as_ptr().cast(),
                SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED,
                &self.dead,
                0,
            )
        }
        .map(drop)
        .map_err(|error| WindowError::Dead(error.into()))
    }

    /// What the guest would read at `offset` of the window; for tests of the mapping.
    #[cfg(test)]
    pub(crate) fn peek(&self, offset: usize) -> u8 {
        assert!(offset < SIZE);
        // SAFETY: inside the area; volatile, since the other side may write.
        unsafe { self.area.as_ptr().add(offset).read_volatile() }
    }

    /// What a guest's write does; for tests of the mapping.
    #[cfg(test)]
    pub(crate) fn poke(&mut self, offset: usize, byte: u8) {
        assert!(offset < SIZE);
        // SAFETY: as in `peek`.
        unsafe { self.area.as_ptr().add(offset).write_volatile(byte) }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if let Err(error) = self.place(None) {
            // The guest may still reach the area, so it must stay.
            tracing::error!(error = &error as &dyn std::error::Error, "VF window");
            return;
        }
        // SAFETY: nobody can reach the area any more.
        if let Err(error) = unsafe { rustix::mm::munmap(self.area.as_ptr().cast(), SIZE) } {
            tracing::error!(%error, "VF window");
        }
    }
}

fn dead_file() -> io::Result<OwnedFd> {
    let file =
        rustix::fs::memfd_create("npa-dead-page", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let content = vec![DEAD_BYTE; SIZE];
    let mut written = 0;
    while written < SIZE {
        written += rustix::io::pwrite(&file, &content[written..], written as u64)?;
    }
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    )?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::vm::hypervisor::fake::FakeHypervisor;

    fn window() -> (Arc<FakeHypervisor>, Window) {
        let fake = Arc::new(FakeHypervisor::default());
        (fake.clone(), Window::new(Arc::new(MemorySlots::new(fake))).unwrap())
    }

    fn vf_bar() -> OwnedFd {
        let file = rustix::fs::memfd_create("bar", MemfdFlags::CLOEXEC).unwrap();
        rustix::io::pwrite(&file, &[0x11; 0x4000], 0).unwrap();
        file
    }

    #[test]
    fn dead_pages_read_ones_and_forget_what_was_written_at_the_next_change() {
        let (_, mut window) = window();
        assert_eq!((window.peek(0), window.peek(SIZE - 1)), (0xff, 0xff));
        window.poke(5, 0);
        window.kill().unwrap();
        assert_eq!(window.peek(5), 0xff);
    }

    #[test]
    fn vf_pages_come_and_go_under_one_slot() {
        let (fake, mut window) = window();
        window.place(Some(0x8_0000_0000)).unwrap();
        let slots = fake.slots();
        let bar = vf_bar();
        let memory = DeviceMemory { file: bar.as_fd(), offset: 0x1000 };
        window.map(&[WindowPart { offset: 0x2000, length: 0x3000, memory }]).unwrap();
        assert_eq!((window.peek(0x1fff), window.peek(0x2000)), (0xff, 0x11));
        assert_eq!((window.peek(0x4fff), window.peek(0x5000)), (0x11, 0xff));
        window.poke(0x2000, 0x22);
        window.kill().unwrap();
        assert_eq!(window.peek(0x2000), 0xff);
        let mut byte = [0];
        rustix::io::pread(&bar, &mut byte, 0x1000).unwrap();
        assert_eq!(byte, [0x22]);
        assert_eq!(fake.slots(), slots);
    }

    #[test]
    fn parts_outside_the_window_are_refused_and_nothing_stays_mapped() {
        let (_, mut window) = window();
        let bar = vf_bar();
        let memory = DeviceMemory { file: bar.as_fd(), offset: 0 };
        let good = WindowPart { offset: 0, length: 0x1000, memory };
        for (offset, length) in
            [(WINDOW_SIZE, 0x1000), (0x1000, WINDOW_SIZE), (8, 0x1000), (0, 12), (0, 0)]
        {
            let bad = WindowPart { offset, length, memory };
            assert!(matches!(window.map(&[good, bad]), Err(WindowError::Range { .. })));
            assert_eq!(window.peek(0), 0xff);
        }
    }

    #[test]
    fn the_slot_follows_the_bar() {
        let (fake, mut window) = window();
        window.place(Some(0x8_0000_0000)).unwrap();
        window.place(Some(0x9_0000_0000)).unwrap();
        assert_eq!(fake.slots().len(), 1);
        assert_eq!((fake.slots()[0].gpa, fake.slots()[0].len), (0x9_0000_0000, WINDOW_SIZE));
        window.place(None).unwrap();
        assert!(fake.slots().is_empty());
        window.place(Some(0x1000_0000)).unwrap();
        drop(window);
        assert!(fake.slots().is_empty());
    }
}
