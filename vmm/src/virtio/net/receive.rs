//! Frames from the backend into the guest's receive ring.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use super::header::{HEADER_LEN, NUM_BUFFERS};
use super::intake::Pending;
use crate::virtio::arrivals::Intake;
use crate::virtio::iovec::GuestVectors;
use crate::virtio::path::{LiveCounters, PathMode};
use crate::virtio::queue::{Chain, DeviceQueue, QueueError, QueuePosition};

/// Frames read before other work of the device gets its turn.
/// Few enough that the guest hears of the first soon.
const BUDGET: u32 = 64;

/// How a round of receiving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The backend holds no more frames.
    Empty,
    /// The guest's ring has no room; the guest rings the doorbell when it has.
    RingFull,
    /// The budget is used up.
    Budget,
}

/// The receive queue with the buffers that were taken from it in advance.
pub(super) struct ReceiveQueue {
    queue: DeviceQueue,
    vectors: GuestVectors,
    chains: VecDeque<Held>,
    /// Bytes in `chains`.
    held: u64,
    mergeable: bool,
    /// Room in bytes that the longest frame needs.
    longest: u64,
    popped: Chain,
    used: Vec<(u16, u32)>,
    /// The guest was asked to ring the doorbell for buffers, as it is at the start.
    kicks_wanted: bool,
    frames_read: u64,
}

/// A chain popped and not used yet.
struct Held {
    head: u16,
    len: u32,
    pieces: usize,
}

impl ReceiveQueue {
    /// Takes over `queue`, into which frames of up to `longest` bytes (header included) come.
    pub(super) fn new(queue: DeviceQueue, mergeable: bool, longest: u64) -> Self {
        Self {
            vectors: GuestVectors::new(queue.memory().clone()),
            queue,
            chains: VecDeque::new(),
            held: 0,
            mergeable,
            longest,
            popped: Chain::new(),
            used: Vec::new(),
            kicks_wanted: true,
            frames_read: 0,
        }
    }

    /// Gives up the queue; the buffers that were taken in advance go back to it.
    pub(super) fn stop(mut self) -> QueuePosition {
        // As many chains as the ring has entries at most.
        self.queue.unpop(self.chains.len() as u16);
        self.queue.stand()
    }

    /// Frames read from the backend so far, delivered or not.
    pub(super) fn frames_read(&self) -> u64 {
        self.frames_read
    }

    /// Moves frames, those of `pending` before the backend's, until there are none, the ring is
    /// full or the budget is spent, and interrupts the guest once.
    pub(super) fn run(
        &mut self,
        backend: RawFd,
        pending: &mut Pending,
        mode: PathMode,
        counters: &LiveCounters,
    ) -> Result<Received, QueueError> {
        let outcome = self.receive(backend, pending, mode, counters)?;
        self.queue.signal_used()?;
        Ok(outcome)
    }

    fn receive(
        &mut self,
        backend: RawFd,
        pending: &mut Pending,
        mode: PathMode,
        counters: &LiveCounters,
    ) -> Result<Received, QueueError> {
        for _ in 0..BUDGET {
            if pending.front().is_none() && pending.intake != Intake::Open {
                return Ok(Received::Empty);
            }
            if !self.fill()? {
                return Ok(Received::RingFull);
            }
            let (pieces, room) = self.room_for_one_frame();
            let read = match pending.front() {
                Some(frame) => {
                    let len = (frame.len() as u64).min(room) as usize;
                    let copied = self.vectors.copy_in(0, &frame[..len]);
                    pending.pop();
                    copied.map_err(|address| self.outside(address.0))?;
                    Ok(len)
                }
                None => self.vectors.read_from(backend, pieces),
            };
            match read {
                Ok(len) => {
                    self.frames_read += 1;
                    let truncated = len as u64 == room && room < self.longest;
                    if len < HEADER_LEN || truncated || self.is_discarded(len, mode)? {
                        LiveCounters::add(&counters.received_dropped, 1);
                    } else {
                        self.deliver(len, counters)?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Received::Empty);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // The interface is down or gone; its return is a new event.
                    tracing::debug!(%error, "cannot read frames from the backend");
                    return Ok(Received::Empty);
                }
            }
        }
        Ok(Received::Budget)
    }

    /// Takes buffers from the ring until the longest frame fits, or the guest has no more to
    /// give. Without mergeable buffers that is one chain, as long as the guest thought enough.
    /// `false` when there is nothing to receive into.
    fn fill(&mut self) -> Result<bool, QueueError> {
        loop {
            let enough = match self.mergeable {
                true => self.held >= self.longest || self.chains.len() >= self.ring_size(),
                false => !self.chains.is_empty(),
            };
            if enough {
                if std::mem::take(&mut self.kicks_wanted) {
                    self.queue.suppress_kicks()?;
                }
                return Ok(true);
            }
            if self.queue.pop(&mut self.popped)? {
                self.hold()?;
                continue;
            }
            self.kicks_wanted = true;
            if !self.queue.request_kicks()? {
                return Ok(false);
            }
        }
    }

    fn ring_size(&self) -> usize {
        usize::from(self.queue.size())
    }

    /// Checks the popped chain and keeps it for a frame.
    fn hold(&mut self) -> Result<(), QueueError> {
        let head = self.popped.head;
        let mut pieces = 0;
        for buffer in &self.popped.buffers {
            if !buffer.writable {
                return Err(QueueError::WrongDirection { head });
            }
            pieces += self
                .vectors
                .push(buffer)
                .map_err(|address| QueueError::OutsideMemory { head, address: address.0 })?;
        }
        // The queue refuses chains of 4 GiB and more.
        let len = self.popped.len() as u32;
        self.held += u64::from(len);
        self.chains.push_back(Held { head, len, pieces });
        Ok(())
    }

    /// Pieces and bytes to offer to the backend for the next frame.
    fn room_for_one_frame(&self) -> (usize, u64) {
        let (mut pieces, mut bytes) = (0, 0);
        for chain in &self.chains {
            pieces += chain.pieces;
            bytes += u64::from(chain.len);
            if !self.mergeable || bytes >= self.longest {
                break;
            }
        }
        (pieces, bytes)
    }

    /// Gives the guest the frame of `len` bytes (header included) that lies in the first buffers.
    fn deliver(&mut self, len: usize, counters: &LiveCounters) -> Result<(), QueueError> {
        self.used.clear();
        let mut pieces = 0;
        let mut left = len as u64;
        for chain in &self.chains {
            let part = left.min(u64::from(chain.len)) as u32;
            self.used.push((chain.head, part));
            pieces += chain.pieces;
            left -= u64::from(part);
            if left == 0 {
                break;
            }
        }
        // At most as many chains as the ring has entries, and those are 16 bits.
        let buffers = self.used.len() as u16;
        self.copy_header(buffers)?;
        self.queue.push_used(&self.used)?;
        self.vectors.consume(pieces);
        for chain in self.chains.drain(..usize::from(buffers)) {
            self.held -= u64::from(chain.len);
        }
        LiveCounters::add(&counters.received, 1);
        LiveCounters::add(&counters.received_bytes, (len - HEADER_LEN) as u64);
        Ok(())
    }

    /// Whether the frame in the first buffers is a group's, while another path delivers those.
    /// The buffers then stay for the next frame.
    fn is_discarded(&self, len: usize, mode: PathMode) -> Result<bool, QueueError> {
        if mode == PathMode::Serving || len == HEADER_LEN {
            return Ok(false);
        }
        let mut byte = [0];
        self.vectors.copy_out(HEADER_LEN, &mut byte).map_err(|address| self.outside(address.0))?;
        Ok(byte[0] & 1 != 0)
    }

    fn copy_header(&self, buffers: u16) -> Result<(), QueueError> {
        self.vectors
            .copy_in(NUM_BUFFERS, &buffers.to_le_bytes())
            .map_err(|address| self.outside(address.0))
    }

    fn outside(&self, address: u64) -> QueueError {
        let head = self.chains.front().map_or(0, |chain| chain.head);
        QueueError::OutsideMemory { head, address }
    }
}
