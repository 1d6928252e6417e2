//! The UART's state in an archive. What the guest wrote and nobody has read yet stays with the
//! console that it was written to.

use serde::{Deserialize, Serialize};
use vm_superio::SerialState;

use crate::state::Payload;

/// The registers (16550), and what the guest has not read yet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UartState {
    divisor: (u8, u8),
    interrupt_enable: u8,
    interrupt_identification: u8,
    line: (u8, u8),
    modem: (u8, u8),
    scratch: u8,
    input: Vec<u8>,
}

impl Payload for UartState {
    const KIND: &'static str = "serial";
    const VERSION: u16 = 1;
}

impl From<SerialState> for UartState {
    fn from(state: SerialState) -> Self {
        Self {
            divisor: (state.baud_divisor_low, state.baud_divisor_high),
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line: (state.line_control, state.line_status),
            modem: (state.modem_control, state.modem_status),
            scratch: state.scratch,
            input: state.in_buffer,
        }
    }
}

impl From<UartState> for SerialState {
    fn from(state: UartState) -> Self {
        Self {
            baud_divisor_low: state.divisor.0,
            baud_divisor_high: state.divisor.1,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line.0,
            line_status: state.line.1,
            modem_control: state.modem.0,
            modem_status: state.modem.1,
            scratch: state.scratch,
            in_buffer: state.input,
        }
    }
}
