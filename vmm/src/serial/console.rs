//! Connects the UART with the console's other end, on the event loop.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber, SubscriberId};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::backend::{Backend, CHUNK, Sources};
use super::output::Output;
use super::saved::UartState;
use super::uart::{InputSpace, Interrupt, Uart};
use super::{SerialError, SerialTarget};
use crate::interrupts::IrqRouter;
use crate::legacy::{PortDevice, port};
use crate::state::{Archive, ArchiveBuilder, StateError};
use crate::vm::EventLoop;

/// The one serial port's name in a state.
const COM1: &str = "com1";

/// The console of a VM. Dropping it writes what is left and closes the other end.
pub(crate) struct Console {
    uart: Arc<Uart>,
    pump: Arc<Mutex<Pump>>,
    event_loop: EventLoop,
    subscriber: SubscriberId,
}

impl Console {
    /// Opens `target` and wires the interrupt.
    pub(crate) fn new(
        target: &SerialTarget,
        router: &IrqRouter,
        event_loop: &EventLoop,
    ) -> Result<Self, SerialError> {
        let event = || EventFd::new(EFD_NONBLOCK).map_err(SerialError::EventFd);
        let backend = Backend::open(target)?;
        let line = event()?;
        router.connect(&line, port::COM1_GSI)?;
        let (filled, space) = (Arc::new(event()?), Arc::new(event()?));
        let output = Output::new(filled.clone());
        let uart =
            Arc::new(Uart::new(Interrupt(line), InputSpace::new(space.clone()), output.clone()));
        let pump = Pump {
            uart: uart.clone(),
            output,
            filled,
            space,
            backend,
            waiting: Sources::default(),
        };
        let pump = Arc::new(Mutex::new(pump));
        let subscriber = event_loop.add(pump.clone())?;
        Ok(Self { uart, pump, event_loop: event_loop.clone(), subscriber })
    }

    /// The UART, for the port space.
    pub(crate) fn port_device(&self) -> Arc<dyn PortDevice> {
        self.uart.clone()
    }
}

impl Console {
    /// Adds the UART to a state.
    ///
    /// # Errors
    /// When it does not encode.
    pub(crate) fn save(&self, state: &mut ArchiveBuilder) -> Result<(), StateError> {
        state.put(COM1, &self.uart.save())
    }

    /// Takes a UART's state over.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn restore(&self, state: &mut Archive) -> Result<(), StateError> {
        let restored = self.uart.restore(state.take(COM1)?);
        restored.map_err(|reason| StateError::unsuitable::<UartState>(COM1, reason))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        drop(self.event_loop.remove(self.subscriber));
        self.pump.lock().unwrap().write_output();
    }
}

/// Moves bytes both ways; runs on the event loop.
struct Pump {
    uart: Arc<Uart>,
    output: Output,
    /// Output is waiting.
    filled: Arc<EventFd>,
    /// The guest has read its input.
    space: Arc<EventFd>,
    backend: Backend,
    /// What is registered with the event loop now.
    waiting: Sources,
}

impl Pump {
    /// Writes until all is written or the reader takes no more.
    fn write_output(&mut self) {
        while self.backend.has_reader() && !self.output.is_empty() {
            if self.output.drain(CHUNK, |bytes| self.backend.write(bytes)).is_err() {
                return;
            }
        }
    }

    /// Reads as much as the guest can take.
    fn read_input(&mut self) {
        let mut buffer = [0; 64];
        let room = self.uart.input_capacity().min(buffer.len());
        if room == 0 {
            return;
        }
        let len = self.backend.read(&mut buffer[..room]);
        if len > 0 {
            self.uart.input(&buffer[..len]);
        }
    }

    /// What to wait for now: input only while the guest can take some, writability only while
    /// there is output, a client only while there is none.
    fn wanted(&self) -> Sources {
        let sources = self.backend.sources();
        Sources {
            input: sources.input.filter(|_| self.uart.input_capacity() > 0),
            output: sources.output.filter(|_| !self.output.is_empty()),
            listener: sources.listener,
        }
    }

    /// Makes the event loop wait for [`Pump::wanted`].
    fn update(&mut self, ops: &mut EventOps) {
        let wanted = self.wanted();
        if wanted == self.waiting {
            return;
        }
        let (old, new) = (interests(&self.waiting), interests(&wanted));
        for (fd, _) in old.iter().filter(|(fd, _)| !new.iter().any(|(other, _)| other == fd)) {
            if let Err(error) = ops.remove(Events::empty_raw(*fd)) {
                tracing::warn!(%error, "serial console still watched");
            }
        }
        self.backend.close_gone();
        for (fd, set) in new {
            let events = Events::with_data_raw(fd, OTHER_END, set);
            let result = match old.iter().find(|(other, _)| *other == fd) {
                Some(_) => ops.modify(events),
                None => ops.add(events),
            };
            if let Err(error) = result {
                tracing::warn!(%error, "serial console not watched");
            }
        }
        self.waiting = wanted;
    }
}

/// Event data: which descriptor it was.
const FILLED: u32 = 0;
const SPACE: u32 = 1;
const OTHER_END: u32 = 2;

/// One entry per descriptor.
fn interests(sources: &Sources) -> Vec<(RawFd, EventSet)> {
    let mut all: Vec<(RawFd, EventSet)> = Vec::new();
    let wanted = [
        (sources.input, EventSet::IN),
        (sources.listener, EventSet::IN),
        (sources.output, EventSet::OUT),
    ];
    for (fd, set) in wanted.into_iter().filter_map(|(fd, set)| Some((fd?, set))) {
        match all.iter_mut().find(|(other, _)| *other == fd) {
            Some((_, sets)) => *sets |= set,
            None => all.push((fd, set)),
        }
    }
    all
}

impl MutEventSubscriber for Pump {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        match events.data() {
            FILLED => drop(self.filled.read()),
            SPACE => drop(self.space.read()),
            _ => {
                self.backend.accept();
                if events.event_set().intersects(EventSet::IN | EventSet::HANG_UP | EventSet::ERROR)
                {
                    self.read_input();
                }
            }
        }
        self.write_output();
        self.update(ops);
    }

    fn init(&mut self, ops: &mut EventOps) {
        for (event, data) in [(&self.filled, FILLED), (&self.space, SPACE)] {
            let events = Events::with_data_raw(event.as_raw_fd(), data, EventSet::IN);
            if let Err(error) = ops.add(events) {
                tracing::warn!(%error, "serial console not watched");
            }
        }
        self.update(ops);
    }
}

#[cfg(test)]
#[path = "console_test.rs"]
mod tests;
