//! The few port devices that a guest still needs: reset and power-off registers. Everything
//! else that a PC once had is absent, and ACPI says so.

mod ports;
mod power;

pub(crate) use ports::{PortDevice, Ports};
pub(crate) use power::PowerRequest;
pub(crate) use power::{Keyboard, PowerRegisters};

/// Port numbers and lines.
pub(crate) mod port {
    /// First serial port, 8 ports.
    pub(crate) const COM1: u16 = 0x3f8;
    /// Interrupt of the first serial port.
    pub(crate) const COM1_GSI: u32 = 4;
    /// Keyboard controller command and status.
    pub(crate) const KEYBOARD_COMMAND: u16 = 0x64;
    /// ACPI sleep control register, 1 byte.
    pub(crate) const SLEEP_CONTROL: u16 = 0x600;
    /// ACPI sleep status register, 1 byte.
    pub(crate) const SLEEP_STATUS: u16 = 0x601;
    /// Reset control, 1 byte.
    pub(crate) const RESET_CONTROL: u16 = 0xcf9;
    /// Value for a cold reset: reset CPU, full reset.
    pub(crate) const RESET_CONTROL_COLD: u8 = 0x06;
}
