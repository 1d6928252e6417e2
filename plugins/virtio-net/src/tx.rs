//! Transmit: a chain of the frame header, kept in the queue's memory, and the frame's segments.
//! Descriptors are used in order, as a ring, and freed in order, whatever order the device
//! finishes in.

use npa_abi::net::{TX_SEGMENTS_MAX, TX_VLAN};
use npa_plugin_sdk::net::{Armed, SendFrame, SendFrames};
use npa_plugin_sdk::{Error, Memory, Ring, Window};

use crate::frame_header::{FrameHeader, HEADER_LENGTH};
use crate::info::VirtioInfo;
use crate::layout::QueueLayout;
use crate::queue::{F_NEXT, Queue};

/// Bytes of queue memory per descriptor for a frame's header and VLAN tag.
const HEADER_STRIDE: usize = 16;

/// Bytes of the two MAC addresses, behind which a VLAN tag goes.
const MACS_LENGTH: u32 = 12;

/// Bytes of a VLAN tag.
const TAG_LENGTH: u32 = 4;

/// Tag protocol identifier of a VLAN tag (IEEE 802.1Q), as its bytes stand in the frame.
const TAG_PROTOCOL: [u8; 2] = [0x81, 0x00];

/// Most descriptors of a chain: the header, the segments, and for a VLAN tag itself and the cut
/// segment's second part.
const CHAIN_MAX: u32 = 1 + TX_SEGMENTS_MAX as u32 + 2;

/// Flag beside a chain's length: the device has finished it.
const DONE: u16 = 1 << 15;

/// A transmit queue.
#[derive(Debug)]
pub struct Transmit {
    queue: Queue,
    /// Offset of the headers in the queue's memory.
    headers_offset: usize,
    /// By chain head: header and tag, 16 bytes.
    headers: Ring<u64>,
    /// By chain head: its length while it is outstanding, and [`DONE`]; else 0.
    chains: Ring<u16>,
    /// Next descriptor to use.
    next: u32,
    /// Head of the oldest outstanding chain.
    oldest: u32,
    /// Descriptors not in use.
    free: u32,
    /// Chains outstanding.
    frames: u32,
}

impl Transmit {
    /// Lays the queue out in `memory`.
    pub(crate) fn new(info: &VirtioInfo, index: u32, memory: Memory) -> Result<Self, Error> {
        let count = memory.entries() as usize;
        if memory.entries() < CHAIN_MAX {
            return Err(Error::Config);
        }
        let books = QueueLayout::new(memory.entries()).books as usize;
        let mut transmit = Self {
            queue: Queue::new(info, index, memory)?,
            headers_offset: books,
            headers: memory.ring(books, 2 * count).ok_or(Error::Config)?,
            chains: memory.ring(books + HEADER_STRIDE * count, count).ok_or(Error::Config)?,
            next: 0,
            oldest: 0,
            free: 0,
            frames: 0,
        };
        transmit.reset();
        Ok(transmit)
    }

    /// Empties the queue; frames in it are forgotten.
    pub(crate) fn reset(&mut self) {
        self.queue.reset();
        (self.next, self.oldest, self.frames) = (0, 0, 0);
        self.free = self.queue.entries();
    }

    /// Asks for an interrupt when three quarters of what is outstanding are done: completions
    /// only free memory, and are looked for at every send as well.
    pub(crate) fn arm(&mut self) -> Armed {
        let more = self.frames.saturating_sub(1) * 3 / 4;
        if self.queue.arm(more as u16) { Armed::WorkWaits } else { Armed::Idle }
    }

    pub(crate) fn disarm(&mut self) {
        self.queue.disarm();
    }

    /// Puts frames on the queue until one does not fit.
    pub(crate) fn send(&mut self, window: Window, frames: &SendFrames<'_>) -> u32 {
        let mut taken = 0;
        for frame in frames.iter() {
            // A chain's length is known only when it is built; the worst case keeps it simple.
            let most = frame.segments().len() as u32 + CHAIN_MAX - TX_SEGMENTS_MAX as u32;
            if self.free < most || frame.segments().is_empty() {
                break;
            }
            self.add(&frame);
            taken += 1;
        }
        self.queue.announce(window);
        taken
    }

    /// Puts one frame, for which there is room, on the queue.
    fn add(&mut self, frame: &SendFrame<'_>) {
        let entries = self.queue.entries();
        let head = self.next;
        let tagged = frame.describe().flags & TX_VLAN != 0;
        let inserted = if tagged { TAG_LENGTH } else { 0 };
        let (first, second) = FrameHeader::for_sending(frame.describe(), inserted as u16).encode();
        let [high, low] = frame.describe().vlan_tag.to_be_bytes();
        let [protocol_0, protocol_1] = TAG_PROTOCOL;
        let tag = u32::from_le_bytes([protocol_0, protocol_1, high, low]);
        self.headers.store(2 * head, first);
        self.headers.store(2 * head + 1, u64::from(second) | u64::from(tag) << 32);
        let header = self.queue.device_address(self.headers_offset + head as usize * HEADER_STRIDE);

        let mut chain =
            Chain { queue: &self.queue, mask: entries - 1, head, length: 0, last: None };
        chain.push(header, HEADER_LENGTH);
        let mut before_tag = if tagged { MACS_LENGTH } else { 0 };
        for segment in frame.segments() {
            let cut = segment.length.min(before_tag);
            if cut > 0 {
                chain.push(segment.address, cut);
                before_tag -= cut;
                if before_tag == 0 {
                    chain.push(header.wrapping_add(HEADER_LENGTH.into()), TAG_LENGTH);
                }
            }
            if segment.length > cut {
                chain.push(segment.address.wrapping_add(cut.into()), segment.length - cut);
            }
        }
        let length = chain.finish();
        self.chains.store(head, length as u16);
        self.next = head.wrapping_add(length) & (entries - 1);
        self.free -= length;
        self.frames += 1;
        self.queue.offer(head);
    }

    /// Frees what is finished, in order. An id that names no outstanding chain is ignored.
    pub(crate) fn reap(&mut self) -> u32 {
        let waiting = self.queue.waiting();
        for ahead in 0..waiting {
            let id = self.queue.look(ahead).id;
            let chain = self.chains.load(id);
            if id < self.queue.entries() && chain != 0 {
                self.chains.store(id, chain | DONE);
            }
        }
        self.queue.take(waiting);
        let mut finished = 0;
        while self.frames > 0 {
            let chain = self.chains.load(self.oldest);
            if chain & DONE == 0 {
                break;
            }
            let length = u32::from(chain & !DONE);
            self.chains.store(self.oldest, 0);
            self.oldest = self.oldest.wrapping_add(length) & (self.queue.entries() - 1);
            self.free += length;
            self.frames -= 1;
            finished += 1;
        }
        finished
    }
}

/// A chain while it is built: a descriptor is written once it is known whether another follows.
struct Chain<'a> {
    queue: &'a Queue,
    mask: u32,
    head: u32,
    length: u32,
    last: Option<(u64, u32)>,
}

impl Chain<'_> {
    fn place(&self) -> u32 {
        self.head.wrapping_add(self.length) & self.mask
    }

    fn push(&mut self, address: u64, length: u32) {
        if let Some((address, length)) = self.last.replace((address, length)) {
            let place = self.place();
            self.queue.describe(place, address, length, F_NEXT, (place + 1) & self.mask);
            self.length += 1;
        }
    }

    /// Writes the last descriptor and answers the chain's length.
    fn finish(mut self) -> u32 {
        if let Some((address, length)) = self.last.take() {
            self.queue.describe(self.place(), address, length, 0, 0);
            self.length += 1;
        }
        self.length
    }
}
