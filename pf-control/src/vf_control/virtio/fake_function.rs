//! A virtio function for tests: it keeps what is written as a device does, and lies on command.

use std::sync::{Arc, Mutex};

use super::capabilities::tests::{USUAL, config};
use super::registers::*;
use crate::vf_control::ControlRegion;
use virtio_net_plugin::{FEATURES, VIRTIO_F_VERSION_1, VIRTIO_NET_F_CSUM};

/// How it misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    Legacy,
    BypassesIommu,
    NoChecksums,
    RefusesFeatures,
    NeverResets,
    NoQueues,
    DoorbellsOutside,
    NoVectors,
    NeedsReset,
    Removed,
}

/// A queue as it was set up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    pub(super) addresses: [u64; 3],
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) mood: Mood,
    pub(super) status: u8,
    pub(super) queues: [Queue; 2],
    pub(super) accepted: [u32; 2],
    /// Doorbells that were rung, and the status at that moment.
    pub(super) rung: Vec<(u32, u16, u8)>,
    select: [u32; 3],
}

/// Clones are the same function.
#[derive(Clone)]
pub(super) struct FakeFunction(pub(super) Arc<Mutex<State>>);

impl FakeFunction {
    pub(super) fn new(mood: Mood) -> Self {
        Self(Arc::new(Mutex::new(State {
            mood,
            status: 0x0f,
            queues: [Queue::default(); 2],
            accepted: [0; 2],
            rung: Vec::new(),
            select: [0; 3],
        })))
    }
}

impl State {
    fn offered(&self) -> u64 {
        let all = FEATURES | ACCESS_PLATFORM | NET_MAC | NET_STATUS | 1 << 17;
        match self.mood {
            Mood::Legacy => all & !VIRTIO_F_VERSION_1,
            Mood::BypassesIommu => all & !ACCESS_PLATFORM,
            Mood::NoChecksums => all & !VIRTIO_NET_F_CSUM,
            _ => all,
        }
    }

    fn queue(&mut self) -> &mut Queue {
        let index = self.select[2] as usize % 2;
        &mut self.queues[index]
    }

    fn load(&mut self, offset: u32) -> u64 {
        match offset {
            DEVICE_FEATURE => (self.offered() >> (32 * self.select[0].min(1))) & 0xffff_ffff,
            DEVICE_STATUS => self.status.into(),
            QUEUE_SIZE if self.mood == Mood::NoQueues => 0,
            QUEUE_SIZE => 256,
            QUEUE_VECTOR if self.mood == Mood::NoVectors => NO_VECTOR.into(),
            QUEUE_VECTOR => self.queue().vector.into(),
            QUEUE_NOTIFY_OFF if self.mood == Mood::DoorbellsOutside => 0x400,
            QUEUE_NOTIFY_OFF => self.select[2].into(),
            0x2000..0x2006 => u64::from(0x52 + offset - 0x2000),
            0x2006 => LINK_UP.into(),
            _ => 0,
        }
    }

    fn store(&mut self, offset: u32, value: u64) {
        match offset {
            DEVICE_FEATURE_SELECT => self.select[0] = value as u32,
            DRIVER_FEATURE_SELECT => self.select[1] = value as u32,
            DRIVER_FEATURE => self.accepted[self.select[1] as usize % 2] = value as u32,
            DEVICE_STATUS if value == 0 && self.mood == Mood::NeverResets => {}
            DEVICE_STATUS if value == 0 => {
                (self.status, self.queues) = (0, [Queue::default(); 2]);
            }
            DEVICE_STATUS => {
                self.status = value as u8;
                match self.mood {
                    Mood::RefusesFeatures => self.status &= !FEATURES_OK,
                    Mood::NeedsReset if self.status & DRIVER_OK != 0 => self.status |= NEEDS_RESET,
                    _ => {}
                }
            }
            QUEUE_SELECT => self.select[2] = value as u32,
            QUEUE_SIZE => self.queue().size = value as u16,
            QUEUE_VECTOR => self.queue().vector = value as u16,
            QUEUE_ENABLE => self.queue().enabled = value == 1,
            QUEUE_DESC..0x38 => {
                let index = (offset - QUEUE_DESC) as usize / 8;
                let shift = 8 * ((offset - QUEUE_DESC) % 8);
                let address = &mut self.queue().addresses[index];
                *address = *address & !(0xffff_ffff << shift) | value << shift;
            }
            0x3000..0x4000 => self.rung.push((offset, value as u16, self.status)),
            _ => {}
        }
    }
}

impl ControlRegion for FakeFunction {
    fn read(&self, offset: u32, bytes: &mut [u8]) {
        let mut state = self.0.lock().unwrap();
        let value = if state.mood == Mood::Removed { u64::MAX } else { state.load(offset) };
        let len = bytes.len();
        bytes.copy_from_slice(&value.to_le_bytes()[..len]);
    }

    fn write(&self, offset: u32, bytes: &[u8]) {
        let mut value = [0; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        self.0.lock().unwrap().store(offset, u64::from_le_bytes(value));
    }

    fn read_config(&self, offset: u16, bytes: &mut [u8]) {
        let config = config(&USUAL, 3);
        let at = usize::from(offset);
        bytes.copy_from_slice(&config[at..at + bytes.len()]);
    }
}
