//! Transmit: a context descriptor where an offload differs from the last frame's, then data
//! descriptors; the last one of a frame asks for the done bit, which is polled in memory.

use npa_abi::net::{TX_SEGMENTS_MAX, TX_TSO, TX_VLAN};
use npa_plugin_sdk::memory::{observe, publish};
use npa_plugin_sdk::net::{Armed, SendFrame, SendFrames};
use npa_plugin_sdk::{Error, Memory, Ring, Window};

use crate::interrupt::{Interrupt, LONGEST_TX};
use crate::offload::{self, Context, HEADERS_MAX};
use crate::register::{
    ATTEMPTS, GONE, QUEUE_ENABLE, TDBAH, TDBAL, TDH, TDLEN, TDT, TDWBAH, TDWBAL, TX_VECTOR, TXDCTL,
};

/// Bytes of ring memory per descriptor beside it: the copy of a frame's headers, and the number of
/// the frame's last descriptor.
pub(crate) const BOOKS: u32 = HEADERS_MAX as u32 + 2;

/// Most bytes of one descriptor; the length field has 16 bits.
const PIECE_MAX: u32 = 32 << 10;

/// Most bytes of a frame: an IP packet, its Ethernet header and a VLAN tag.
const FRAME_MAX: u32 = 65_535 + 14 + 4;

/// Most descriptors of a frame: context, copied headers, one per segment, and what cutting long
/// segments adds.
pub(crate) const FRAME_DESCRIPTORS_MAX: u32 =
    2 + TX_SEGMENTS_MAX as u32 + FRAME_MAX.div_ceil(PIECE_MAX);

/// Data descriptor, second word: advanced data descriptor.
const DATA: u64 = 0x0030_0000 | 1 << 29;
/// Data descriptor: end of frame, and report when done.
const LAST: u64 = 1 << 24 | 1 << 27;
/// Data descriptor: insert the FCS.
const INSERT_FCS: u64 = 1 << 25;
/// Data descriptor: insert the context's VLAN tag.
const INSERT_VLAN: u64 = 1 << 30;
/// Data descriptor: cut segments.
const SEGMENT: u64 = 1 << 31;
/// Write-back, second word: done.
const DONE: u64 = 1 << 32;

/// A transmit queue.
#[derive(Debug)]
pub struct Transmit {
    memory: Memory,
    /// Two words per descriptor.
    descriptors: Ring<u64>,
    /// By a frame's first descriptor: its headers, copied.
    headers: Ring<u64>,
    headers_offset: usize,
    /// By a frame's first descriptor: its last one.
    last: Ring<u16>,
    interrupt: Interrupt,
    /// Descriptors used so far, modulo 2^32.
    used: u32,
    /// Descriptors freed so far, modulo 2^32.
    freed: u32,
    /// The context that the device holds.
    context: Option<Context>,
}

impl Transmit {
    /// Lays the ring out in `memory`.
    pub(crate) fn new(memory: Memory) -> Result<Self, Error> {
        let entries = memory.entries() as usize;
        if memory.entries() <= FRAME_DESCRIPTORS_MAX {
            return Err(Error::Config);
        }
        let headers_offset = 16 * entries;
        let last_offset = headers_offset + HEADERS_MAX * entries;
        Ok(Self {
            memory,
            descriptors: memory.ring(0, 2 * entries).ok_or(Error::Config)?,
            headers: memory.ring(headers_offset, HEADERS_MAX / 8 * entries).ok_or(Error::Config)?,
            headers_offset,
            last: memory.ring(last_offset, entries).ok_or(Error::Config)?,
            interrupt: Interrupt::new(TX_VECTOR, LONGEST_TX),
            used: 0,
            freed: 0,
            context: None,
        })
    }

    /// Empties the ring and starts the queue.
    pub(crate) fn reinit(&mut self, window: Window) -> Result<(), Error> {
        stop(window)?;
        self.memory.zero();
        (self.used, self.freed, self.context) = (0, 0, None);
        let base = self.memory.device_address(0);
        window.write32(TDLEN, self.memory.entries() * 16);
        window.write32(TDBAL, base as u32);
        window.write32(TDBAH, (base >> 32) as u32);
        window.write32(TDWBAL, 0);
        window.write32(TDWBAH, 0);
        window.write32(TDH, 0);
        window.write32(TDT, 0);
        self.interrupt.reset(window);
        window.write32(TXDCTL, QUEUE_ENABLE);
        if window.wait32(TXDCTL, QUEUE_ENABLE, QUEUE_ENABLE, ATTEMPTS) {
            Ok(())
        } else {
            Err(Error::Device)
        }
    }

    pub(crate) fn arm(&mut self, window: Window) -> Armed {
        self.interrupt.arm(window);
        if self.is_oldest_done() { Armed::WorkWaits } else { Armed::Idle }
    }

    pub(crate) fn disarm(&mut self, window: Window) {
        self.interrupt.disarm(window);
    }

    /// Puts frames on the ring until one does not fit.
    pub(crate) fn send(&mut self, window: Window, frames: &SendFrames<'_>) -> u32 {
        let mut taken = 0;
        for frame in frames.iter() {
            if !self.fits(&frame) {
                break;
            }
            self.add(&frame);
            taken += 1;
        }
        if taken > 0 {
            publish();
            window.write32(TDT, self.slot(self.used));
        }
        taken
    }

    /// Counts the oldest frames whose last descriptor is done.
    pub(crate) fn reap(&mut self) -> u32 {
        let mut finished = 0;
        while self.is_oldest_done() {
            observe();
            let first = self.slot(self.freed);
            let last = u32::from(self.last.load(first));
            let length = self.slot(last.wrapping_sub(first)) + 1;
            self.freed = self.freed.wrapping_add(length);
            finished += 1;
        }
        self.interrupt.count(finished);
        finished
    }

    fn is_oldest_done(&self) -> bool {
        if self.used == self.freed {
            return false;
        }
        let last = u32::from(self.last.load(self.freed));
        self.descriptors.load(2 * last + 1) & DONE != 0
    }

    /// A counter's place in the ring.
    fn slot(&self, counter: u32) -> u32 {
        counter & (self.memory.entries() - 1)
    }

    /// Whether there is room for the frame. One descriptor always stays unused: a full ring would
    /// look like an empty one.
    fn fits(&self, frame: &SendFrame<'_>) -> bool {
        let segments = frame.segments();
        let pieces = segments
            .iter()
            .fold(0u32, |sum, segment| sum.saturating_add(segment.length.div_ceil(PIECE_MAX)));
        let room = (self.memory.entries() - 1) - self.used.wrapping_sub(self.freed);
        !segments.is_empty()
            && frame.describe().length <= FRAME_MAX
            && pieces.saturating_add(2) <= room.min(FRAME_DESCRIPTORS_MAX)
    }

    /// Puts one frame, for which there is room, on the ring.
    fn add(&mut self, frame: &SendFrame<'_>) {
        let first = self.slot(self.used);
        let description = frame.describe();
        let context = Context::of(description);
        if let Some(context) = context.filter(|_| context != self.context) {
            let (low, high) = context.encode();
            self.push(low, high);
            self.context = Some(context);
        }
        let cut = description.flags & TX_TSO != 0;
        let mut command = DATA | INSERT_FCS;
        if description.flags & TX_VLAN != 0 {
            command |= INSERT_VLAN;
        }
        if cut {
            command |= SEGMENT;
        }
        let options = offload::options(description);
        let mut skip = 0;
        let mut last = self.used;
        if let Some(copy) = offload::headers(frame).filter(|_| cut) {
            skip = copy.length;
            for (index, word) in (0u32..).zip(copy.words()) {
                self.headers.store(first * (HEADERS_MAX as u32 / 8) + index, word);
            }
            let offset = self.headers_offset + first as usize * HEADERS_MAX;
            last = self.used;
            self.push(self.memory.device_address(offset), command | options | u64::from(skip));
        }
        for segment in frame.segments() {
            let skipped = skip.min(segment.length);
            skip -= skipped;
            let mut address = segment.address.wrapping_add(skipped.into());
            let mut rest = segment.length - skipped;
            while rest > 0 {
                let piece = rest.min(PIECE_MAX);
                last = self.used;
                self.push(address, command | options | u64::from(piece));
                address = address.wrapping_add(piece.into());
                rest -= piece;
            }
        }
        let last = self.slot(last);
        let word = self.descriptors.load(2 * last + 1);
        self.descriptors.store(2 * last + 1, word | LAST);
        self.last.store(first, last as u16);
    }

    /// Writes the next descriptor.
    fn push(&mut self, low: u64, high: u64) {
        let slot = self.slot(self.used);
        self.descriptors.store(2 * slot, low);
        self.descriptors.store(2 * slot + 1, high);
        self.used = self.used.wrapping_add(1);
    }
}

/// Stops the queue.
pub(crate) fn stop(window: Window) -> Result<(), Error> {
    if window.read32(TXDCTL) == GONE {
        return Err(Error::Device);
    }
    window.write32(TXDCTL, 0);
    if window.wait32(TXDCTL, QUEUE_ENABLE, 0, ATTEMPTS) { Ok(()) } else { Err(Error::Device) }
}
