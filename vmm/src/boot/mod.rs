//! Puts a kernel into guest RAM and says with what registers to start it. Loads a Linux
//! bzImage or any x86-64 ELF by Linux's 64-bit boot protocol
//! (Documentation/arch/x86/boot.rst). Never runs anything.

mod error;
mod initrd;
mod kernel;
mod registers;
mod reset_vector;
mod zero_page;

use std::fs::File;
use std::path::{Path, PathBuf};

pub use error::BootError;
pub use registers::BootRegisters;
use vm_memory::{Bytes, GuestAddress};

use crate::vm::layout::Layout;
use crate::vm::{GuestRam, Memory};

/// Physical addresses of what the boot protocol needs below 1 MiB.
mod address {
    /// Segment descriptors.
    pub(super) const GDT: u64 = 0x500;
    /// struct boot_params.
    pub(super) const ZERO_PAGE: u64 = 0x7000;
    /// Page tables: one top level, one second level, four third level pages.
    pub(super) const PAGE_TABLES: u64 = 0x9000;
    /// The command line.
    pub(super) const CMDLINE: u64 = 0x2_0000;
    /// End of conventional memory.
    pub(super) const LOW_END: u64 = 0x9_fc00;
    /// ACPI tables, up to 1 MiB; a guest that searches for the root pointer looks here.
    pub(crate) const ACPI: u64 = 0xe_0000;
    /// Where an x86 CPU in real mode finds firmware.
    pub(super) const RESET_VECTOR: u64 = 0xf_fff0;
    /// 1 MiB: where kernels are loaded.
    pub(super) const HIGH: u64 = 0x10_0000;
}

pub(crate) use address::ACPI as ACPI_ADDRESS;

/// Files and text to boot from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootConfig {
    /// Kernel: bzImage or ELF.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub cmdline: String,
}

/// A kernel ready to be loaded, any number of times: the files stay open, so that a guest can
/// reboot when they are out of reach (replaced, or behind a sandbox).
pub struct BootSource {
    config: BootConfig,
    kernel: File,
    initrd: Option<File>,
}

impl BootSource {
    /// Opens the files.
    pub fn open(config: BootConfig) -> Result<Self, BootError> {
        let kernel = open(&config.kernel, "kernel", "--kernel")?;
        let initrd =
            config.initrd.as_ref().map(|path| open(path, "initrd", "--initrd")).transpose()?;
        Ok(Self { config, kernel, initrd })
    }

    /// Writes kernel, initrd, command line, zero page, page tables and ACPI tables into guest
    /// RAM; returns how the first vCPU starts.
    pub fn load(
        &self,
        memory: &Memory,
        layout: &Layout,
        acpi: &[u8],
    ) -> Result<BootRegisters, BootError> {
        let ram = memory.ram();
        let kernel = kernel::load(ram, &self.kernel, &self.config.kernel)?;
        let low_end = layout.ram[0].end();
        let initrd = match (&self.initrd, &self.config.initrd) {
            (Some(file), Some(path)) => Some(initrd::load(ram, file, path, &kernel, low_end)?),
            _ => None,
        };
        let cmdline = write_cmdline(ram, &self.config.cmdline, kernel.cmdline_max)?;
        if acpi.len() as u64 > address::RESET_VECTOR - address::ACPI {
            return Err(BootError::AcpiSize(acpi.len()));
        }
        ram.write_slice(acpi, GuestAddress(address::ACPI))?;
        zero_page::write(ram, layout, &kernel, initrd, cmdline)?;
        registers::write_tables(ram)?;
        reset_vector::write(ram)?;
        Ok(BootRegisters { entry: kernel.entry, zero_page: address::ZERO_PAGE })
    }
}

fn open(path: &Path, what: &'static str, option: &'static str) -> Result<File, BootError> {
    let wrap = |source| BootError::Open { what, option, path: path.to_owned(), source };
    let file = File::open(path).map_err(wrap)?;
    if !file.metadata().map_err(wrap)?.is_file() {
        return Err(BootError::NotAFile { what, option, path: path.to_owned() });
    }
    Ok(file)
}

/// Writes the command line with its terminating zero; returns its length without.
fn write_cmdline(ram: &GuestRam, text: &str, max: u32) -> Result<u32, BootError> {
    let len = text.len() as u32;
    if text.bytes().any(|byte| byte == 0) || text.len() as u64 > u64::from(max) {
        return Err(BootError::Cmdline { len: text.len(), max });
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    ram.write_slice(&bytes, GuestAddress(address::CMDLINE))?;
    Ok(len)
}

#[cfg(test)]
#[path = "boot_test.rs"]
mod tests;
