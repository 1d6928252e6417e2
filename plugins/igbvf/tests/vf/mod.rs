//! An 82576 virtual function made of plain memory: walks the descriptor rings as the device does
//! (82576 datasheet, 7.1 and 7.2), one step at a time.

#![allow(dead_code)] // Each test program uses a part of it.

use igbvf_plugin::{HEADER, entry};
use npa_abi::register::DEVICE_INFO_WORDS;
use npa_plugin_sdk::testbed::{Bed, Setup};

/// Registers, as offsets in the window (BAR 0 less 0x1000).
pub(crate) const EIMS: usize = 0x524;
pub(crate) const EIMC: usize = 0x528;
pub(crate) const IVAR0: usize = 0x700;
pub(crate) const EITR0: usize = 0x680;
pub(crate) const RX: usize = 0x1800;
pub(crate) const TX: usize = 0x2800;
const BASE_LOW: usize = 0x00;
const BASE_HIGH: usize = 0x04;
const LENGTH: usize = 0x08;
const SRRCTL: usize = 0x0c;
const HEAD: usize = 0x10;
pub(crate) const TAIL: usize = 0x18;
pub(crate) const CONTROL: usize = 0x28;
const ENABLED: u32 = 1 << 25;

pub(crate) const WINDOW: usize = 0x3000;
pub(crate) const MAC: [u8; 6] = [0x02, 1, 2, 3, 4, 5];
pub(crate) const STATUS_VLAN: u32 = 1 << 3;
pub(crate) const STATUS_TCP_CHECKED: u32 = 1 << 5;
pub(crate) const ERROR_L4: u32 = 1 << 29;
pub(crate) const ERROR_CRC: u32 = 1 << 24;

/// A frame that went out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnWire {
    pub(crate) bytes: Vec<u8>,
    /// Command bits of the last data descriptor.
    pub(crate) command: u32,
    /// High word of the first data descriptor: payload length and options.
    pub(crate) options: u32,
    /// The context descriptor in force.
    pub(crate) context: Option<[u32; 4]>,
}

#[derive(Debug, Default)]
pub(crate) struct Vf {
    pub(crate) wire: Vec<OnWire>,
    pub(crate) contexts: usize,
    context: Option<[u32; 4]>,
    partial: Vec<u8>,
    options: Option<u32>,
}

/// A plugin instance on one queue pair.
pub(crate) fn bed(entries: u32) -> Bed {
    let mut device_info = [0; DEVICE_INFO_WORDS];
    device_info[0] = u32::from_le_bytes([MAC[0], MAC[1], MAC[2], MAC[3]]);
    device_info[1] = u32::from_le_bytes([MAC[4], MAC[5], 0xdc, 0x05]);
    let setup = Setup {
        pairs: 1,
        entries,
        buffer_length: 2048,
        window_length: WINDOW,
        vectors: 2,
        device_info,
    };
    let mut bed = Bed::new(entry, &HEADER, &setup);
    assert_eq!(bed.sw_init(), 0);
    assert_eq!(bed.reinit(0), 0);
    assert_eq!(bed.reinit(1), 0);
    bed
}

fn ring(bed: &Bed, side: usize) -> (u64, u32) {
    let low = bed.register(side + BASE_LOW);
    let high = bed.register(side + BASE_HIGH);
    let base = u64::from(high) << 32 | u64::from(low);
    assert_eq!(base % 128, 0, "ring base is not 128-byte aligned");
    assert_eq!(bed.register(side + LENGTH) % 128, 0, "ring length");
    (base, bed.register(side + LENGTH) / 16)
}

fn words(bed: &mut Bed, descriptor: u64) -> [u32; 4] {
    let bytes: [u8; 16] = bed.dma().word(descriptor).expect("descriptor in memory");
    std::array::from_fn(|i| u32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap()))
}

impl Vf {
    /// Works off up to `limit` transmit descriptors.
    pub(crate) fn transmit(&mut self, bed: &mut Bed, limit: usize) {
        if bed.register(TX + CONTROL) & ENABLED == 0 {
            return;
        }
        let (base, entries) = ring(bed, TX);
        for _ in 0..limit {
            let head = bed.register(TX + HEAD);
            if head == bed.register(TX + TAIL) {
                return;
            }
            let place = base + 16 * u64::from(head);
            let descriptor = words(bed, place);
            self.work_off(bed, place, descriptor);
            bed.set_register(TX + HEAD, (head + 1) % entries);
        }
    }

    fn work_off(&mut self, bed: &mut Bed, place: u64, descriptor: [u32; 4]) {
        let [low, high, command, options] = descriptor;
        assert_ne!(command & 1 << 29, 0, "legacy descriptors are not supported");
        match command >> 20 & 0xf {
            2 => {
                self.context = Some(descriptor);
                self.contexts += 1;
            }
            3 => {
                let length = (command & 0xffff) as usize;
                assert!(length > 0, "empty data descriptor");
                let address = u64::from(high) << 32 | u64::from(low);
                let piece = bed.dma().read(address, length).expect("segment in memory");
                self.partial.extend(piece);
                self.options.get_or_insert(options);
            }
            other => panic!("descriptor type {other}"),
        }
        if command & 1 << 24 != 0 {
            let bytes = std::mem::take(&mut self.partial);
            let options = self.options.take().expect("a data descriptor");
            let context = self.context;
            self.wire.push(OnWire { bytes, command, options, context });
        }
        if command & 1 << 27 != 0 {
            assert!(bed.dma().write(place + 12, &(options | 1).to_le_bytes()));
        }
    }

    /// Receives a frame: into as many buffers as it needs, or not at all. `status` is added to
    /// the last descriptor's.
    pub(crate) fn deliver(&mut self, bed: &mut Bed, frame: &[u8], status: u32, vlan: u16) -> bool {
        let (base, entries) = ring(bed, RX);
        let buffer = ((bed.register(RX + SRRCTL) & 0x7f) << 10) as usize;
        let needed = frame.len().div_ceil(buffer).max(1) as u32;
        let head = bed.register(RX + HEAD);
        let tail = bed.register(RX + TAIL);
        let enabled = bed.register(RX + CONTROL) & ENABLED != 0;
        if !enabled || (tail + entries - head) % entries < needed {
            return false;
        }
        for index in 0..needed {
            let place = base + 16 * u64::from((head + index) % entries);
            let start = index as usize * buffer;
            let piece = &frame[start..frame.len().min(start + buffer)];
            let [low, high, ..] = words(bed, place);
            let address = u64::from(high) << 32 | u64::from(low);
            assert!(bed.dma().write(address, piece), "receive buffer in memory");
            let last = index + 1 == needed;
            let done = 1 | if last { 2 | status } else { 0 };
            let length = piece.len() as u32 | u32::from(vlan) << 16;
            let back: Vec<u8> =
                [0, 0, done, length].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
            assert!(bed.dma().write(place, &back));
        }
        bed.set_register(RX + HEAD, (head + needed) % entries);
        true
    }
}
