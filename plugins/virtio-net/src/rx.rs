//! Receive: one descriptor per buffer; the frame header stands at the start of a frame's first
//! buffer.

use npa_abi::net::{RX_SEGMENTS_MAX, RxSegment};
use npa_plugin_sdk::net::{Armed, RxSink, RxSource};
use npa_plugin_sdk::{Error, Memory, Ring, Window};

use crate::frame_header::{FrameHeader, HEADER_LENGTH};
use crate::info::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_MRG_RXBUF, VirtioInfo,
};
use crate::layout::QueueLayout;
use crate::queue::{F_WRITE, Queue};

/// Longest frame without merging, with a VLAN tag, in bytes.
const FRAME_MAX: u32 = 1518;

/// Longest merged frame, in bytes: an IP packet, its Ethernet header and a VLAN tag.
const MERGED_MAX: u32 = 65_535 + 14 + 4;

/// A receive queue.
#[derive(Debug)]
pub struct Receive {
    queue: Queue,
    buffer_length: u32,
    /// Merged buffers were negotiated.
    mergeable: bool,
    /// Partial checksums and merged frames may come.
    partial: bool,
    /// Stack of empty slots; `empty` of them are valid.
    free: Ring<u16>,
    empty: u32,
    /// By slot: 1 while the device has it.
    posted: Ring<u16>,
}

impl Receive {
    /// Lays the queue out in `memory`.
    pub(crate) fn new(
        info: &VirtioInfo,
        index: u32,
        memory: Memory,
        buffer_length: u32,
    ) -> Result<Self, Error> {
        let merges = info.features() & (VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6) != 0;
        let mergeable = info.has(VIRTIO_NET_F_MRG_RXBUF);
        let frame = HEADER_LENGTH + if merges { MERGED_MAX } else { FRAME_MAX };
        let room = if mergeable {
            buffer_length.saturating_mul(RX_SEGMENTS_MAX as u32)
        } else {
            buffer_length
        };
        if buffer_length <= HEADER_LENGTH || room < frame {
            return Err(Error::Config);
        }
        let count = memory.entries() as usize;
        let books = QueueLayout::new(memory.entries()).books as usize;
        let mut receive = Self {
            queue: Queue::new(info, index, memory)?,
            buffer_length,
            mergeable,
            partial: info.has(VIRTIO_NET_F_GUEST_CSUM),
            free: memory.ring(books, count).ok_or(Error::Config)?,
            empty: 0,
            posted: memory.ring(books + 2 * count, count).ok_or(Error::Config)?,
        };
        receive.reset();
        Ok(receive)
    }

    /// Empties the queue; buffers in it are forgotten.
    pub(crate) fn reset(&mut self) {
        self.queue.reset();
        let entries = self.queue.entries();
        // Slots are taken from the top: lowest first.
        for place in 0..entries {
            self.free.store(place, (entries - 1 - place) as u16);
        }
        self.empty = entries;
    }

    pub(crate) fn arm(&mut self) -> Armed {
        if self.queue.arm(0) { Armed::WorkWaits } else { Armed::Idle }
    }

    pub(crate) fn disarm(&mut self) {
        self.queue.disarm();
    }

    /// Fills up to `count` empty slots.
    pub(crate) fn refill(&mut self, window: Window, count: u32, source: &mut RxSource<'_>) -> u32 {
        let mut filled = 0;
        while filled < count && self.empty > 0 {
            let slot = u32::from(self.free.load(self.empty - 1));
            let Some(address) = source.take(slot) else { break };
            self.empty -= 1;
            self.posted.store(slot, 1);
            self.queue.describe(slot, address, self.buffer_length, F_WRITE, 0);
            self.queue.offer(slot);
            filled += 1;
        }
        self.queue.announce(window);
        filled
    }

    /// Hands over what has come. A device that lies about ids or lengths costs frames, nothing
    /// else.
    pub(crate) fn receive(&mut self, budget: u32, sink: &mut RxSink<'_>) {
        let mut waiting = self.queue.waiting();
        let mut segments = [RxSegment::default(); RX_SEGMENTS_MAX];
        while sink.indicated() < budget && waiting > 0 {
            let Some(slot) = self.give_back(0) else {
                self.queue.take(1);
                waiting -= 1;
                continue;
            };
            let header = sink.peek(slot).map(FrameHeader::decode).unwrap_or_default();
            let buffers = if self.mergeable { header.buffers } else { 1 };
            if !(1..=RX_SEGMENTS_MAX as u16).contains(&buffers) {
                sink.damaged(slot);
                self.queue.take(1);
                waiting -= 1;
                continue;
            }
            if buffers > waiting {
                // The rest of the frame is still to come.
                self.take_over_again(slot);
                break;
            }
            self.frame(slot, &header, buffers, &mut segments, sink);
            self.queue.take(buffers);
            waiting -= buffers;
        }
    }

    /// Hands over the frame in the `buffers` oldest chains given back; the first is `slot`.
    /// `segments` is room to list them.
    fn frame(
        &mut self,
        slot: u32,
        header: &FrameHeader,
        buffers: u16,
        segments: &mut [RxSegment; RX_SEGMENTS_MAX],
        sink: &mut RxSink<'_>,
    ) {
        let mut length = 0u32;
        let mut count = 0;
        let mut whole = true;
        for (ahead, segment) in (0..buffers).zip(segments.iter_mut()) {
            let slot = if ahead == 0 { Some(slot) } else { self.give_back(ahead) };
            let offset = if ahead == 0 { HEADER_LENGTH } else { 0 };
            let used = self.queue.look(ahead).length;
            let Some(slot) = slot else {
                whole = false;
                break;
            };
            whole &= used > offset && used <= self.buffer_length;
            *segment = RxSegment { slot, offset, length: used.saturating_sub(offset) };
            length = length.saturating_add(segment.length);
            count += 1;
        }
        // A slot that the device made up ends the frame; the others of it still come back below.
        for ahead in count..buffers {
            if let (false, Some(slot)) = (whole, self.give_back(ahead)) {
                sink.damaged(slot);
            }
        }
        let segments = segments.get(..usize::from(count)).unwrap_or_default();
        let described = if whole { header.describe(length, self.partial) } else { None };
        match described {
            Some(frame) => sink.indicate(frame, segments),
            None => segments.iter().for_each(|segment| sink.damaged(segment.slot)),
        }
    }

    /// Takes the slot of the chain `ahead` of the oldest back from the device's hands; `None` when
    /// the device names one that it does not have.
    fn give_back(&mut self, ahead: u16) -> Option<u32> {
        let slot = self.queue.look(ahead).id;
        if slot >= self.queue.entries() || self.posted.load(slot) == 0 {
            return None;
        }
        self.posted.store(slot, 0);
        self.free.store(self.empty, slot as u16);
        self.empty += 1;
        Some(slot)
    }

    /// Undoes the last [`Receive::give_back`].
    fn take_over_again(&mut self, slot: u32) {
        self.empty -= 1;
        self.posted.store(slot, 1);
    }
}
