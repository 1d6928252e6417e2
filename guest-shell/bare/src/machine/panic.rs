//! Where a panic ends: a line on the console, and rest.
#![allow(unsafe_code)] // Halts the CPU.

use super::console::print;
use core::arch::asm;
use core::panic::PanicInfo;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    print("bare: panic");
    if let Some(place) = info.location() {
        print(" in ");
        print(place.file());
    }
    print("\n");
    halt()
}

/// Stops the CPU for good.
fn halt() -> ! {
    loop {
        // SAFETY: interrupts stay off, so nothing runs any more; no memory is touched.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
