//! Frames from the guest's transmit ring to the backend.

use std::io;
use std::num::Wrapping;
use std::os::fd::RawFd;

use super::header::{HEADER_LEN, LONGEST, SHORTEST};
use crate::virtio::iovec::{GuestVectors, MAX_PIECES};
use crate::virtio::path::LiveCounters;
use crate::virtio::queue::{Chain, DeviceQueue, QueueError, QueuePosition};

/// Frames sent before other work of the device gets its turn.
const BUDGET: u32 = 64;

/// How a round of sending ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The guest has no more frames; it rings the doorbell for the next.
    Empty,
    /// The backend takes no more now and says when it does.
    BackendFull,
    /// The budget is used up.
    Budget,
}

/// The transmit queue.
pub(super) struct TransmitQueue {
    queue: DeviceQueue,
    vectors: GuestVectors,
    popped: Chain,
}

impl TransmitQueue {
    pub(super) fn new(queue: DeviceQueue) -> Self {
        Self { vectors: GuestVectors::new(queue.memory().clone()), queue, popped: Chain::new() }
    }

    /// Gives up the queue.
    pub(super) fn stop(self) -> QueuePosition {
        self.queue.stand()
    }

    /// Where the ring is now and how many chains wait in it.
    pub(super) fn backlog(&self) -> Result<(Wrapping<u16>, u16), QueueError> {
        Ok((Wrapping(self.queue.position()), self.queue.available()?))
    }

    /// Position in the ring of the next frame.
    pub(super) fn position(&self) -> Wrapping<u16> {
        Wrapping(self.queue.position())
    }

    /// Sends until the ring is empty, the backend full or the budget spent, and interrupts the
    /// guest once.
    pub(super) fn run(
        &mut self,
        backend: RawFd,
        counters: &LiveCounters,
    ) -> Result<Sent, QueueError> {
        self.queue.suppress_kicks()?;
        let outcome = self.send(backend, counters)?;
        self.queue.signal_used()?;
        Ok(outcome)
    }

    fn send(&mut self, backend: RawFd, counters: &LiveCounters) -> Result<Sent, QueueError> {
        for _ in 0..BUDGET {
            if !self.queue.pop(&mut self.popped)? {
                if self.queue.request_kicks()? {
                    self.queue.suppress_kicks()?;
                    continue;
                }
                return Ok(Sent::Empty);
            }
            if !self.send_popped(backend, counters)? {
                self.queue.unpop(1);
                return Ok(Sent::BackendFull);
            }
            self.queue.push_used(&[(self.popped.head, 0)])?;
        }
        Ok(Sent::Budget)
    }

    /// Sends the popped chain; `false` when the backend has no room for it.
    fn send_popped(&mut self, backend: RawFd, counters: &LiveCounters) -> Result<bool, QueueError> {
        let head = self.popped.head;
        self.vectors.clear();
        for buffer in &self.popped.buffers {
            if buffer.writable {
                return Err(QueueError::WrongDirection { head });
            }
            self.vectors
                .push(buffer)
                .map_err(|address| QueueError::OutsideMemory { head, address: address.0 })?;
        }
        let len = self.popped.len();
        if !(SHORTEST..=LONGEST).contains(&len) || self.vectors.len() > MAX_PIECES {
            LiveCounters::add(&counters.sent_dropped, 1);
            return Ok(true);
        }
        loop {
            match self.vectors.write_to(backend, MAX_PIECES) {
                Ok(_) => {
                    LiveCounters::add(&counters.sent, 1);
                    LiveCounters::add(&counters.sent_bytes, len - HEADER_LEN as u64);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => {
                    // A header that the host refuses, or an interface that is down: the frame
                    // is lost, as it would be on a wire.
                    tracing::debug!(%error, "the backend refused a frame");
                    LiveCounters::add(&counters.sent_dropped, 1);
                    return Ok(true);
                }
            }
        }
    }
}
