//! The control queue (VIRTIO 1.2, section 5.1.6.5): commands of the driver, a chain each, answered
//! with one byte. Knows the form of commands; what they do is the card's business.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, VIRTIO_NET_ERR, VIRTIO_NET_OK,
};

use crate::virtio::iovec::GuestVectors;
use crate::virtio::queue::{Buffer, Chain, DeviceQueue, QueueError, QueuePosition};
use crate::virtio::worker::Progress;

/// Entries of the queue; drivers have one command under way at a time.
pub(super) const QUEUE_SIZE: u16 = 64;

/// Commands carried out before other work of the device gets its turn.
const BUDGET: u32 = 16;

/// Bytes before a command's data: its class and its number within the class.
const HEAD: u64 = 2;

/// What the driver wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// It has announced itself (section 5.1.6.5.4).
    AnnounceAck,
    /// Something that was not offered.
    Unknown {
        /// Its class.
        class: u8,
        /// Its number in the class.
        number: u8,
    },
}

impl Command {
    fn decode([class, number]: [u8; 2]) -> Self {
        match (u32::from(class), u32::from(number)) {
            (VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK) => Self::AnnounceAck,
            _ => Self::Unknown { class, number },
        }
    }
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done.
    Done,
    /// It is not, and nothing has changed.
    Refused,
}

/// The queue in the hands of the card.
pub(super) struct ControlQueue {
    queue: DeviceQueue,
    readable: GuestVectors,
    writable: GuestVectors,
    popped: Chain,
}

impl ControlQueue {
    pub(super) fn new(queue: DeviceQueue) -> Self {
        let vectors = || GuestVectors::new(queue.memory().clone());
        Self { readable: vectors(), writable: vectors(), queue, popped: Chain::new() }
    }

    /// Gives up the queue.
    pub(super) fn stop(self) -> QueuePosition {
        self.queue.stand()
    }

    /// Has `execute` carry out what waits, as far as the budget goes, and interrupts the guest once.
    pub(super) fn run(
        &mut self,
        mut execute: impl FnMut(Command) -> Verdict,
    ) -> Result<Progress, QueueError> {
        let mut progress = Progress::More;
        for _ in 0..BUDGET {
            if !self.queue.pop(&mut self.popped)? {
                if self.queue.request_kicks()? {
                    continue;
                }
                progress = Progress::Idle;
                break;
            }
            self.carry_out(&mut execute)?;
        }
        self.queue.signal_used()?;
        Ok(progress)
    }

    fn carry_out(
        &mut self,
        execute: &mut impl FnMut(Command) -> Verdict,
    ) -> Result<(), QueueError> {
        let head = self.popped.head;
        let outside = |address: vm_memory::GuestAddress| QueueError::OutsideMemory {
            head,
            address: address.0,
        };
        self.readable.clear();
        self.writable.clear();
        for buffer in &self.popped.buffers {
            let Buffer { writable, .. } = *buffer;
            let list = if writable { &mut self.writable } else { &mut self.readable };
            list.push(buffer).map_err(outside)?;
        }
        if self.readable.bytes() < HEAD || self.writable.bytes() == 0 {
            return Err(QueueError::TooShort { head });
        }
        let mut bytes = [0; HEAD as usize];
        self.readable.copy_out(0, &mut bytes).map_err(outside)?;
        let answer = match execute(Command::decode(bytes)) {
            Verdict::Done => VIRTIO_NET_OK,
            Verdict::Refused => VIRTIO_NET_ERR,
        };
        self.writable.copy_in(0, &[answer as u8]).map_err(outside)?;
        self.queue.push_used(&[(head, 1)])
    }
}
