//! Receive: one 2 KiB buffer per descriptor, a frame over as many as it needs, done bits polled
//! in memory.

use npa_abi::net::{
    RX_CSUM_CORRECT, RX_CSUM_INCORRECT, RX_CSUM_UNKNOWN, RX_HASH, RX_SEGMENTS_MAX, RX_VLAN,
    RxFrame, RxSegment,
};
use npa_plugin_sdk::memory::{observe, publish};
use npa_plugin_sdk::net::{Armed, RxSink, RxSource, plain};
use npa_plugin_sdk::{Error, Memory, Ring, Window};

use crate::interrupt::{Interrupt, LONGEST_RX};
use crate::register::{
    ATTEMPTS, GONE, QUEUE_ENABLE, RDBAH, RDBAL, RDH, RDLEN, RDT, RX_ONE_BUFFER, RX_THRESHOLDS,
    RX_VECTOR, RXDCTL, SRRCTL,
};

/// Write-back status: the descriptor is done.
const DONE: u64 = 1 << 0;
/// Write-back status: the frame ends here.
const END_OF_FRAME: u64 = 1 << 1;
/// Write-back status: checksums were not looked at.
const IGNORE_CHECKSUM: u64 = 1 << 2;
/// Write-back status: a VLAN tag was taken off.
const VLAN: u64 = 1 << 3;
/// Write-back status: a UDP or TCP checksum was looked at.
const L4_CHECKED: u64 = 1 << 4 | 1 << 5;
/// Write-back error: the frame is damaged (CRC, symbol, sequence, carrier extension, other).
const DAMAGED: u64 = 0x9700_0000;
/// Write-back error: the layer 4 or the IP checksum is wrong.
const CHECKSUM_WRONG: u64 = 1 << 29 | 1 << 30;

/// Bytes of the two MAC addresses at the start of a frame.
const MACS_LENGTH: usize = 12;

/// A receive queue.
#[derive(Debug)]
pub struct Receive {
    memory: Memory,
    /// Two words per descriptor.
    descriptors: Ring<u64>,
    buffer_length: u32,
    interrupt: Interrupt,
    /// Descriptors given to the device so far, modulo 2^32.
    filled: u32,
    /// Descriptors taken back so far, modulo 2^32.
    taken: u32,
    /// Pieces of the frame whose end has not come yet.
    pieces: [RxSegment; RX_SEGMENTS_MAX],
    pieces_count: usize,
    /// Length of these pieces in bytes.
    length: u32,
    /// The frame has more pieces than a frame can have, or a damaged one.
    broken: bool,
}

impl Receive {
    /// Lays the ring out in `memory`.
    pub(crate) fn new(memory: Memory, buffer_length: u32) -> Result<Self, Error> {
        // The device counts buffers in KiB, and has seven bits for them.
        if !(1 << 10..=127 << 10).contains(&buffer_length) {
            return Err(Error::Config);
        }
        let words = 2 * memory.entries() as usize;
        Ok(Self {
            memory,
            descriptors: memory.ring(0, words).ok_or(Error::Config)?,
            buffer_length: buffer_length & !0x3ff,
            interrupt: Interrupt::new(RX_VECTOR, LONGEST_RX),
            filled: 0,
            taken: 0,
            pieces: [RxSegment::default(); RX_SEGMENTS_MAX],
            pieces_count: 0,
            length: 0,
            broken: false,
        })
    }

    /// Empties the ring and starts the queue.
    pub(crate) fn reinit(&mut self, window: Window) -> Result<(), Error> {
        stop(window)?;
        self.memory.zero();
        (self.filled, self.taken) = (0, 0);
        self.start_frame();
        let base = self.memory.device_address(0);
        window.write32(RDLEN, self.memory.entries() * 16);
        window.write32(RDBAL, base as u32);
        window.write32(RDBAH, (base >> 32) as u32);
        window.write32(SRRCTL, RX_ONE_BUFFER | self.buffer_length >> 10);
        window.write32(RDH, 0);
        window.write32(RDT, 0);
        self.interrupt.reset(window);
        window.write32(RXDCTL, QUEUE_ENABLE | RX_THRESHOLDS);
        if window.wait32(RXDCTL, QUEUE_ENABLE, QUEUE_ENABLE, ATTEMPTS) {
            Ok(())
        } else {
            Err(Error::Device)
        }
    }

    pub(crate) fn arm(&mut self, window: Window) -> Armed {
        self.interrupt.arm(window);
        if self.filled != self.taken && self.status() & DONE != 0 {
            self.interrupt.busy();
            return Armed::WorkWaits;
        }
        Armed::Idle
    }

    pub(crate) fn disarm(&mut self, window: Window) {
        self.interrupt.disarm(window);
    }

    /// Fills up to `count` empty slots. One always stays empty: a full ring would look like an
    /// empty one.
    pub(crate) fn refill(&mut self, window: Window, count: u32, source: &mut RxSource<'_>) -> u32 {
        let entries = self.memory.entries();
        let room = (entries - 1).saturating_sub(self.filled.wrapping_sub(self.taken));
        let mut added = 0;
        while added < count.min(room) {
            let slot = self.filled & (entries - 1);
            let Some(address) = source.take(slot) else { break };
            self.descriptors.store(2 * slot + 1, 0);
            self.descriptors.store(2 * slot, address);
            self.filled = self.filled.wrapping_add(1);
            added += 1;
        }
        if added > 0 {
            publish();
            window.write32(RDT, self.filled & (entries - 1));
        }
        added
    }

    /// Hands over the frames that have come; those that `own` sent itself are discarded: the
    /// device hands a sender its own broadcasts.
    pub(crate) fn receive(
        &mut self,
        window: Window,
        budget: u32,
        own: [u8; 6],
        sink: &mut RxSink<'_>,
    ) {
        let (descriptors, taken) = (self.descriptors, self.taken);
        let given = self.filled.wrapping_sub(taken);
        self.interrupt.look(|frames| {
            let last = taken.wrapping_add(frames - 1) & (self.memory.entries() - 1);
            frames <= given && descriptors.load(2 * last + 1) & DONE != 0
        });
        while sink.indicated() < budget && self.filled != self.taken {
            let status = self.status();
            if status & DONE == 0 {
                break;
            }
            observe();
            let slot = self.taken & (self.memory.entries() - 1);
            let kind = self.descriptors.load(2 * slot);
            self.taken = self.taken.wrapping_add(1);
            self.piece(slot, status, kind, own, sink);
        }
        if sink.indicated() >= budget && budget > 0 {
            self.interrupt.crowded(window);
        }
    }

    /// Second word of the oldest descriptor: status and errors, length, VLAN tag.
    fn status(&self) -> u64 {
        self.descriptors.load((self.taken & (self.memory.entries() - 1)) * 2 + 1)
    }

    /// Takes one piece, and hands the frame over if it ends with it.
    fn piece(&mut self, slot: u32, status: u64, kind: u64, own: [u8; 6], sink: &mut RxSink<'_>) {
        let length = (status >> 32) as u32 & 0xffff;
        match self.pieces.get_mut(self.pieces_count) {
            Some(piece) if !self.broken && length <= self.buffer_length => {
                *piece = RxSegment { slot, offset: 0, length };
                self.pieces_count += 1;
                self.length += length;
            }
            _ => {
                self.give_up_frame(sink);
                sink.damaged(slot);
            }
        }
        if status & END_OF_FRAME == 0 {
            return;
        }
        if status & DAMAGED != 0 || self.length == 0 {
            self.give_up_frame(sink);
        }
        let pieces = self.pieces.get(..self.pieces_count).unwrap_or_default();
        if let Some(first) = pieces.first() {
            if is_from(own, sink.peek(first.slot)) {
                sink.discard(self.length, pieces);
            } else {
                sink.indicate(describe(self.length, status, kind), pieces);
            }
        }
        self.start_frame();
    }

    /// Gives the pieces back, and whatever else belongs to the frame as it comes.
    fn give_up_frame(&mut self, sink: &mut RxSink<'_>) {
        for piece in self.pieces.get(..self.pieces_count).unwrap_or_default() {
            sink.damaged(piece.slot);
        }
        self.pieces_count = 0;
        self.broken = true;
    }

    fn start_frame(&mut self) {
        (self.pieces_count, self.length, self.broken) = (0, 0, false);
    }
}

/// Stops the queue.
pub(crate) fn stop(window: Window) -> Result<(), Error> {
    if window.read32(RXDCTL) == GONE {
        return Err(Error::Device);
    }
    window.write32(RXDCTL, 0);
    if window.wait32(RXDCTL, QUEUE_ENABLE, 0, ATTEMPTS) { Ok(()) } else { Err(Error::Device) }
}

/// Whether a frame that begins with `macs` was sent by `own`.
fn is_from(own: [u8; 6], macs: Option<[u8; MACS_LENGTH]>) -> bool {
    macs.is_some_and(|[_, _, _, _, _, _, source @ ..]| source == own && own != [0; 6])
}

/// What the last descriptor's write-back says of a frame of `length` bytes.
fn describe(length: u32, status: u64, kind: u64) -> RxFrame {
    let mut frame = plain(length, 0);
    frame.checksum = if status & CHECKSUM_WRONG != 0 {
        RX_CSUM_INCORRECT
    } else if status & IGNORE_CHECKSUM == 0 && status & L4_CHECKED != 0 {
        RX_CSUM_CORRECT
    } else {
        RX_CSUM_UNKNOWN
    };
    if status & VLAN != 0 {
        frame.flags |= RX_VLAN;
        frame.vlan_tag = (status >> 48) as u16;
    }
    // The low four bits are the kind of hash; 0 is none.
    if kind & 0xf != 0 {
        frame.flags |= RX_HASH;
        frame.hash = (kind >> 32) as u32;
    }
    frame
}
