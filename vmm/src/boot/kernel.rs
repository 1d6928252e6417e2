//! Recognizes and loads the kernel image itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::GuestAddress;

use super::BootError;
use super::address::HIGH;
use crate::vm::GuestRam;

/// A kernel in guest RAM.
pub(super) struct LoadedKernel {
    /// Where the first vCPU starts, in 64-bit mode.
    pub(super) entry: u64,
    /// First address behind what the kernel occupies until it manages memory itself.
    pub(super) end: u64,
    /// Highest address at which the kernel accepts an initrd.
    pub(super) initrd_max: u64,
    /// Longest command line, without the final zero.
    pub(super) cmdline_max: u32,
    /// The setup header of a bzImage; for an ELF the VMM makes one up.
    pub(super) header: Option<setup_header>,
}

/// "HdrS" at 0x202 of a bzImage.
const BZIMAGE_MAGIC: [u8; 4] = *b"HdrS";
/// Offset of the 64-bit entry point in the protected-mode code (boot.rst, 64-bit protocol).
const ENTRY64: u64 = 0x200;
/// xloadflags: has a 64-bit entry point.
const XLF_KERNEL_64: u16 = 1;
/// First boot protocol that has xloadflags.
const PROTOCOL_2_12: u16 = 0x020c;
/// Command line limit of kernels that do not state one, and of ELF kernels (COMMAND_LINE_SIZE).
const DEFAULT_CMDLINE_MAX: u32 = 2047;
/// Where an initrd may end when the kernel does not state a limit.
const DEFAULT_INITRD_MAX: u64 = 0x7fff_ffff;

/// Loads the kernel in `file`.
pub(super) fn load(ram: &GuestRam, file: &File, path: &Path) -> Result<LoadedKernel, BootError> {
    let read = |source| BootError::Read { path: path.to_owned(), source };
    let len = file.metadata().map_err(read)?.len();
    let magic = |at: u64| -> io::Result<[u8; 4]> {
        let mut bytes = [0; 4];
        match file.read_exact_at(&mut bytes, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok([0; 4]),
            other => other.map(|()| bytes),
        }
    };
    // The loaders move the file position, which a clone shares: fine, nobody else uses it.
    let mut image = file.try_clone().map_err(read)?;
    if magic(0x202).map_err(read)? == BZIMAGE_MAGIC {
        return load_bzimage(ram, &mut image, len, path);
    }
    if magic(0).map_err(read)? == *b"\x7fELF" {
        return load_elf(ram, &mut image, path);
    }
    Err(BootError::KernelFormat { path: path.to_owned() })
}

fn load_bzimage(
    ram: &GuestRam,
    image: &mut File,
    len: u64,
    path: &Path,
) -> Result<LoadedKernel, BootError> {
    let corrupt = |reason: String| BootError::KernelCorrupt { path: path.to_owned(), reason };
    let declared = declared_len(image).map_err(|source| corrupt(source.to_string()))?;
    if len < declared {
        return Err(corrupt(format!("{len} bytes of {declared} are there")));
    }
    let loaded = BzImage::load(ram, None, image, Some(GuestAddress(HIGH)));
    let loaded = match loaded {
        Ok(loaded) => loaded,
        // The file is as long as it says, so what failed is the copy.
        Err(error) if error.to_string().contains("compressed") => {
            return Err(BootError::Memory { what: "kernel", len });
        }
        Err(error) => return Err(corrupt(error.to_string())),
    };
    let Some(header) = loaded.setup_header else {
        return Err(corrupt("no setup header".to_owned()));
    };
    let (version, xloadflags) = (header.version, header.xloadflags);
    if version < PROTOCOL_2_12 || xloadflags & XLF_KERNEL_64 == 0 {
        return Err(BootError::KernelEntry { path: path.to_owned() });
    }
    // The kernel unpacks itself to its preferred address and needs init_size bytes there.
    let end = loaded.kernel_end.max(header.pref_address + u64::from(header.init_size));
    let cmdline_max = header.cmdline_size;
    Ok(LoadedKernel {
        entry: loaded.kernel_load.0 + ENTRY64,
        end,
        initrd_max: u64::from(header.initrd_addr_max),
        cmdline_max: if cmdline_max == 0 { DEFAULT_CMDLINE_MAX } else { cmdline_max },
        header: Some(header),
    })
}

/// Bytes of a bzImage by its own header: setup sectors (byte 0x1f1, plus the boot sector) and
/// protected-mode code (dword 0x1f4, in units of 16 bytes).
fn declared_len(image: &File) -> io::Result<u64> {
    let mut sectors = [0];
    image.read_exact_at(&mut sectors, 0x1f1)?;
    let mut paragraphs = [0; 4];
    image.read_exact_at(&mut paragraphs, 0x1f4)?;
    let sectors = if sectors[0] == 0 { 4 } else { u64::from(sectors[0]) };
    Ok((sectors + 1) * 512 + u64::from(u32::from_le_bytes(paragraphs)) * 16)
}

/// e_ident[EI_CLASS], EI_DATA: 64-bit, little endian.
const ELF64_LITTLE: [u8; 2] = [2, 1];
/// e_machine of x86-64.
const EM_X86_64: u16 = 62;

fn load_elf(ram: &GuestRam, image: &mut File, path: &Path) -> Result<LoadedKernel, BootError> {
    let corrupt = |reason: String| BootError::KernelCorrupt { path: path.to_owned(), reason };
    let mut header = [0; 20];
    image.read_exact_at(&mut header, 0).map_err(|error| corrupt(error.to_string()))?;
    let machine = u16::from_le_bytes([header[18], header[19]]);
    if header[4..6] != ELF64_LITTLE || machine != EM_X86_64 {
        return Err(BootError::KernelFormat { path: path.to_owned() });
    }
    let loaded = Elf::load(ram, None, image, Some(GuestAddress(HIGH)))
        .map_err(|error| corrupt(error.to_string()))?;
    Ok(LoadedKernel {
        entry: loaded.kernel_load.0,
        end: loaded.kernel_end,
        initrd_max: DEFAULT_INITRD_MAX,
        cmdline_max: DEFAULT_CMDLINE_MAX,
        header: None,
    })
}
