//! Places the initial RAM disk: as high in low RAM as the kernel accepts.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;

use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use super::kernel::LoadedKernel;
use crate::vm::GuestRam;

/// First bytes of what the kernel accepts: cpio "newc" archives, possibly compressed.
const MAGICS: [&[u8]; 9] = [
    b"070701",
    b"070702",
    b"\x1f\x8b",
    b"BZh",
    b"\x5d\0\0",
    b"\xfd7zXZ",
    b"\x89LZO",
    b"\x02\x21\x4c\x18",
    b"\x28\xb5\x2f\xfd",
];

/// An initrd in guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoadedInitrd {
    pub(super) address: u32,
    pub(super) len: u32,
}

/// Loads the initrd in `file` below `ram_end`.
pub(super) fn load(
    ram: &GuestRam,
    file: &File,
    path: &Path,
    kernel: &LoadedKernel,
    ram_end: u64,
) -> Result<LoadedInitrd, BootError> {
    let read = |source| BootError::Read { path: path.to_owned(), source };
    let mut file = file.try_clone().map_err(read)?;
    let len = file.metadata().map_err(read)?.len();
    let mut start = [0; 8];
    file.seek(SeekFrom::Start(0)).map_err(read)?;
    let head = std::io::Read::read(&mut file, &mut start).map_err(read)?;
    if !MAGICS.iter().any(|magic| start[..head].starts_with(magic)) {
        return Err(BootError::InitrdFormat { path: path.to_owned() });
    }
    let memory = BootError::Memory { what: "initrd", len };
    let end = ram_end.min(kernel.initrd_max + 1);
    let Some(address) = end.checked_sub(len).map(|address| address & !0xfff) else {
        return Err(memory);
    };
    if address < kernel.end {
        return Err(memory);
    }
    file.seek(SeekFrom::Start(0)).map_err(read)?;
    ram.read_exact_volatile_from(GuestAddress(address), &mut file, len as usize)?;
    Ok(LoadedInitrd { address: address as u32, len: len as u32 })
}
