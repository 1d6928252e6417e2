//! What a panic does in the kernel: an invalid instruction, which the kernel reports with the
//! registers and the stack. The module is compiled so that panics abort at once, so this is only
//! there because the language wants it.
#![allow(unsafe_code, reason = "the instruction itself")]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: raises an invalid opcode exception and does not return.
    unsafe { core::arch::asm!("ud2", options(noreturn, nomem, nostack)) }
}
