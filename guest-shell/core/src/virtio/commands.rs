//! The control queue of a network device (virtio 1.2, 5.1.6.5): one command at a time, whose answer
//! is waited for. Control side.
#![allow(unsafe_code)] // The ring is DMA memory, reached through raw pointers.

use super::{QueuePlace, VirtioDevice, VirtioError};
use crate::os::{DmaMemory, Os};
use core::sync::atomic::{AtomicU8, AtomicU16, Ordering, fence};
use npa_abi::PAGE_SIZE;

/// Entries of the ring; a command takes two.
const ENTRIES: u16 = 4;
/// The queue raises no interrupt (virtio 1.2, 4.1.5.1.2).
const NO_VECTOR: u16 = 0xffff;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT` (virtio 1.2, 2.7.6).
const NO_INTERRUPT: u16 = 1;

// Where things are in the page: the ring's parts (virtio 1.2, 2.7), a command, its answer.
const DESCRIPTORS: usize = 0;
const DRIVER: usize = 0x100;
const DEVICE: usize = 0x200;
const COMMAND: usize = 0x400;
const ANSWER: usize = 0x800;

// Descriptor flags (virtio 1.2, 2.7.5).
const F_NEXT: u16 = 1;
const F_WRITE: u16 = 2;

/// `VIRTIO_NET_OK`.
const OK: u8 = 0;
/// What an answer is before the device has written one.
const NO_ANSWER: u8 = 0xff;

/// How long a device may take, in milliseconds. It answers at once, unless its host is overloaded.
const ANSWER_MS: u32 = 100;

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The device does not answer, and is asked no more.
    Silent,
    /// The device refused.
    Refused,
}

impl CommandError {
    /// What happened, for the log.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Silent => "no answer",
            Self::Refused => "refused",
        }
    }
}

/// A device's control queue.
#[derive(Debug)]
pub struct Commands {
    memory: DmaMemory,
    queue: u16,
    /// Index of the next command, modulo 2^16.
    next: u16,
    /// The device did not answer: it may still write to the memory, so nothing new goes there. Or
    /// its owner has given it up.
    retired: bool,
}

// SAFETY: the page is plain memory that belongs to this value, which one context uses at a time.
unsafe impl Send for Commands {}

impl Commands {
    /// The control queue `queue`, not yet known to its device; `None` without memory.
    pub fn new(os: &impl Os, queue: u16) -> Option<Self> {
        let commands = Self { memory: os.dma_alloc(PAGE_SIZE)?, queue, next: 0, retired: false };
        let address = |offset: usize| commands.memory.device_address.saturating_add(offset as u64);
        let descriptors =
            [(address(COMMAND), 2u32, F_NEXT, 1u16), (address(ANSWER), 1, F_WRITE, 0)];
        for ((address, length, flags, next), at) in
            descriptors.into_iter().zip((DESCRIPTORS..).step_by(16))
        {
            let words = [length as u16, (length >> 16) as u16, flags, next];
            let address =
                [address, address >> 16, address >> 32, address >> 48].map(|part| part as u16);
            for (word, at) in address.into_iter().chain(words).zip((at..).step_by(2)) {
                commands.word(at).store(word.to_le(), Ordering::Relaxed);
            }
        }
        commands.word(DRIVER).store(NO_INTERRUPT.to_le(), Ordering::Relaxed);
        Some(commands)
    }

    /// Tells the device of it, before the device may work.
    ///
    /// # Errors
    /// [`VirtioError::NoQueue`], [`VirtioError::NoVector`]
    pub fn enable(&self, os: &impl Os, device: &VirtioDevice) -> Result<(), VirtioError> {
        let address = |offset: usize| self.memory.device_address.saturating_add(offset as u64);
        let place = QueuePlace {
            entries: ENTRIES,
            descriptors: address(DESCRIPTORS),
            driver: address(DRIVER),
            device: address(DEVICE),
            vector: NO_VECTOR,
        };
        device.enable_queue(os, self.queue, &place)
    }

    /// Has the device carry out command `number` of `class`, which has no data; sleeps.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn give(
        &mut self,
        os: &impl Os,
        device: &VirtioDevice,
        class: u8,
        number: u8,
    ) -> Result<(), CommandError> {
        let doorbell = device.doorbell(os, self.queue).map_err(|_| CommandError::Silent)?;
        if self.retired {
            return Err(CommandError::Silent);
        }
        self.byte(COMMAND).store(class, Ordering::Relaxed);
        self.byte(COMMAND + 1).store(number, Ordering::Relaxed);
        self.byte(ANSWER).store(NO_ANSWER, Ordering::Relaxed);
        // Every entry of the ring names descriptor 0, as zeroed memory does.
        self.next = self.next.wrapping_add(1);
        self.word(DRIVER + 2).store(self.next.to_le(), Ordering::Release);
        fence(Ordering::SeqCst);
        device.ring(os, doorbell, self.queue);
        for _ in 0..ANSWER_MS {
            if u16::from_le(self.word(DEVICE + 2).load(Ordering::Acquire)) == self.next {
                return match self.byte(ANSWER).load(Ordering::Relaxed) {
                    OK => Ok(()),
                    _ => Err(CommandError::Refused),
                };
            }
            os.sleep_ms(1);
        }
        self.retired = true;
        Err(CommandError::Silent)
    }

    /// Whether no command is given any more, as the device did not answer or its owner said so.
    pub const fn is_retired(&self) -> bool {
        self.retired
    }

    /// No command is given any more.
    pub const fn retire(&mut self) {
        self.retired = true;
    }

    /// Frees the memory; the device has been reset, or was never told of it.
    pub fn free(self, os: &impl Os) {
        os.dma_free(self.memory);
    }

    fn word(&self, offset: usize) -> &AtomicU16 {
        debug_assert!(offset < PAGE_SIZE && offset.is_multiple_of(2));
        // SAFETY: inside the page, which lives as long as `self`, and aligned; both sides use it
        // as atomic words.
        unsafe { AtomicU16::from_ptr(self.memory.base.as_ptr().wrapping_add(offset).cast()) }
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        debug_assert!(offset < PAGE_SIZE);
        // SAFETY: as above.
        unsafe { AtomicU8::from_ptr(self.memory.base.as_ptr().wrapping_add(offset)) }
    }
}
