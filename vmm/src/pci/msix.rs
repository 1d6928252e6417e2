//! MSI-X: the table in a BAR, the capability, and one irqfd per vector. Every vector reaches
//! the guest through its irqfd, so whoever holds the eventfd (a worker, VFIO, another process)
//! interrupts the guest with no userspace hop. Never raises INTx.

use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::capability;
use super::config_space::ConfigSpace;
use crate::interrupts::{IrqError, IrqRouter, MsiMessage};
use crate::state::{Archive, ArchiveBuilder, Payload, StateError};

/// Bytes of a table entry (PCI 3.0, 6.8.2).
const ENTRY: u64 = 16;
/// Vector control: masked.
const MASKED: u32 = 1;
/// Message control: enable.
const CONTROL_ENABLE: u16 = 1 << 15;
/// Message control: function mask.
const CONTROL_MASK: u16 = 1 << 14;

/// The vectors of one function. Thread-safe: workers trigger while the guest programs the table.
pub struct MsixVectors {
    router: Arc<IrqRouter>,
    lines: Vec<Line>,
    state: Mutex<State>,
}

struct Line {
    event: EventFd,
    gsi: u32,
}

struct State {
    enabled: bool,
    function_mask: bool,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    message: MsiMessage,
    control: u32,
    /// The message that the GSI is routed to.
    routed: Option<MsiMessage>,
    /// The irqfd is assigned.
    connected: bool,
}

/// The table; what message control says is in configuration space.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct MsixState {
    /// Address, data and vector control of each vector.
    entries: Vec<(u64, u32, u32)>,
}

impl Payload for MsixState {
    const KIND: &'static str = "msix";
    const VERSION: u16 = 1;
}

impl Default for Entry {
    fn default() -> Self {
        let message = MsiMessage::default();
        Self { message, control: MASKED, routed: None, connected: false }
    }
}

impl MsixVectors {
    /// `count` vectors (1 to 2048), all masked and disabled.
    pub fn new(router: Arc<IrqRouter>, count: u16) -> Result<Self, IrqError> {
        let mut vectors = Self {
            router,
            lines: Vec::with_capacity(count.into()),
            state: Mutex::new(State {
                enabled: false,
                function_mask: false,
                entries: vec![Entry::default(); count.into()],
            }),
        };
        for _ in 0..count {
            let event = EventFd::new(EFD_NONBLOCK).map_err(IrqError::EventFd)?;
            let gsi = vectors.router.allocate()?;
            vectors.lines.push(Line { event, gsi });
        }
        Ok(vectors)
    }

    /// How many vectors there are.
    pub fn count(&self) -> u16 {
        self.lines.len() as u16
    }

    /// Bytes of the table in its BAR.
    pub fn table_len(&self) -> u64 {
        ENTRY * u64::from(self.count())
    }

    /// Bytes of the pending bit array in its BAR.
    pub fn pba_len(&self) -> u64 {
        u64::from(self.count()).div_ceil(64) * 8
    }

    /// Raises vector `v`: the guest is interrupted now, or when it unmasks the vector. A vector
    /// that does not exist (a driver may name any number) is ignored, as on hardware.
    pub fn trigger(&self, v: u16) {
        let Some(line) = self.lines.get(usize::from(v)) else { return };
        // EAGAIN means that the counter is full of unread signals: pending it is.
        drop(line.event.write(1));
    }

    /// The eventfd that raises vector `v`; writing 1 is the same as [`MsixVectors::trigger`].
    ///
    /// # Panics
    /// When there is no vector `v`; callers pass constants below their count.
    pub fn event(&self, v: u16) -> &EventFd {
        &self.lines[usize::from(v)].event
    }

    /// Whether vector `v` would reach the guest now.
    pub fn is_deliverable(&self, v: u16) -> bool {
        self.state.lock().unwrap().deliverable(usize::from(v))
    }

    /// A guest read of the table; 4 or 8 bytes, aligned. Anything else reads as ones.
    pub fn table_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if !aligned(offset, data.len()) {
            return;
        }
        let state = self.state.lock().unwrap();
        for (at, chunk) in (offset..).step_by(4).zip(data.chunks_exact_mut(4)) {
            let Some(entry) = state.entries.get((at / ENTRY) as usize) else { return };
            let value = match at % ENTRY {
                0 => entry.message.address as u32,
                4 => (entry.message.address >> 32) as u32,
                8 => entry.message.data,
                _ => entry.control,
            };
            chunk.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// A guest write to the table; 4 or 8 bytes, aligned. Anything else is ignored.
    pub fn table_write(&self, offset: u64, data: &[u8]) {
        if !aligned(offset, data.len()) {
            return;
        }
        let mut state = self.state.lock().unwrap();
        let index = (offset / ENTRY) as usize;
        let Some(entry) = state.entries.get_mut(index) else { return };
        for (at, chunk) in (offset..).step_by(4).zip(data.chunks_exact(4)) {
            let value = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
            let address = &mut entry.message.address;
            match at % ENTRY {
                0 => *address = *address & !0xffff_ffff | u64::from(value & !3),
                4 => *address = *address & 0xffff_ffff | u64::from(value) << 32,
                8 => entry.message.data = value,
                _ => entry.control = value & MASKED,
            }
        }
        self.update(&mut state, index);
    }

    /// A guest read of the pending bit array: vectors that are raised and masked.
    pub fn pba_read(&self, offset: u64, data: &mut [u8]) {
        let state = self.state.lock().unwrap();
        for (at, byte) in (offset..).zip(data) {
            *byte = (0..8)
                .map(|bit| (bit, at as usize * 8 + bit))
                .filter(|(_, v)| *v < self.lines.len())
                .filter(|(_, v)| {
                    !state.entries[*v].connected && is_signalled(&self.lines[*v].event)
                })
                .fold(0, |bits, (bit, _)| bits | 1 << bit);
        }
    }

    /// The enable bit of message control. What was raised while disabled is forgotten.
    pub fn set_enabled(&self, enabled: bool) {
        let mut state = self.state.lock().unwrap();
        if enabled && !state.enabled {
            for line in &self.lines {
                drop(line.event.read());
            }
        }
        state.enabled = enabled;
        self.update_all(&mut state);
    }

    /// The function mask bit of message control.
    pub fn set_function_mask(&self, masked: bool) {
        let mut state = self.state.lock().unwrap();
        state.function_mask = masked;
        self.update_all(&mut state);
    }

    /// As after construction: all masked, disabled, nothing pending.
    pub fn reset(&self) {
        let mut state = self.state.lock().unwrap();
        state.enabled = false;
        state.function_mask = false;
        self.update_all(&mut state);
        for (entry, line) in state.entries.iter_mut().zip(&self.lines) {
            *entry = Entry { routed: entry.routed, ..Entry::default() };
            drop(line.event.read());
        }
    }

    /// Adds the table to a state.
    ///
    /// # Errors
    /// When it does not encode.
    pub fn save(&self, slot: &str, state: &mut ArchiveBuilder) -> Result<(), StateError> {
        let vectors = self.state.lock().unwrap();
        let entry = |entry: &Entry| (entry.message.address, entry.message.data, entry.control);
        state.put(slot, &MsixState { entries: vectors.entries.iter().map(entry).collect() })
    }

    /// Takes a table over, into vectors as constructed. Message control has to follow.
    ///
    /// # Errors
    /// When the table is another function's.
    pub fn restore(&self, slot: &str, state: &mut Archive) -> Result<(), StateError> {
        let saved: MsixState = state.take(slot)?;
        let mut vectors = self.state.lock().unwrap();
        if saved.entries.len() != vectors.entries.len() {
            let reason = format!("it has {} vectors", saved.entries.len());
            return Err(StateError::unsuitable::<MsixState>(slot, reason));
        }
        for (entry, (address, data, control)) in vectors.entries.iter_mut().zip(saved.entries) {
            entry.message = MsiMessage { address: address & !3, data };
            entry.control = control & MASKED;
        }
        self.update_all(&mut vectors);
        Ok(())
    }

    fn update_all(&self, state: &mut State) {
        for index in 0..state.entries.len() {
            self.update(state, index);
        }
    }

    /// Makes route and irqfd of one vector follow its entry.
    fn update(&self, state: &mut State, index: usize) {
        let deliver = state.deliverable(index);
        let (entry, line) = (&mut state.entries[index], &self.lines[index]);
        let result = match (deliver, entry.connected) {
            (true, false) => self.route(entry, line).and_then(|()| self.connect(entry, line)),
            (true, true) => self.route(entry, line),
            (false, true) => {
                entry.connected = false;
                self.router.disconnect(&line.event, line.gsi)
            }
            (false, false) => Ok(()),
        };
        if let Err(error) = result {
            tracing::warn!(vector = index, error = &error as &dyn std::error::Error, "msi-x");
        }
    }

    fn route(&self, entry: &mut Entry, line: &Line) -> Result<(), IrqError> {
        if entry.routed != Some(entry.message) {
            self.router.set_message(line.gsi, entry.message)?;
            entry.routed = Some(entry.message);
        }
        Ok(())
    }

    /// KVM injects at assignment when the eventfd is signalled but leaves the counter as it is,
    /// which would raise the vector once more at the next unmask: so the counter is emptied
    /// first and the signal repeated.
    fn connect(&self, entry: &mut Entry, line: &Line) -> Result<(), IrqError> {
        let pending = line.event.read().is_ok();
        self.router.connect(&line.event, line.gsi)?;
        entry.connected = true;
        if pending {
            drop(line.event.write(1));
        }
        Ok(())
    }
}

impl Drop for MsixVectors {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap();
        for (entry, line) in state.entries.iter().zip(&self.lines) {
            if entry.connected {
                drop(self.router.disconnect(&line.event, line.gsi));
            }
            self.router.release(line.gsi);
        }
    }
}

impl State {
    fn deliverable(&self, index: usize) -> bool {
        self.enabled
            && !self.function_mask
            && self.entries.get(index).is_some_and(|entry| entry.control & MASKED == 0)
    }
}

fn aligned(offset: u64, len: usize) -> bool {
    matches!(len, 4 | 8) && offset.is_multiple_of(len as u64)
}

/// Whether an eventfd that no irqfd reads is signalled; it stays so.
fn is_signalled(event: &EventFd) -> bool {
    let signalled = event.read().is_ok();
    if signalled {
        drop(event.write(1));
    }
    signalled
}

/// The MSI-X capability of a function.
pub struct MsixCapability {
    vectors: Arc<MsixVectors>,
    /// Offset of the message control word.
    control: u16,
}

impl MsixCapability {
    /// Adds the capability to `config`: the table is at `table_offset` and the pending bits at
    /// `pba_offset` (both multiples of 8) of BAR `bar`.
    pub fn new(
        config: &mut ConfigSpace,
        vectors: Arc<MsixVectors>,
        bar: u8,
        table_offset: u32,
        pba_offset: u32,
    ) -> Self {
        let mut body = [0; 10];
        body[0..2].copy_from_slice(&(vectors.count() - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(table_offset | u32::from(bar)).to_le_bytes());
        body[6..10].copy_from_slice(&(pba_offset | u32::from(bar)).to_le_bytes());
        let writable = (CONTROL_ENABLE | CONTROL_MASK).to_le_bytes();
        let control = config.add_capability(capability::MSIX, &body, &writable) + 2;
        Self { vectors, control }
    }

    /// Makes the vectors follow message control as it stands in a restored `config`.
    pub fn follow(&self, config: &ConfigSpace) {
        self.config_written(config, self.control, 2);
    }

    /// To be called from [`super::PciDevice::config_written`]: acts on message control.
    pub fn config_written(&self, config: &ConfigSpace, offset: u16, len: usize) {
        let written = usize::from(offset)..usize::from(offset) + len;
        let high = usize::from(self.control) + 1;
        if !written.contains(&high) {
            return;
        }
        let control = config.u16(self.control);
        // In this order no vector is open between the two steps that the guest did not open.
        let masked = control & CONTROL_MASK != 0;
        if masked {
            self.vectors.set_function_mask(true);
        }
        self.vectors.set_enabled(control & CONTROL_ENABLE != 0);
        if !masked {
            self.vectors.set_function_mask(false);
        }
    }
}

#[cfg(test)]
#[path = "msix_test.rs"]
mod tests;
