//! The 16550 itself, as a device on ports: vm-superio's model with our interrupt and buffer.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, SerialState, Trigger};
use vmm_sys_util::eventfd::EventFd;

use super::output::Output;
use super::saved::UartState;
use crate::legacy::{PortDevice, PowerRequest};

/// Raises the UART's interrupt through its irqfd.
pub(super) struct Interrupt(pub(super) EventFd);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Tells the input side that the guest has read all input, when it waits for that.
#[derive(Clone)]
pub(super) struct InputSpace {
    event: Arc<EventFd>,
    wanted: Arc<AtomicBool>,
}

impl InputSpace {
    pub(super) fn new(event: Arc<EventFd>) -> Self {
        Self { event, wanted: Arc::default() }
    }

    /// Asks to be signalled at the next empty input buffer.
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::Release);
    }
}

impl SerialEvents for InputSpace {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        if self.wanted.swap(false, Ordering::AcqRel) {
            drop(self.event.write(1));
        }
    }
}

type Model = Serial<Interrupt, InputSpace, Output>;

/// The UART.
pub(super) struct Uart {
    model: Mutex<Model>,
    space: InputSpace,
    output: Output,
}

impl Uart {
    pub(super) fn new(interrupt: Interrupt, space: InputSpace, output: Output) -> Self {
        let model = Serial::with_events(interrupt, space.clone(), output.clone());
        Self { model: Mutex::new(model), space, output }
    }

    /// How many bytes the guest can take now; when none, [`InputSpace`] is signalled later.
    pub(super) fn input_capacity(&self) -> usize {
        let model = self.model.lock().unwrap();
        let capacity = model.fifo_capacity();
        if capacity == 0 {
            self.space.want();
        }
        capacity
    }

    /// Gives input, no longer than the capacity, to the guest.
    pub(super) fn input(&self, bytes: &[u8]) {
        if let Err(error) = self.model.lock().unwrap().enqueue_raw_bytes(bytes) {
            tracing::debug!(?error, "serial input lost");
        }
    }
}

impl Uart {
    pub(super) fn save(&self) -> UartState {
        self.model.lock().unwrap().state().into()
    }

    /// Takes a state over; an interrupt that it has pending is raised.
    pub(super) fn restore(&self, state: UartState) -> Result<(), String> {
        self.remake(&state.into())
    }

    fn remake(&self, state: &SerialState) -> Result<(), String> {
        let mut model = self.model.lock().unwrap();
        // The interrupt line's eventfd is the only thing to keep.
        let line = model.interrupt_evt().0.try_clone().map_err(|error| error.to_string())?;
        let (space, output) = (self.space.clone(), self.output.clone());
        *model = Serial::from_state(state, Interrupt(line), space, output)
            .map_err(|error| error.to_string())?;
        Ok(())
    }
}

impl PortDevice for Uart {
    fn read(&self, offset: u16, data: &mut [u8]) {
        let mut model = self.model.lock().unwrap();
        data.fill_with(|| model.read(offset as u8));
    }

    fn write(&self, offset: u16, data: &[u8]) -> Option<PowerRequest> {
        let mut model = self.model.lock().unwrap();
        for byte in data {
            if let Err(error) = model.write(offset as u8, *byte) {
                tracing::debug!(?error, "serial output lost");
            }
        }
        None
    }

    fn reset(&self) {
        if let Err(error) = self.remake(&SerialState::default()) {
            tracing::warn!(error, "serial port not reset");
        }
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    fn event() -> EventFd {
        EventFd::new(EFD_NONBLOCK).unwrap()
    }

    fn uart() -> (Uart, EventFd, Arc<EventFd>) {
        let line = event();
        let empty = Arc::new(event());
        let space = InputSpace::new(empty.clone());
        let uart =
            Uart::new(Interrupt(line.try_clone().unwrap()), space, Output::new(Arc::new(event())));
        (uart, line, empty)
    }

    #[test]
    fn output_reaches_the_buffer() {
        let (uart, ..) = uart();
        uart.write(0, b"ok");
        assert!(!uart.output.is_empty());
    }

    #[test]
    fn input_interrupts_and_asks_for_more_when_read() {
        let (uart, line, empty) = uart();
        uart.write(1, &[1]);
        uart.input(&[7; 64]);
        assert!(line.read().is_ok());
        assert_eq!(uart.input_capacity(), 0);
        let mut data = [0; 64];
        uart.read(0, &mut data);
        assert_eq!(data, [7; 64]);
        assert!(empty.read().is_ok());
        assert_eq!(uart.input_capacity(), 64);
    }

    #[test]
    fn reset_forgets_input_and_keeps_the_line() {
        let (uart, line, _) = uart();
        uart.input(b"old");
        uart.reset();
        assert_eq!(uart.input_capacity(), 64);
        uart.write(1, &[1]);
        uart.input(b"new");
        assert!(line.read().is_ok());
    }
}
