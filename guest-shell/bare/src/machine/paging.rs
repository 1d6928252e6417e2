//! Maps device memory above 4 GiB, one to one and uncached. The boot loader has mapped what is
//! below.
#![allow(unsafe_code)] // Page tables and control registers.

use super::memory::{Memory, load, store};
use core::arch::asm;

const PRESENT_WRITABLE: u64 = 0b11;
/// Write-through and cache-disable: uncached by the default attribute table.
const UNCACHED: u64 = 0b11 << 3;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const GIB: u64 = 1 << 30;
/// End of the lower half of the address space.
const REACH: u64 = 1 << 47;

/// Maps the whole GiB around each byte of `start..start + length`. `false` without memory, or
/// beyond what four levels of tables reach.
pub(super) fn map(memory: &mut Memory, start: u64, length: u64) -> bool {
    let end = start.saturating_add(length);
    let mut at = start & !(GIB - 1);
    while at < end {
        if at >= 4 * GIB && (at >= REACH || map_gib(memory, at).is_none()) {
            return false;
        }
        at = at.saturating_add(GIB);
    }
    true
}

fn map_gib(memory: &mut Memory, at: u64) -> Option<()> {
    let third = table(memory, (root() & ADDRESS) + (at >> 39) * 8)?;
    let entry = third + (at >> 30 & 511) * 8;
    if load::<u64>(entry) & 1 == 0 {
        let pages = table(memory, entry)?;
        for page in 0..512 {
            let flags = PRESENT_WRITABLE | UNCACHED | LARGE;
            store(pages + page * 8, at + (page << 21) | flags);
        }
        flush();
    }
    Some(())
}

/// The table that `entry` leads to; a new, empty one if it leads nowhere yet.
fn table(memory: &mut Memory, entry: u64) -> Option<u64> {
    let known: u64 = load(entry);
    if known & 1 != 0 {
        return Some(known & ADDRESS);
    }
    let table = memory.alloc(4096)?.as_ptr() as u64;
    store(entry, table | PRESENT_WRITABLE);
    Some(table)
}

fn root() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack)) };
    value
}

fn flush() {
    // SAFETY: loads the same page tables again, which now map more.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack)) };
}
