//! struct boot_params, the "zero page": what the kernel is told about memory, command line,
//! initrd and ACPI.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use super::address::{ACPI, CMDLINE, HIGH, LOW_END, ZERO_PAGE};
use super::initrd::LoadedInitrd;
use super::kernel::LoadedKernel;
use crate::vm::GuestRam;
use crate::vm::layout::Layout;

/// Address range types (ACPI 6.5, table 15.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Kind {
    Ram = 1,
    Reserved = 2,
    AcpiTables = 3,
}

/// Writes the zero page.
pub(super) fn write(
    ram: &GuestRam,
    layout: &Layout,
    kernel: &LoadedKernel,
    initrd: Option<LoadedInitrd>,
    cmdline_len: u32,
) -> Result<(), BootError> {
    let mut params =
        boot_params { hdr: kernel.header.unwrap_or_else(elf_header), ..Default::default() };
    /// type_of_loader: none of the registered ones.
    const LOADER_UNDEFINED: u8 = 0xff;
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = CMDLINE as u32;
    params.hdr.cmdline_size = cmdline_len;
    if let Some(initrd) = initrd {
        params.hdr.ramdisk_image = initrd.address;
        params.hdr.ramdisk_size = initrd.len;
    }
    params.acpi_rsdp_addr = ACPI;
    let map = map(layout);
    params.e820_entries = map.len() as u8;
    for (entry, (start, end, kind)) in params.e820_table.iter_mut().zip(map) {
        *entry = boot_e820_entry { addr: start, size: end - start, r#type: kind as u32 };
    }
    ram.write_obj(params, GuestAddress(ZERO_PAGE))?;
    Ok(())
}

/// The header that an ELF kernel would have as a bzImage.
fn elf_header() -> setup_header {
    setup_header {
        boot_flag: 0xaa55,
        header: u32::from_le_bytes(*b"HdrS"),
        kernel_alignment: 0x100_0000,
        ..Default::default()
    }
}

/// The physical address map: start, end, kind.
fn map(layout: &Layout) -> Vec<(u64, u64, Kind)> {
    let mut map = vec![
        (0, LOW_END, Kind::Ram),
        (ACPI, HIGH, Kind::AcpiTables),
        (HIGH, layout.ram[0].end(), Kind::Ram),
        (layout.ecam.start, layout.ecam.end(), Kind::Reserved),
    ];
    map.extend(layout.ram[1..].iter().map(|range| (range.start, range.end(), Kind::Ram)));
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_has_no_overlap() {
        let map = map(&Layout::new(4096, 40).unwrap());
        assert!(map.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{map:x?}");
        let ram: u64 = map
            .iter()
            .filter(|(_, _, kind)| *kind == Kind::Ram)
            .map(|(start, end, _)| end - start)
            .sum();
        assert_eq!(ram, (4 << 30) - (HIGH - LOW_END));
    }
}
