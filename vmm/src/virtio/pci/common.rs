//! The common configuration structure: feature negotiation, queue setup and device status
//! (VIRTIO 1.2, sections 2.1, 3.1 and 4.1.4.3). Decides what a write means; the transport acts.

use std::sync::Arc;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueT};

use super::layout::{COMMON_LEN, NOTIFY_STRIDE};
use crate::virtio::interrupt::{Interrupts, NO_VECTOR, STATUS_DRIVER_OK, STATUS_NEEDS_RESET};

const FEATURES_OK: u8 = 0x08;

/// Features of ring and transport that every device has.
const TRANSPORT_FEATURES: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX;

/// What a write to the structure asks of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing.
    None,
    /// Reset the device: the driver wrote status 0.
    Reset,
    /// Hand the queues to the device: the driver set `DRIVER_OK`.
    Activate,
    /// The device status changed otherwise.
    Status,
}

/// State of the structure.
pub(super) struct CommonConfig {
    pub(super) device_features: u64,
    pub(super) driver_features: u64,
    pub(super) device_select: u32,
    pub(super) driver_select: u32,
    pub(super) queue_select: u16,
    pub(super) queues: Vec<Queue>,
    pub(super) vectors: u16,
    pub(super) interrupts: Arc<Interrupts>,
}

impl CommonConfig {
    /// A device with `device_features` and queues of at most `sizes`, on a function with
    /// `vectors` MSI-X vectors.
    pub(super) fn new(
        device_features: u64,
        sizes: &[u16],
        vectors: u16,
        interrupts: Arc<Interrupts>,
    ) -> Result<Self, virtio_queue::Error> {
        Ok(Self {
            device_features: device_features | TRANSPORT_FEATURES,
            driver_features: 0,
            device_select: 0,
            driver_select: 0,
            queue_select: 0,
            queues: sizes.iter().map(|&size| Queue::new(size)).collect::<Result<_, _>>()?,
            vectors,
            interrupts,
        })
    }

    /// The negotiated features, fixed once `FEATURES_OK` is set.
    pub(super) fn features(&self) -> u64 {
        self.driver_features
    }

    /// The queues as the driver set them up.
    pub(super) fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// Back to the state after construction.
    pub(super) fn reset(&mut self) {
        self.driver_features = 0;
        self.device_select = 0;
        self.driver_select = 0;
        self.queue_select = 0;
        self.queues.iter_mut().for_each(QueueT::reset);
    }

    /// A guest read; bytes outside the structure are zero.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        crate::virtio::device::read_bytes(&self.image(), offset, data);
    }

    fn image(&self) -> [u8; COMMON_LEN as usize] {
        let mut image = [0; COMMON_LEN as usize];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &self.device_select.to_le_bytes());
        put(0x04, &half(self.device_features, self.device_select).to_le_bytes());
        put(0x08, &self.driver_select.to_le_bytes());
        put(0x0c, &half(self.driver_features, self.driver_select).to_le_bytes());
        put(0x10, &self.interrupts.config_vector().to_le_bytes());
        put(0x12, &(self.queues.len() as u16).to_le_bytes());
        put(0x14, &[self.interrupts.status()]);
        put(0x15, &[self.interrupts.config_generation()]);
        put(0x16, &self.queue_select.to_le_bytes());
        put(0x1a, &self.interrupts.queue_vector(self.queue_select).to_le_bytes());
        if let Some(queue) = self.queues.get(usize::from(self.queue_select)) {
            put(0x18, &queue.size().to_le_bytes());
            put(0x1c, &u16::from(queue.ready()).to_le_bytes());
            put(0x1e, &self.queue_select.to_le_bytes());
            put(0x20, &queue.desc_table().to_le_bytes());
            put(0x28, &queue.avail_ring().to_le_bytes());
            put(0x30, &queue.used_ring().to_le_bytes());
        }
        image
    }

    /// A guest write. What is read-only, misaligned or of the wrong width is ignored.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        match *data {
            [value] => self.write_u8(offset, value),
            [a, b] => self.write_u16(offset, u16::from_le_bytes([a, b])),
            [a, b, c, d] => self.write_u32(offset, u32::from_le_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] if matches!(offset, 0x20 | 0x28 | 0x30) => {
                self.write_u32(offset, u32::from_le_bytes([a, b, c, d]));
                self.write_u32(offset + 4, u32::from_le_bytes([e, f, g, h]))
            }
            _ => Action::None,
        }
    }

    fn write_u8(&mut self, offset: u64, value: u8) -> Action {
        if offset == 0x14 { self.write_status(value) } else { Action::None }
    }

    fn write_u16(&mut self, offset: u64, value: u16) -> Action {
        match offset {
            0x10 => self.interrupts.set_config_vector(self.known_vector(value)),
            0x16 => self.queue_select = value,
            0x1a => {
                let vector = self.known_vector(value);
                self.interrupts.set_queue_vector(self.queue_select, vector);
            }
            0x18 => self.set_up_queue(|queue| queue.set_size(value)),
            // A queue can be enabled only; a reset disables it.
            0x1c if value == 1 => self.set_up_queue(|queue| queue.set_ready(true)),
            _ => {}
        }
        Action::None
    }

    fn write_u32(&mut self, offset: u64, value: u32) -> Action {
        let (low, high) = (Some(value), Some(value));
        match offset {
            0x00 => self.device_select = value,
            0x08 => self.driver_select = value,
            0x0c => self.write_driver_features(value),
            0x20 => self.set_up_queue(|queue| queue.set_desc_table_address(low, None)),
            0x24 => self.set_up_queue(|queue| queue.set_desc_table_address(None, high)),
            0x28 => self.set_up_queue(|queue| queue.set_avail_ring_address(low, None)),
            0x2c => self.set_up_queue(|queue| queue.set_avail_ring_address(None, high)),
            0x30 => self.set_up_queue(|queue| queue.set_used_ring_address(low, None)),
            0x34 => self.set_up_queue(|queue| queue.set_used_ring_address(None, high)),
            _ => {}
        }
        Action::None
    }

    /// Changes the selected queue, which a driver may do until it enables it.
    fn set_up_queue(&mut self, change: impl FnOnce(&mut Queue)) {
        let running = self.interrupts.status() & STATUS_DRIVER_OK != 0;
        match self.queues.get_mut(usize::from(self.queue_select)) {
            Some(queue) if !running && !queue.ready() => change(queue),
            _ => {}
        }
    }

    fn write_driver_features(&mut self, value: u32) {
        if self.interrupts.status() & FEATURES_OK != 0 {
            return;
        }
        let shift = match self.driver_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        let kept = self.driver_features & !(u64::from(u32::MAX) << shift);
        self.driver_features = kept | u64::from(value) << shift;
    }

    /// The device status state machine: bits only ever get set, and 0 resets.
    fn write_status(&mut self, value: u8) -> Action {
        if value == 0 {
            return Action::Reset;
        }
        let before = self.interrupts.status();
        let mut set = value & !before & !STATUS_NEEDS_RESET;
        let required = 1 << VIRTIO_F_VERSION_1;
        let acceptable = self.driver_features & !self.device_features == 0
            && self.driver_features & required == required;
        if set & FEATURES_OK != 0 && !acceptable {
            // The driver reads the status back, and sees that the bit is not set.
            set &= !FEATURES_OK;
        }
        if set & STATUS_DRIVER_OK != 0 && (before | set) & FEATURES_OK == 0 {
            set &= !STATUS_DRIVER_OK;
        }
        if set == 0 {
            return Action::None;
        }
        self.interrupts.add_status(set);
        if set & FEATURES_OK != 0 {
            let event_idx = self.driver_features >> VIRTIO_RING_F_EVENT_IDX & 1 != 0;
            self.queues.iter_mut().for_each(|queue| queue.set_event_idx(event_idx));
        }
        if set & STATUS_DRIVER_OK != 0 { Action::Activate } else { Action::Status }
    }

    /// A vector that the function does not have reads back as none, which tells the driver.
    fn known_vector(&self, vector: u16) -> u16 {
        if vector < self.vectors { vector } else { NO_VECTOR }
    }
}

/// The 32 bits of `features` that `select` names; further halves are empty.
fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

// Doorbells are numbered like queues, which makes `queue_notify_off` the queue's number.
const _: () = assert!(NOTIFY_STRIDE == 4);

#[cfg(test)]
#[path = "common_test.rs"]
mod tests;
