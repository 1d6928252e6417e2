//! Guest RAM: one memfd per VM, mapped here and shareable with VFIO and other processes.
//! Never decides what lies where; [`Layout`] does.
#![allow(unsafe_code)] // Guest RAM is handed to KVM.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::hypervisor::SlotFlags;
use super::layout::Layout;
use super::slots::{MemorySlots, SlotError, SlotId};

/// The vm-memory type of guest RAM; its bitmap records what the VMM writes.
pub type GuestRam = GuestMemoryMmap<AtomicBitmap>;

/// Guest RAM that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// No memfd of that size.
    #[error("cannot allocate {mib} MiB of guest memory; use a smaller --memory")]
    Allocate {
        /// What was asked for.
        mib: u64,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// Not mapped.
    #[error("cannot map guest memory: {0}")]
    Map(#[from] vm_memory::mmap::FromRangesError),
    /// Not given to KVM.
    #[error("cannot give guest memory to kvm")]
    Slot(#[from] SlotError),
}

/// A piece of guest RAM, as VFIO and vhost-user want it described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamRange {
    /// Guest physical address.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
    /// Address in this process.
    pub host: u64,
    /// Offset in the memfd.
    pub file_offset: u64,
}

/// The RAM of one VM.
pub struct Memory {
    ram: GuestRam,
    file: Arc<File>,
    ranges: Vec<RamRange>,
}

impl Memory {
    /// Allocates (lazily, page by page) and maps the RAM of `layout`.
    pub fn new(layout: &Layout) -> Result<Self, MemoryError> {
        let len: u64 = layout.ram.iter().map(|range| range.len).sum();
        let allocate = |source| MemoryError::Allocate { mib: len >> 20, source };
        let file = memfd(len).map_err(allocate)?;
        let mut file_offset = 0;
        let ranges: Vec<_> = layout
            .ram
            .iter()
            .map(|range| {
                let file = Some(FileOffset::from_arc(file.clone(), file_offset));
                file_offset += range.len;
                (GuestAddress(range.start), range.len as usize, file)
            })
            .collect();
        let ram = GuestRam::from_ranges_with_files(ranges)?;
        let ranges: Vec<_> = ram
            .iter()
            .map(|region| RamRange {
                gpa: region.start_addr().0,
                len: region.len(),
                host: region.as_ptr() as u64,
                file_offset: region.file_offset().map_or(0, FileOffset::start),
            })
            .collect();
        ranges.iter().for_each(ask_for_huge_pages);
        Ok(Self { ram, file, ranges })
    }

    /// Makes the RAM visible to the guest. `self` must live as long as the slots do.
    pub(super) fn map_into(
        self: &Arc<Self>,
        slots: &MemorySlots,
    ) -> Result<Vec<SlotId>, SlotError> {
        self.ranges
            .iter()
            // SAFETY: the mapping lives as long as `self`, of which the VM keeps an `Arc` until
            // its KVM file is closed; guest RAM is accessed through vm-memory's volatile
            // accessors only.
            .map(|range| unsafe { slots.add(range.gpa, range.host, range.len, SlotFlags::empty()) })
            .collect()
    }

    /// Access by guest physical address.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// The memfd behind the RAM.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The ranges of RAM in ascending order, for DMA mappings.
    pub fn ranges(&self) -> &[RamRange] {
        &self.ranges
    }
}

/// Huge pages where the host allows them for shared memory (`advise` or more in
/// `/sys/kernel/mm/transparent_hugepage/shmem_enabled`): fewer faults, shorter walks of two page
/// tables, and a VF whose DMA mapping takes a tenth of the time. Without them all works, slower.
fn ask_for_huge_pages(range: &RamRange) {
    let advice = rustix::mm::Advice::LinuxHugepage;
    // SAFETY: the range was mapped just now, by this process, for guest RAM alone; the advice
    // changes no content.
    let advised = unsafe {
        rustix::mm::madvise(range.host as *mut std::ffi::c_void, range.len as usize, advice)
    };
    if let Err(error) = advised {
        tracing::debug!(%error, "guest RAM in small pages");
    }
}

/// A sealed memfd: nobody who gets it can shrink it under us.
fn memfd(len: u64) -> io::Result<Arc<File>> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("guest-ram", flags)?;
    rustix::fs::ftruncate(&fd, len)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(Arc::new(File::from(fd)))
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn both_ranges_are_one_file() {
        let layout = Layout::new(3 * 1024 + 16, 36).unwrap();
        let memory = Memory::new(&layout).unwrap();
        assert_eq!(memory.ranges().len(), 2);
        assert_eq!(memory.ranges()[1].file_offset, 3 << 30);
        assert_eq!(memory.file().metadata().unwrap().len(), (3 << 30) + (16 << 20));
        memory.ram().write_obj(0x1234_u32, GuestAddress(1 << 32)).unwrap();
        assert_eq!(memory.ram().read_obj::<u32>(GuestAddress(1 << 32)).unwrap(), 0x1234);
        assert!(memory.ram().read_obj::<u32>(GuestAddress(0xc000_0000)).is_err());
    }

    #[test]
    fn the_file_cannot_shrink() {
        let memory = Memory::new(&Layout::new(2, 36).unwrap()).unwrap();
        assert!(memory.file().set_len(0).is_err());
    }
}
