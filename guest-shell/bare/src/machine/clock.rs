//! Time from the time stamp counter.
#![allow(unsafe_code)] // CPUID and RDTSC.

use core::arch::x86_64::{__cpuid, _rdtsc};

/// Taken where the CPU does not tell: good enough for pauses and reports.
const KHZ_DEFAULT: u64 = 2_000_000;

/// The clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: u64,
    khz: u64,
}

impl Clock {
    /// A clock that begins at 0 now.
    pub(crate) fn new() -> Self {
        Self { start: ticks(), khz: frequency() }
    }

    /// Nanoseconds since the clock began.
    pub(crate) fn now_ns(&self) -> u64 {
        let passed = u128::from(ticks().wrapping_sub(self.start));
        (passed * 1_000_000 / u128::from(self.khz)) as u64
    }

    /// Waits for `milliseconds`.
    pub(crate) fn wait_ms(&self, milliseconds: u32) {
        let end = self.now_ns().saturating_add(u64::from(milliseconds) * 1_000_000);
        while self.now_ns() < end {
            core::hint::spin_loop();
        }
    }
}

fn ticks() -> u64 {
    // SAFETY: every 64-bit CPU has the counter.
    unsafe { _rdtsc() }
}

/// Counter frequency in kHz: CPUID 0x15 (crystal ratio), 0x16 (base MHz), or the hypervisor's
/// timing leaf 0x4000_0010.
fn frequency() -> u64 {
    let highest = __cpuid(0).eax;
    if highest >= 0x15 {
        let ratio = __cpuid(0x15);
        if ratio.eax != 0 && ratio.ebx != 0 && ratio.ecx != 0 {
            return u64::from(ratio.ecx) * u64::from(ratio.ebx) / u64::from(ratio.eax) / 1000;
        }
    }
    if highest >= 0x16 && __cpuid(0x16).eax & 0xffff != 0 {
        return u64::from(__cpuid(0x16).eax & 0xffff) * 1000;
    }
    let hypervisor = __cpuid(1).ecx & 1 << 31 != 0;
    if hypervisor && (0x4000_0010..0x4001_0000).contains(&__cpuid(0x4000_0000).eax) {
        let khz = __cpuid(0x4000_0010).eax;
        if khz != 0 {
            return u64::from(khz);
        }
    }
    KHZ_DEFAULT
}
