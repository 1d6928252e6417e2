//! A virtio-net device made of plain memory (virtio 1.2, 2.7 and 5.1): walks the virtqueues as a
//! device does, and on request lies.

#![allow(dead_code)] // Each test program uses a part of it.

use npa_abi::register::DEVICE_INFO_WORDS;
use npa_abi::shell_page::QUEUES_MAX;
use npa_plugin_sdk::testbed::{Bed, Setup};
use virtio_net_plugin::{
    FEATURES, HEADER, QueueLayout, VIRTIO_F_RING_EVENT_IDX, VirtioInfo, entry,
};

pub(crate) const WINDOW: usize = 4096;
pub(crate) const BUFFER: u32 = 4096;
/// Distance of the queues' doorbells, in bytes.
const DOORBELLS: u32 = 4;

pub(crate) fn setup(features: u64, buffer_length: u32, entries: u32) -> Setup {
    let mut device_info = [0; DEVICE_INFO_WORDS];
    let offsets: [u32; QUEUES_MAX] = std::array::from_fn(|queue| queue as u32 * DOORBELLS);
    VirtioInfo::new(features, offsets).write(&mut device_info);
    Setup { pairs: 1, entries, buffer_length, window_length: WINDOW, vectors: 2, device_info }
}

/// A plugin instance on one queue pair.
pub(crate) fn bed(features: u64, entries: u32) -> Bed {
    let mut bed = Bed::new(entry, &HEADER, &setup(features, BUFFER, entries));
    assert_eq!(bed.sw_init(), 0);
    assert_eq!((bed.reinit(0), bed.reinit(1)), (0, 0));
    bed.set_register(0, u32::MAX);
    bed.set_register(4, u32::MAX);
    bed
}

/// A chain that the device has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) head: u16,
    /// Address, length, writable.
    pub(crate) parts: Vec<(u64, u32, bool)>,
}

/// One queue of the device.
#[derive(Debug)]
pub(crate) struct DeviceQueue {
    index: usize,
    entries: u32,
    descriptors: u64,
    driver: u64,
    device: u64,
    event_index: bool,
    seen: u16,
    used: u16,
}

fn half(bed: &mut Bed, address: u64) -> u16 {
    u16::from_le_bytes(bed.dma().word(address).expect("in memory"))
}

impl DeviceQueue {
    pub(crate) fn new(bed: &Bed, index: usize, features: u64) -> Self {
        let (base, length) = bed.queue_memory(index);
        let layout = QueueLayout::new(bed.entries());
        assert!(layout.device < u64::from(length));
        Self {
            index,
            entries: bed.entries(),
            descriptors: base + layout.descriptors,
            driver: base + layout.driver,
            device: base + layout.device,
            event_index: features & VIRTIO_F_RING_EVENT_IDX != 0,
            seen: 0,
            used: 0,
        }
    }

    /// Whether the doorbell has rung since the last call.
    pub(crate) fn rang(&self, bed: &mut Bed) -> bool {
        let offset = self.index * DOORBELLS as usize;
        let rang = bed.register(offset) & 0xffff == self.index as u32;
        bed.set_register(offset, u32::MAX);
        rang
    }

    /// Takes the next available chain, and asks for a doorbell after it.
    pub(crate) fn take(&mut self, bed: &mut Bed) -> Option<Chain> {
        let index = half(bed, self.driver + 2);
        let waiting = index.wrapping_sub(self.seen);
        assert!(u32::from(waiting) <= self.entries, "more available than there are");
        if waiting == 0 {
            let event = self.device + 4 + 8 * u64::from(self.entries);
            assert!(bed.dma().write(event, &self.seen.to_le_bytes()));
            return None;
        }
        let place = u64::from(self.seen) % u64::from(self.entries);
        let head = half(bed, self.driver + 4 + 2 * place);
        self.seen = self.seen.wrapping_add(1);
        let mut parts = Vec::new();
        let mut next = head;
        loop {
            assert!(u32::from(next) < self.entries, "descriptor {next}");
            assert!(parts.len() < self.entries as usize, "endless chain");
            let place = self.descriptors + 16 * u64::from(next);
            let [low, high]: [u64; 2] = [0, 8].map(|offset| {
                u64::from_le_bytes(bed.dma().word(place + offset).expect("in memory"))
            });
            let flags = (high >> 32) as u16;
            assert!(high as u32 > 0, "empty descriptor");
            parts.push((low, high as u32, flags & 2 != 0));
            next = (high >> 48) as u16;
            if flags & 1 == 0 {
                return Some(Chain { head, parts });
            }
        }
    }

    /// Gives a chain back. Answers whether the driver wants an interrupt.
    pub(crate) fn give(&mut self, bed: &mut Bed, id: u32, length: u32) -> bool {
        let place = self.device + 4 + 8 * (u64::from(self.used) % u64::from(self.entries));
        let element = u64::from(id) | u64::from(length) << 32;
        assert!(bed.dma().write(place, &element.to_le_bytes()));
        self.used = self.used.wrapping_add(1);
        assert!(bed.dma().write(self.device + 2, &self.used.to_le_bytes()));
        if self.event_index {
            half(bed, self.driver + 4 + 2 * u64::from(self.entries)) == self.used.wrapping_sub(1)
        } else {
            half(bed, self.driver) & 1 == 0
        }
    }

    /// Claims that `count` more chains came back than did.
    pub(crate) fn lie(&mut self, bed: &mut Bed, count: u16) {
        self.used = self.used.wrapping_add(count);
        assert!(bed.dma().write(self.device + 2, &self.used.to_le_bytes()));
    }

    /// The bytes of a chain to send: header and frame.
    pub(crate) fn bytes(&self, bed: &mut Bed, chain: &Chain) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &(address, length, writable) in &chain.parts {
            assert!(!writable, "a writable part in a chain to send");
            bytes.extend(bed.dma().read(address, length as usize).expect("segment in memory"));
        }
        bytes
    }

    /// Receives a frame behind `header`, whose count of buffers is set here; `false` without
    /// enough buffers.
    pub(crate) fn deliver(&mut self, bed: &mut Bed, header: [u8; 10], frame: &[u8]) -> bool {
        let needed = (12 + frame.len()).div_ceil(BUFFER as usize) as u16;
        let ready = half(bed, self.driver + 2).wrapping_sub(self.seen);
        if ready < needed {
            return false;
        }
        let mut bytes = [&header[..], &needed.to_le_bytes(), frame].concat();
        while !bytes.is_empty() {
            let chain = self.take(bed).expect("counted above");
            let [(address, length, true)] = chain.parts[..] else { panic!("{chain:?}") };
            let rest = bytes.split_off(bytes.len().min(length as usize));
            assert!(bed.dma().write(address, &bytes), "receive buffer in memory");
            self.give(bed, chain.head.into(), bytes.len() as u32);
            bytes = rest;
        }
        true
    }
}

/// A header without any offload.
pub(crate) const PLAIN: [u8; 10] = [0; 10];

pub(crate) const ALL: u64 = FEATURES;
pub(crate) const NO_EVENTS: u64 = FEATURES & !VIRTIO_F_RING_EVENT_IDX;
