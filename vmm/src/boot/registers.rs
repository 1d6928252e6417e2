//! How the first vCPU starts: 64-bit mode with the first 4 GiB mapped one to one, as Linux's
//! 64-bit boot protocol asks for.

use kvm_bindings::{kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use super::address::{GDT, HIGH, LOW_END, PAGE_TABLES};
use crate::vm::GuestRam;

/// Descriptors: null, unused, 64-bit code (selector 0x10), data (selector 0x18), as the
/// protocol names __BOOT_CS and __BOOT_DS.
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;

/// Page table entry: present, writable.
const PRESENT_WRITABLE: u64 = 0b11;
/// Page table entry: maps 2 MiB.
const LARGE: u64 = 1 << 7;
const PAGE: u64 = 4096;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// IA32_MISC_ENABLE and its bit for fast string operations.
const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_FAST_STRINGS: u64 = 1;
/// IA32_MTRR_DEF_TYPE: enabled, default write-back. Firmware would set this; without it Intel
/// hosts with non-coherent device DMA treat all guest memory as uncached.
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;

/// Start state of the first vCPU. The others wait for the guest to start them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootRegisters {
    /// First instruction.
    pub entry: u64,
    /// Where the boot parameters are; passed in rsi.
    pub zero_page: u64,
}

impl BootRegisters {
    /// General registers.
    pub fn regs(&self) -> kvm_regs {
        kvm_regs {
            rip: self.entry,
            rsi: self.zero_page,
            rsp: LOW_END & !0xf,
            rbp: LOW_END & !0xf,
            // Bit 1 always reads as one.
            rflags: 2,
            ..Default::default()
        }
    }

    /// Turns the segment and control registers of a vCPU after reset into those of the entry.
    pub fn set_sregs(&self, sregs: &mut kvm_sregs) {
        let flat = kvm_segment { limit: u32::MAX, present: 1, s: 1, g: 1, ..Default::default() };
        let code = kvm_segment { selector: CODE_SELECTOR, type_: 11, l: 1, ..flat };
        let data = kvm_segment { selector: DATA_SELECTOR, type_: 3, db: 1, ..flat };
        sregs.cs = code;
        for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.ss, &mut sregs.fs, &mut sregs.gs] {
            *segment = data;
        }
        sregs.gdt.base = GDT;
        sregs.gdt.limit = size_of_val(&DESCRIPTORS) as u16 - 1;
        sregs.idt.base = 0;
        sregs.idt.limit = 0;
        sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
        sregs.cr3 = PAGE_TABLES;
        sregs.cr4 = CR4_PAE;
        sregs.efer = EFER_LME | EFER_LMA;
    }

    /// What firmware would set in every vCPU.
    pub fn msrs() -> [kvm_msr_entry; 2] {
        let msr = |index, data| kvm_msr_entry { index, data, ..Default::default() };
        [msr(MSR_MISC_ENABLE, MISC_FAST_STRINGS), msr(MSR_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK)]
    }
}

/// Writes descriptors and page tables.
pub(super) fn write_tables(ram: &GuestRam) -> Result<(), BootError> {
    for (at, descriptor) in (GDT..).step_by(8).zip(DESCRIPTORS) {
        ram.write_obj(descriptor, GuestAddress(at))?;
    }
    let second = PAGE_TABLES + PAGE;
    let third = second + PAGE;
    let end = third + 4 * PAGE;
    assert!(end <= HIGH, "page tables below 1 mib");
    ram.write_slice(&vec![0; (end - PAGE_TABLES) as usize], GuestAddress(PAGE_TABLES))?;
    ram.write_obj(second | PRESENT_WRITABLE, GuestAddress(PAGE_TABLES))?;
    for gib in 0..4 {
        let entry = (third + gib * PAGE) | PRESENT_WRITABLE;
        ram.write_obj(entry, GuestAddress(second + gib * 8))?;
    }
    for page in 0..4 * 512 {
        let entry = page << 21 | PRESENT_WRITABLE | LARGE;
        ram.write_obj(entry, GuestAddress(third + page * 8))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::Memory;
    use crate::vm::layout::Layout;

    /// Walks the tables as a CPU would.
    fn translate(ram: &GuestRam, virt: u64) -> u64 {
        let mut table = PAGE_TABLES;
        for level in [39, 30, 21] {
            let entry: u64 =
                ram.read_obj(GuestAddress(table + (virt >> level & 0x1ff) * 8)).unwrap();
            assert_eq!(entry & PRESENT_WRITABLE, PRESENT_WRITABLE);
            table = entry & !0xfff;
        }
        table | virt & 0x1f_ffff
    }

    #[test]
    fn four_gib_are_mapped_one_to_one() {
        let memory = Memory::new(&Layout::new(2, 36).unwrap()).unwrap();
        write_tables(memory.ram()).unwrap();
        for address in [0, 0x1234, 0x10_0000, 0x3fff_ffff, 0x4000_0000, 0xffff_f000] {
            assert_eq!(translate(memory.ram(), address), address);
        }
    }

    #[test]
    fn starts_in_64_bit_mode() {
        let boot = BootRegisters { entry: 0x10_0200, zero_page: 0x7000 };
        let mut sregs = kvm_sregs::default();
        boot.set_sregs(&mut sregs);
        assert_eq!((sregs.cs.l, sregs.cs.db, sregs.efer), (1, 0, 0x500));
        assert_eq!((boot.regs().rip, boot.regs().rsi), (0x10_0200, 0x7000));
    }
}
