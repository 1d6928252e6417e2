//! What stands in for firmware: a reset vector that resets the machine. A Linux guest on
//! hardware-reduced ACPI reboots by EFI or else by jumping to the firmware in real mode
//! (arch/x86/kernel/reboot.c), and never asks the ACPI reset register.

use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use super::address::RESET_VECTOR;
use crate::legacy::port;
use crate::vm::GuestRam;

/// Writes the code: put the reset value into the reset control port, then wait.
pub(super) fn write(ram: &GuestRam) -> Result<(), BootError> {
    let [low, high] = port::RESET_CONTROL.to_le_bytes();
    let code = [
        0xb0,
        port::RESET_CONTROL_COLD, // mov al, value
        0xba,
        low,
        high, // mov dx, port
        0xee, // out dx, al
        0xf4, // hlt
        0xeb,
        0xfd, // jmp to the hlt
    ];
    ram.write_slice(&code, GuestAddress(RESET_VECTOR))?;
    Ok(())
}
