//! The entry, by Linux's 64-bit boot protocol: 64-bit mode, the first 4 GiB mapped one to one,
//! boot parameters ("zero page") in RSI. Linux's `Documentation/arch/x86/boot.rst` and
//! `zero-page.rst` give the offsets.
#![allow(unsafe_code)] // Assembly, and memory that somebody else filled in.

use super::memory::load;
use core::arch::global_asm;
use core::ptr::NonNull;

// The stack first; BSS needs no clearing, the loader gives zeroed memory behind the file's part.
global_asm!(
    ".section .text.start, \"ax\"",
    ".global bare_start",
    "bare_start:",
    "lea rsp, [rip + bare_stack_end]",
    "xor ebp, ebp",
    "mov rdi, rsi",
    "call {run}",
    "ud2",
    ".section .text.landing, \"ax\"",
    ".balign 4096",
    "bare_landing:",
    ".fill {landing}, 1, 0xcc",
    ".section .bss.stack, \"aw\", @nobits",
    ".balign 16",
    ".skip 0x40000",
    "bare_stack_end:",
    run = sym start,
    landing = const LANDING_LENGTH,
);

unsafe extern "C" {
    static bare_landing: u8;
    static bare_image_end: u8;
}

/// Length of the landing in bytes.
const LANDING_LENGTH: usize = npa_abi::shell_page::LANDING_LENGTH_DEFAULT as usize;

extern "sysv64" fn start(zero_page: u64) -> ! {
    crate::run::run(&Boot { zero_page })
}

/// Address and length of the landing.
pub(crate) fn landing() -> (NonNull<u8>, usize) {
    let base = NonNull::new((&raw const bare_landing).cast_mut());
    (base.unwrap_or(NonNull::dangling()), LANDING_LENGTH)
}

/// The first byte behind the guest's image.
fn image_end() -> u64 {
    (&raw const bare_image_end) as u64
}

/// What the boot loader left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boot {
    zero_page: u64,
}

/// Longest command line taken, in bytes.
pub(crate) const COMMAND_LINE_MAX: usize = 512;

/// Kind of usable memory in the E820 table.
const USABLE: u32 = 1;

impl Boot {
    /// Address of the ACPI root pointer.
    pub(crate) fn acpi_root(&self) -> u64 {
        load(self.zero_page + 0x70)
    }

    /// The command line, cut at the first byte that is not ASCII.
    pub(crate) fn command_line<'a>(&self, buffer: &'a mut [u8; COMMAND_LINE_MAX]) -> &'a str {
        let low: u32 = load(self.zero_page + 0x228);
        let high: u32 = load(self.zero_page + 0xc8);
        let at = u64::from(low) | u64::from(high) << 32;
        let mut length = 0;
        for (index, byte) in buffer.iter_mut().enumerate() {
            *byte = if at == 0 { 0 } else { load(at + index as u64) };
            if *byte == 0 || !byte.is_ascii() {
                break;
            }
            length = index + 1;
        }
        buffer.get(..length).and_then(|text| core::str::from_utf8(text).ok()).unwrap_or("")
    }

    /// The largest range of usable memory behind the guest's image and below 4 GiB: start and end.
    pub(crate) fn free_memory(&self) -> (u64, u64) {
        let count: u8 = load(self.zero_page + 0x1e8);
        let mut best = (0, 0);
        for index in 0..u64::from(count) {
            let entry = self.zero_page + 0x2d0 + index * 20;
            let (start, length, kind): (u64, u64, u32) =
                (load(entry), load(entry + 8), load(entry + 16));
            let end = start.saturating_add(length).min(1 << 32);
            let start = start.max(image_end()).next_multiple_of(4096);
            if kind == USABLE && end > start && end - start > best.1 - best.0 {
                best = (start, end);
            }
        }
        best
    }
}
