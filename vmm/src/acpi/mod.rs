//! The ACPI tables that tell a guest what it runs on: CPUs, interrupt controllers, PCI windows,
//! serial port, power button. The hardware-reduced model (ACPI 6.5, 4.1): no legacy power
//! management, timer or clock chips, so a guest does not probe for them, and each probe saved is
//! an exit saved. Pure data; writes nothing to guest memory.

mod dsdt;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

pub(crate) use dsdt::SLEEP_TYPE_OFF;

use crate::legacy::port;
use crate::vm::layout::{IOAPIC, LAPIC, Layout};

/// GSI of the power button's event (an input of the I/O APIC, edge triggered).
pub(crate) const POWER_BUTTON_GSI: u32 = 9;

const OEM: [u8; 6] = *b"NPAKVM";
const TABLE: [u8; 8] = *b"NPAKVMVM";
const REVISION: u32 = 1;

/// IAPC_BOOT_ARCH (ACPI 6.5, table 5.11): no VGA, no CMOS clock; bits for other legacy devices
/// and for an 8042 are clear, so they are absent too.
const BOOT_ARCH_NO_VGA: u16 = 1 << 2;
const BOOT_ARCH_NO_CMOS_RTC: u16 = 1 << 5;

/// All tables, to be placed at `base`; the root pointer comes first.
pub(crate) fn tables(base: u64, layout: &Layout, cpus: u8) -> Vec<u8> {
    let mut image = Image { base, bytes: vec![0; align(Rsdp::len())] };
    let dsdt = image.place(&dsdt::dsdt(layout, cpus));
    let fadt = image.place(&fadt(dsdt));
    let madt = image.place(&madt(cpus));
    let mcfg = image.place(&mcfg(layout));
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    for table in [fadt, madt, mcfg] {
        xsdt.add_entry(table);
    }
    let xsdt = image.place(&xsdt);
    let mut root = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut root);
    image.bytes[..root.len()].copy_from_slice(&root);
    image.bytes
}

/// Tables one after the other, each on a 16-byte boundary.
struct Image {
    base: u64,
    bytes: Vec<u8>,
}

impl Image {
    /// Appends a table; returns its guest physical address.
    fn place(&mut self, table: &dyn Aml) -> u64 {
        let at = self.bytes.len();
        table.to_aml_bytes(&mut self.bytes);
        self.bytes.resize(align(self.bytes.len()), 0);
        self.base + at as u64
    }
}

fn align(len: usize) -> usize {
    len.next_multiple_of(16)
}

fn byte_port(port: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into())
}

fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        // A button that is a device in the DSDT, not a fixed register.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = (BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_CMOS_RTC).into();
    fadt.reset_reg = byte_port(port::RESET_CONTROL);
    fadt.reset_value = port::RESET_CONTROL_COLD;
    fadt.sleep_control_reg = byte_port(port::SLEEP_CONTROL);
    fadt.sleep_status_reg = byte_port(port::SLEEP_STATUS);
    fadt.finalize()
}

fn madt(cpus: u8) -> MADT {
    let lapic = LocalInterruptController::Address(LAPIC as u32);
    let mut madt = MADT::new(OEM, TABLE, REVISION, lapic);
    for id in 0..cpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, IOAPIC as u32, 0));
    madt
}

fn mcfg(layout: &Layout) -> MCFG {
    let mut mcfg = MCFG::new(OEM, TABLE, REVISION);
    mcfg.add_ecam(layout.ecam.start, 0, 0, 0);
    mcfg
}

/// A definition block with `body` as its AML.
fn definition_block(signature: [u8; 4], body: &[u8]) -> Sdt {
    /// Bytes of a table header.
    const HEADER: u32 = 36;
    /// From revision 2 on integers have 64 bits.
    const INTEGERS_64: u8 = 6;
    let mut table = Sdt::new(signature, HEADER, INTEGERS_64, OEM, TABLE, REVISION);
    table.append_slice(body);
    table.update_checksum();
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xe_0000;

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    /// The table at a guest physical address, its checksum verified.
    fn table(image: &[u8], address: u64) -> &[u8] {
        let rest = &image[(address - BASE) as usize..];
        let table = &rest[..u32_at(rest, 4) as usize];
        let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0, "{}", String::from_utf8_lossy(&table[..4]));
        table
    }

    #[test]
    fn a_guest_finds_every_table() {
        let image = tables(BASE, &Layout::new(512, 36).unwrap(), 4);
        assert_eq!(&image[..8], b"RSD PTR ");
        let xsdt = table(&image, u64_at(&image, 24));
        assert_eq!(&xsdt[..4], b"XSDT");
        let names: Vec<_> = xsdt[36..]
            .chunks(8)
            .map(|entry| table(&image, u64_at(entry, 0))[..4].to_vec())
            .collect();
        assert_eq!(names, [b"FACP", b"APIC", b"MCFG"]);
        let fadt = table(&image, u64_at(xsdt, 36));
        assert_eq!(&table(&image, u64_at(fadt, 140))[..4], b"DSDT");
    }

    #[test]
    fn madt_names_each_cpu_once() {
        let mut bytes = Vec::new();
        madt(3).to_aml_bytes(&mut bytes);
        let lapics: Vec<_> = bytes[44..44 + 3 * 8].chunks(8).map(|entry| entry[3]).collect();
        assert_eq!(lapics, [0, 1, 2]);
        assert_eq!(bytes.len(), 44 + 3 * 8 + 12);
    }

    #[test]
    fn as_many_cpus_as_apic_ids_fit() {
        let image = tables(BASE, &Layout::new(512, 36).unwrap(), 254);
        assert!(image.len() < 0x2_0000);
    }
}
