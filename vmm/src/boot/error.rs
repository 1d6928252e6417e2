//! Why a VM cannot boot, and what to do about it.

use std::io;
use std::path::PathBuf;

/// A kernel or initrd that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Missing or unreadable file.
    #[error("cannot open {what} {path}; give {option} a readable file", path = path.display())]
    Open {
        /// Kernel or initrd.
        what: &'static str,
        /// The command line option that names it.
        option: &'static str,
        /// File.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A directory or device.
    #[error("{what} {path} is not a regular file; give {option} a file", path = path.display())]
    NotAFile {
        /// Kernel or initrd.
        what: &'static str,
        /// The command line option that names it.
        option: &'static str,
        /// File.
        path: PathBuf,
    },
    /// Unknown kernel format.
    #[error(
        "{path} is neither a bzimage nor an x86-64 elf executable; give --kernel a vmlinuz or \
         vmlinux", path = path.display()
    )]
    KernelFormat {
        /// File.
        path: PathBuf,
    },
    /// A kernel that ends early or contradicts itself.
    #[error("kernel {path} is corrupt ({reason}); copy or build it again", path = path.display())]
    KernelCorrupt {
        /// File.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A 32-bit or very old kernel.
    #[error(
        "kernel {path} has no 64-bit entry point; use an x86-64 kernel of version 3.8 or later",
        path = path.display()
    )]
    KernelEntry {
        /// File.
        path: PathBuf,
    },
    /// Not a RAM disk.
    #[error(
        "initrd {path} is neither a cpio archive nor compressed with gzip, bzip2, lzma, xz, lzo, \
         lz4 or zstd; build it again", path = path.display()
    )]
    InitrdFormat {
        /// File.
        path: PathBuf,
    },
    /// Too little RAM.
    #[error("{what} of {len} bytes does not fit the guest's memory; use a larger --memory")]
    Memory {
        /// Kernel or initrd.
        what: &'static str,
        /// Bytes needed.
        len: u64,
    },
    /// The command line is too long.
    #[error(
        "the kernel command line has {len} bytes; this kernel takes at most {max}, none of them \
         zero; shorten --cmdline"
    )]
    Cmdline {
        /// Bytes given.
        len: usize,
        /// Bytes possible.
        max: u32,
    },
    /// The ACPI tables do not fit their place.
    #[error("acpi tables of {0} bytes do not fit below 1 mib; use fewer --cpus")]
    AcpiSize(usize),
    /// A file that cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Guest RAM that should be there is not.
    #[error("cannot write boot data to guest memory: {0}")]
    Ram(#[from] vm_memory::GuestMemoryError),
}
