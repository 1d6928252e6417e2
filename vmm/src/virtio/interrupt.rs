//! How a device interrupts its driver: MSI-X vectors by role, the ISR byte, and the device status
//! bit that says "reset me". Decides nothing about queues.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

use crate::pci::MsixVectors;

/// The vector number that means "no vector" (VIRTIO 1.2, section 4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;

/// `DEVICE_NEEDS_RESET` of the device status byte.
pub const STATUS_NEEDS_RESET: u8 = 0x40;
/// `DRIVER_OK` of the device status byte.
pub const STATUS_DRIVER_OK: u8 = 0x04;

const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// The interrupt side of a device in an archive.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InterruptState {
    pub(super) status: u8,
    pub(super) isr: u8,
    pub(super) config_generation: u8,
    pub(super) config_vector: u16,
    pub(super) queue_vectors: Vec<u16>,
}

/// Where MSI-X vectors go; masking and pending bits are its business.
pub trait VectorSink: Send + Sync {
    /// Raises vector `vector`.
    fn trigger(&self, vector: u16);
}

impl VectorSink for MsixVectors {
    fn trigger(&self, vector: u16) {
        MsixVectors::trigger(self, vector);
    }
}

/// The interrupt side of one virtio device, shared by its transport and its worker.
pub struct Interrupts {
    sink: Arc<dyn VectorSink>,
    status: AtomicU8,
    isr: AtomicU8,
    config_generation: AtomicU8,
    config_vector: AtomicU16,
    queue_vectors: Vec<AtomicU16>,
    raised: AtomicU64,
}

impl fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupts")
            .field("status", &self.status)
            .field("isr", &self.isr)
            .field("config_vector", &self.config_vector)
            .field("queue_vectors", &self.queue_vectors)
            .finish_non_exhaustive()
    }
}

impl Interrupts {
    /// Interrupts of a device with `queues` queues, no vector assigned.
    pub fn new(sink: Arc<dyn VectorSink>, queues: usize) -> Self {
        Self {
            sink,
            status: AtomicU8::new(0),
            isr: AtomicU8::new(0),
            config_generation: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            raised: AtomicU64::new(0),
        }
    }

    /// The device status byte (VIRTIO 1.2, section 2.1).
    pub fn status(&self) -> u8 {
        self.status.load(Ordering::Acquire)
    }

    /// Sets bits of the device status byte; [`Interrupts::reset`] clears them.
    pub fn add_status(&self, bits: u8) {
        self.status.fetch_or(bits, Ordering::AcqRel);
    }

    /// The MSI-X vector for configuration changes, or [`NO_VECTOR`].
    pub fn config_vector(&self) -> u16 {
        self.config_vector.load(Ordering::Acquire)
    }

    /// Assigns the vector for configuration changes.
    pub fn set_config_vector(&self, vector: u16) {
        self.config_vector.store(vector, Ordering::Release);
    }

    /// The MSI-X vector of a queue, or [`NO_VECTOR`]; also for a queue that does not exist.
    pub fn queue_vector(&self, queue: u16) -> u16 {
        self.queue_vectors
            .get(usize::from(queue))
            .map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire))
    }

    /// Assigns the vector of a queue; a queue that does not exist is ignored.
    pub fn set_queue_vector(&self, queue: u16, vector: u16) {
        if let Some(slot) = self.queue_vectors.get(usize::from(queue)) {
            slot.store(vector, Ordering::Release);
        }
    }

    /// Counts changes of the configuration space (`config_generation`).
    pub fn config_generation(&self) -> u8 {
        self.config_generation.load(Ordering::Acquire)
    }

    /// Reads and clears the ISR byte (VIRTIO 1.2, section 4.1.4.5).
    pub fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::AcqRel)
    }

    /// Interrupts raised since creation, all vectors together.
    pub fn raised(&self) -> u64 {
        self.raised.load(Ordering::Relaxed)
    }

    /// Tells the driver that a queue has used buffers.
    pub fn queue_used(&self, queue: u16) {
        self.isr.fetch_or(ISR_QUEUE, Ordering::AcqRel);
        self.trigger(self.queue_vector(queue));
    }

    /// Tells the driver that the configuration space changed. Nothing is raised before
    /// `DRIVER_OK`, when a driver reads the configuration anyway.
    pub fn config_changed(&self) {
        self.config_generation.fetch_add(1, Ordering::AcqRel);
        if self.status() & STATUS_DRIVER_OK != 0 {
            self.raise_config();
        }
    }

    /// Raises the configuration vector alone, for events of the function that are not a change
    /// of the configuration space.
    pub fn raise_config(&self) {
        self.isr.fetch_or(ISR_CONFIG, Ordering::AcqRel);
        self.trigger(self.config_vector());
    }

    /// Reports `DEVICE_NEEDS_RESET`: the driver broke the protocol and the device stopped.
    pub fn needs_reset(&self) {
        let before = self.status.fetch_or(STATUS_NEEDS_RESET, Ordering::AcqRel);
        if before & STATUS_DRIVER_OK != 0 && before & STATUS_NEEDS_RESET == 0 {
            self.raise_config();
        }
    }

    /// Back to the state after construction; counters stay.
    pub fn reset(&self) {
        self.status.store(0, Ordering::Release);
        self.isr.store(0, Ordering::Release);
        self.config_vector.store(NO_VECTOR, Ordering::Release);
        for vector in &self.queue_vectors {
            vector.store(NO_VECTOR, Ordering::Release);
        }
    }

    pub(super) fn state(&self) -> InterruptState {
        InterruptState {
            status: self.status(),
            isr: self.isr.load(Ordering::Acquire),
            config_generation: self.config_generation(),
            config_vector: self.config_vector(),
            queue_vectors: (0..)
                .zip(&self.queue_vectors)
                .map(|(q, _)| self.queue_vector(q))
                .collect(),
        }
    }

    /// Takes a state over.
    pub(super) fn set_state(&self, state: &InterruptState) {
        self.status.store(state.status, Ordering::Release);
        self.isr.store(state.isr, Ordering::Release);
        self.config_generation.store(state.config_generation, Ordering::Release);
        self.set_config_vector(state.config_vector);
        for (queue, vector) in (0..).zip(&state.queue_vectors) {
            self.set_queue_vector(queue, *vector);
        }
    }

    /// Raises every vector once: an interrupt on its way when a VM was held may not have reached
    /// its CPU, and a driver takes one too many in its stride.
    pub(super) fn raise_all(&self) {
        let vectors = self.queue_vectors.iter().chain([&self.config_vector]);
        vectors.for_each(|vector| self.trigger(vector.load(Ordering::Acquire)));
    }

    fn trigger(&self, vector: u16) {
        if vector != NO_VECTOR {
            self.raised.fetch_add(1, Ordering::Relaxed);
            self.sink.trigger(vector);
        }
    }
}
