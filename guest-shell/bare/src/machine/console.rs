//! Text to COM1.
#![allow(unsafe_code)] // Port output.

use core::arch::asm;

/// Data register of COM1, and its line status register.
const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
const TRANSMITTER_EMPTY: u8 = 1 << 5;

/// Most reads of the line status before a byte is sent all the same.
const TRIES: u32 = 1000;

/// Writes `text`; a newline becomes CR LF.
pub(crate) fn print(text: &str) {
    for byte in text.bytes() {
        if byte == b'\n' {
            send(b'\r');
        }
        send(byte);
    }
}

fn send(byte: u8) {
    for _ in 0..TRIES {
        if input(LINE_STATUS) & TRANSMITTER_EMPTY != 0 {
            break;
        }
    }
    // SAFETY: a port write touches no memory.
    unsafe { asm!("out dx, al", in("dx") COM1, in("al") byte, options(nomem, nostack)) };
}

fn input(port: u16) -> u8 {
    let value;
    // SAFETY: a port read touches no memory.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) };
    value
}
