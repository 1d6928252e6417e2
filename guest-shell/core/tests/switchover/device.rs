//! A device's end of a split virtqueue, for the emulated NIC and the VF alike. Device addresses
//! are this process's addresses, so a write to freed memory is an AddressSanitizer report.
#![allow(unsafe_code, reason = "a device reads and writes guest memory by address")]

use crate::image::reinits;
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{Ordering, fence};

/// Bytes of the header before each frame.
const HEADER: usize = 12;
const F_NEXT: u16 = 1;
const F_WRITE: u16 = 2;

/// A virtqueue as the device sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceQueue {
    pub(crate) entries: u16,
    pub(crate) descriptors: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
    next: u16,
    used: u16,
    asleep_until: u32,
    /// An interrupt was raised and not looked at yet.
    pub(crate) interrupt: bool,
}

fn load<T: Copy>(address: u64) -> T {
    // SAFETY: the driver gave this address for the device to read, and it stays allocated until
    // the device is reset; that it does is part of what is tested.
    unsafe { (address as *const T).read_volatile() }
}

fn store<T>(address: u64, value: T) {
    // SAFETY: as above, for writing.
    unsafe { (address as *mut T).write_volatile(value) }
}

struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

impl DeviceQueue {
    /// Is reset: begins again from ring index 0 once `reinits` rings have been set up.
    pub(crate) fn restart(&mut self, reinits: u32) {
        (self.next, self.used, self.interrupt) = (0, 0, false);
        self.asleep_until = reinits;
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.entries != 0
    }

    pub(crate) fn has_work(&self) -> bool {
        let awake = self.asleep_until <= reinits();
        self.is_enabled() && awake && load::<u16>(self.driver + 2) != self.next
    }

    fn descriptor(&self, index: u16) -> Descriptor {
        let at = self.descriptors + 16 * u64::from(index % self.entries);
        Descriptor {
            address: load(at),
            length: load(at + 8),
            flags: load(at + 12),
            next: load(at + 14),
        }
    }

    fn pop(&mut self) -> Option<u16> {
        if !self.has_work() {
            return None;
        }
        fence(Ordering::SeqCst);
        let slot = u64::from(self.next % self.entries);
        self.next = self.next.wrapping_add(1);
        // Wants a doorbell for the next one.
        store(self.device + 4 + 8 * u64::from(self.entries), self.next);
        Some(load(self.driver + 4 + 2 * slot))
    }

    fn push_used(&mut self, id: u16, length: u32) {
        let at = self.device + 4 + 8 * u64::from(self.used % self.entries);
        store(at, u32::from(id));
        store(at + 4, length);
        fence(Ordering::SeqCst);
        self.used = self.used.wrapping_add(1);
        store(self.device + 2, self.used);
        fence(Ordering::SeqCst);
        let event: u16 = load(self.driver + 4 + 2 * u64::from(self.entries));
        if self.used.wrapping_sub(event).wrapping_sub(1) < 1 {
            self.interrupt = true;
        }
    }

    /// Sends one frame: takes it from the ring and completes it.
    pub(crate) fn take_frame(&mut self) -> Option<Vec<u8>> {
        let head = self.pop()?;
        let mut bytes = Vec::new();
        let mut index = head;
        loop {
            let part = self.descriptor(index);
            for offset in 0..u64::from(part.length) {
                bytes.push(load::<u8>(part.address + offset));
            }
            if part.flags & F_NEXT == 0 {
                break;
            }
            index = part.next;
        }
        self.push_used(head, 0);
        Some(bytes.split_off(HEADER))
    }

    /// Takes a command, which is two bytes, and answers it with `answer`.
    pub(crate) fn take_command(&mut self, answer: u8) -> Option<[u8; 2]> {
        let head = self.pop()?;
        let command = self.descriptor(head);
        assert_eq!((command.length, command.flags & F_NEXT), (2, F_NEXT));
        let place = self.descriptor(command.next);
        assert_eq!((place.length, place.flags), (1, F_WRITE));
        store(place.address, answer);
        self.push_used(head, 1);
        Some([load(command.address), load(command.address + 1)])
    }

    /// Receives: writes `frame` into the next buffer, whose address it answers.
    pub(crate) fn put_frame(&mut self, frame: &[u8]) -> Option<u64> {
        let head = self.pop()?;
        let buffer = self.descriptor(head);
        let mut header = [0u8; HEADER];
        header[10] = 1;
        assert!(frame.len() + HEADER <= buffer.length as usize);
        for (offset, byte) in header.iter().chain(frame).enumerate() {
            store(buffer.address + offset as u64, *byte);
        }
        self.push_used(head, (HEADER + frame.len()) as u32);
        Some(buffer.address)
    }
}

/// A NIC: two queues, and frames that wait for a receive buffer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nic {
    pub(crate) rx: DeviceQueue,
    pub(crate) tx: DeviceQueue,
    pub(crate) backlog: VecDeque<Vec<u8>>,
    /// Receive buffers that were written and that the shell has not marked since.
    pub(crate) unmarked: HashSet<u64>,
}

impl Nic {
    /// Puts up to `count` waiting frames into the ring; answers whether any is left.
    pub(crate) fn receive(&mut self, count: usize) -> bool {
        for _ in 0..count {
            let Some(frame) = self.backlog.front() else { break };
            let Some(address) = self.rx.put_frame(frame) else { break };
            self.unmarked.insert(address);
            self.backlog.pop_front();
        }
        !self.backlog.is_empty()
    }

    pub(crate) fn take_interrupt(&mut self) -> bool {
        let raised = self.rx.interrupt || self.tx.interrupt;
        (self.rx.interrupt, self.tx.interrupt) = (false, false);
        raised
    }

    /// Forgets the guest's memory; frames that wait are kept.
    pub(crate) fn reset(&mut self) {
        self.rx = DeviceQueue::default();
        self.tx = DeviceQueue::default();
    }
}
