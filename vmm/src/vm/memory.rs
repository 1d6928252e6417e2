//! Guest RAM: one memfd per VM, mapped here and shareable with VFIO and other processes.
//! Never decides what lies where; [`Layout`] does.
#![allow(unsafe_code)] // Guest RAM is handed to KVM.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, MemfdFlags, SealFlags};
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MmapRegion,
};

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
    /// A file with its contents that cannot be used.
    #[error("cannot use {} as guest memory: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
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
        let ranges = describe(&ram);
        ranges.iter().for_each(ask_for_huge_pages);
        Ok(Self { ram, file, ranges })
    }

    /// Maps the RAM of `layout` over the file at `path`, which has its contents, range after range.
    /// Pages are read when they are first touched; what is written stays in this process. The
    /// file must not be changed while the VM lives, and is locked against others of this kind.
    pub fn from_file(layout: &Layout, path: &Path) -> Result<Self, MemoryError> {
        let failed = |reason: String| MemoryError::File { path: path.to_owned(), reason };
        let file = File::open(path).map_err(|error| failed(error.to_string()))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared)
            .map_err(|_| failed("it is being written".to_owned()))?;
        let len: u64 = layout.ram.iter().map(|range| range.len).sum();
        let found = file.metadata().map_err(|error| failed(error.to_string()))?.len();
        if found != len {
            return Err(failed(format!("it has {found} bytes, not the {len} of this VM")));
        }
        let file = Arc::new(file);
        let mut offset = 0;
        let mut regions = Vec::new();
        for range in &layout.ram {
            let start = FileOffset::from_arc(Arc::clone(&file), offset);
            let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
            let mapping = MmapRegion::build(
                Some(start),
                range.len as usize,
                protection,
                flags | libc::MAP_NORESERVE,
            )
            .map_err(|error| failed(error.to_string()))?;
            let region = GuestRegionMmap::new(mapping, GuestAddress(range.start));
            regions.push(region.ok_or_else(|| failed("it is too large".to_owned()))?);
            offset += range.len;
        }
        let ram = GuestRam::from_regions(regions).map_err(|error| failed(error.to_string()))?;
        let ranges = describe(&ram);
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

    /// The file behind the RAM: a memfd, or the one that it was restored from.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The ranges of RAM in ascending order, for DMA mappings.
    pub fn ranges(&self) -> &[RamRange] {
        &self.ranges
    }
}

fn describe(ram: &GuestRam) -> Vec<RamRange> {
    ram.iter()
        .map(|region| RamRange {
            gpa: region.start_addr().0,
            len: region.len(),
            host: region.as_ptr() as u64,
            file_offset: region.file_offset().map_or(0, FileOffset::start),
        })
        .collect()
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
    fn a_file_is_read_and_never_written() {
        let layout = Layout::new(2, 36).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = Memory::from_file(&layout, file.path()).err().unwrap();
        assert!(other.to_string().contains("0 bytes"), "{other}");
        file.as_file().set_len(2 << 20).unwrap();
        std::os::unix::fs::FileExt::write_at(file.as_file(), &[7; 8], 0x1000).unwrap();
        let memory = Memory::from_file(&layout, file.path()).unwrap();
        let at = GuestAddress(0x1000);
        assert_eq!(memory.ram().read_obj::<u8>(at).unwrap(), 7);
        memory.ram().write_obj(9_u8, at).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap()[0x1000], 7);
    }

    #[test]
    fn the_file_cannot_shrink() {
        let memory = Memory::new(&Layout::new(2, 36).unwrap()).unwrap();
        assert!(memory.file().set_len(0).is_err());
    }
}
