//! Registers by which a guest powers off or resets the machine. They only say what the guest
//! wants; the VM does it.

use super::PortDevice;
use crate::acpi::SLEEP_TYPE_OFF;

/// What a guest asks the machine to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PowerRequest {
    /// Power off.
    PowerOff,
    /// Start again.
    Reset,
}

/// Sleep control register (ACPI 6.5, 4.8.3.7): SLP_TYP in bits 2-4, SLP_EN bit 5.
const SLEEP_ENABLE: u8 = 1 << 5;
/// Reset control: reset the CPU.
const RESET_CPU: u8 = 1 << 2;
/// Keyboard controller command: pulse the reset line.
const PULSE_RESET: u8 = 0xfe;

/// ACPI's sleep registers, or the PC's reset control register.
pub(crate) struct PowerRegisters {
    request: fn(u16, u8) -> Option<PowerRequest>,
}

impl PowerRegisters {
    /// Sleep control at offset 0, sleep status at 1.
    pub(crate) fn sleep() -> Self {
        Self {
            request: |offset, value| {
                let off = value & SLEEP_ENABLE != 0 && value >> 2 & 7 == SLEEP_TYPE_OFF;
                (offset == 0 && off).then_some(PowerRequest::PowerOff)
            },
        }
    }

    /// The register at port 0xcf9.
    pub(crate) fn reset_control() -> Self {
        Self { request: |_, value| (value & RESET_CPU != 0).then_some(PowerRequest::Reset) }
    }
}

impl PortDevice for PowerRegisters {
    fn read(&self, _offset: u16, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u16, data: &[u8]) -> Option<PowerRequest> {
        (self.request)(offset, *data.first()?)
    }

    fn reset(&self) {}
}

/// What is left of the keyboard controller: its reset line, which many a kernel pulls when
/// nothing else works. Its status says that it is ready for a command.
pub(crate) struct Keyboard;

impl PortDevice for Keyboard {
    fn read(&self, _offset: u16, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _offset: u16, data: &[u8]) -> Option<PowerRequest> {
        (data.first() == Some(&PULSE_RESET)).then_some(PowerRequest::Reset)
    }

    fn reset(&self) {}
}
