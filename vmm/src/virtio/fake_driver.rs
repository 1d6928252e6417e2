//! A guest driver for tests: drives a [`VirtioPci`] function through its BARs and rings in plain
//! memory, with a hypervisor that only keeps books.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};

use super::device::VirtioDevice;
use super::pci::{PciExtension, VirtioPci};
use crate::interrupts::{IoEvents, IrqRouter};
use crate::pci::PciDevice;
use crate::vm::hypervisor::fake::FakeHypervisor;
use crate::vm::layout::Layout;
use crate::vm::{DeviceContext, EventLoop, GuestRam, Memory, MemorySlots};

pub(crate) const MEMORY_MIB: u64 = 16;
pub(crate) const BAR0: u64 = 0xd000_0000;

pub(crate) const ACKNOWLEDGE: u8 = 1;
pub(crate) const DRIVER: u8 = 2;
pub(crate) const FEATURES_OK: u8 = 8;
pub(crate) const DRIVER_OK: u8 = 4;
pub(crate) const NEEDS_RESET: u8 = 0x40;

pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const EVENT_IDX: u64 = 1 << 29;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;

/// Rings of queue q start at this address plus 64 KiB times q.
const RINGS: u64 = 0x10_0000;
const AVAIL: u64 = 0x8000;
const USED: u64 = 0xa000;
const NOTIFY: u64 = 0x3000;

/// Longest that a test waits for a worker.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn context() -> (DeviceContext, Arc<FakeHypervisor>) {
    let fake = Arc::new(FakeHypervisor::default());
    let layout = Layout::new(MEMORY_MIB, 36).unwrap();
    let context = DeviceContext {
        memory: Arc::new(Memory::new(&layout).unwrap()),
        memory_slots: Arc::new(MemorySlots::new(fake.clone())),
        irq_router: Arc::new(IrqRouter::new(fake.clone())),
        io_events: Arc::new(IoEvents::new(fake.clone())),
        event_loop: EventLoop::spawn("test").unwrap(),
        hypervisor: fake.clone(),
    };
    (context, fake)
}

pub(crate) struct FakeDriver {
    pub(crate) function: VirtioPci,
    pub(crate) fake: Arc<FakeHypervisor>,
    memory: Arc<Memory>,
    queues: Vec<FakeQueue>,
}

#[derive(Clone, Default)]
struct FakeQueue {
    size: u16,
    next_descriptor: u16,
    avail: u16,
    used: u16,
}

impl FakeDriver {
    pub(crate) fn new(device: Box<dyn VirtioDevice>) -> Self {
        Self::with_extension(device, 0, None)
    }

    pub(crate) fn with_extension(
        device: Box<dyn VirtioDevice>,
        extra_vectors: u16,
        extension: Option<Box<dyn PciExtension>>,
    ) -> Self {
        let (context, fake) = context();
        let mut function = VirtioPci::new(&context, device, extra_vectors, extension).unwrap();
        function.bar_placed(0, Some(BAR0));
        Self { function, fake, memory: context.memory, queues: Vec::new() }
    }

    /// The same driver in the same memory, over a new function of `device`.
    pub(crate) fn moved(self, device: Box<dyn VirtioDevice>) -> Self {
        let Self { function, memory, queues, .. } = self;
        drop(function);
        let (context, fake) = context();
        let context = DeviceContext { memory, ..context };
        let mut function = VirtioPci::new(&context, device, 0, None).unwrap();
        function.bar_placed(0, Some(BAR0));
        Self { function, fake, memory: context.memory, queues }
    }

    pub(crate) fn ram(&self) -> &GuestRam {
        self.memory.ram()
    }

    pub(crate) fn read(&mut self, offset: u64, len: usize) -> u64 {
        let mut data = [0; 8];
        self.function.bar_read(0, offset, &mut data[..len]);
        u64::from_le_bytes(data)
    }

    pub(crate) fn write(&mut self, offset: u64, value: u64, len: usize) {
        self.function.bar_write(0, offset, &value.to_le_bytes()[..len]);
    }

    pub(crate) fn status(&mut self) -> u8 {
        self.read(0x14, 1) as u8
    }

    pub(crate) fn set_status(&mut self, status: u8) {
        self.write(0x14, u64::from(status), 1);
    }

    pub(crate) fn device_features(&mut self) -> u64 {
        self.write(0, 0, 4);
        let low = self.read(4, 4);
        self.write(0, 1, 4);
        low | self.read(4, 4) << 32
    }

    /// Negotiates `features` as far as offered, sets up all queues with `size` entries, or as many
    /// as they can have, and starts the device.
    pub(crate) fn start(&mut self, features: u64, size: u16) {
        self.negotiate(features);
        let count = self.read(0x12, 2) as u16;
        self.queues.clear();
        for queue in 0..count {
            self.write(0x16, u64::from(queue), 2);
            let size = size.min(self.read(0x18, 2) as u16);
            self.queues.push(FakeQueue { size, ..FakeQueue::default() });
            self.set_up_queue(queue, size);
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    pub(crate) fn negotiate(&mut self, features: u64) {
        self.set_status(0);
        self.set_status(ACKNOWLEDGE);
        self.set_status(ACKNOWLEDGE | DRIVER);
        let features = (features | VERSION_1) & self.device_features();
        for (select, half) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.write(8, select, 4);
            self.write(0xc, half, 4);
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(self.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
    }

    pub(crate) fn set_up_queue(&mut self, queue: u16, size: u16) {
        let rings = ring_base(queue);
        let ram = self.memory.ram();
        ram.write_slice(&[0; 0x1_0000], GuestAddress(rings)).unwrap();
        self.write(0x16, u64::from(queue), 2);
        self.write(0x18, u64::from(size), 2);
        self.write(0x1a, u64::from(1 + queue), 2);
        assert_eq!(self.read(0x1a, 2), u64::from(1 + queue));
        self.write(0x20, rings, 8);
        self.write(0x28, rings + AVAIL, 8);
        self.write(0x30, rings + USED, 8);
        self.write(0x1c, 1, 2);
    }

    /// Writes descriptor `index` of a queue, with no check.
    pub(crate) fn descriptor(
        &self,
        queue: u16,
        index: u16,
        (address, len, flags, next): (u64, u32, u16, u16),
    ) {
        let at = GuestAddress(ring_base(queue) + 16 * u64::from(index));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.ram().write_slice(&bytes, at).unwrap();
    }

    /// Makes a chain of buffers (address, length, writable) available; returns its head. The
    /// doorbell is not rung.
    pub(crate) fn add(&mut self, queue: u16, buffers: &[(u64, u32, bool)]) -> u16 {
        let size = self.queues[usize::from(queue)].size;
        let head = self.queues[usize::from(queue)].next_descriptor;
        for (i, &(address, len, writable)) in (0..).zip(buffers) {
            let next = if i + 1 < buffers.len() as u16 { NEXT } else { 0 };
            let flags = next | if writable { WRITE } else { 0 };
            let index = (head + i) % size;
            self.descriptor(queue, index, (address, len, flags, (index + 1) % size));
        }
        self.queues[usize::from(queue)].next_descriptor = (head + buffers.len() as u16) % size;
        self.make_available(queue, head);
        head
    }

    /// Puts a head into the available ring.
    pub(crate) fn make_available(&mut self, queue: u16, head: u16) {
        let state = &mut self.queues[usize::from(queue)];
        let slot = u64::from(state.avail % state.size);
        state.avail = state.avail.wrapping_add(1);
        let avail = state.avail;
        let base = ring_base(queue) + AVAIL;
        self.ram().write_obj(head, GuestAddress(base + 4 + 2 * slot)).unwrap();
        self.set_avail_index(queue, avail);
    }

    pub(crate) fn set_avail_index(&self, queue: u16, index: u16) {
        let at = GuestAddress(ring_base(queue) + AVAIL + 2);
        self.ram().store(index, at, std::sync::atomic::Ordering::SeqCst).unwrap();
    }

    /// Sets the flags word of the available ring.
    pub(crate) fn set_avail_flags(&self, queue: u16, flags: u16) {
        self.ram().write_obj(flags, GuestAddress(ring_base(queue) + AVAIL)).unwrap();
    }

    /// Sets the used index whose passing the driver wants to hear of.
    pub(crate) fn set_used_event(&self, queue: u16, index: u16) {
        let size = u64::from(self.queues[usize::from(queue)].size);
        let at = ring_base(queue) + AVAIL + 4 + 2 * size;
        self.ram().write_obj(index, GuestAddress(at)).unwrap();
    }

    /// The available index whose passing the device wants to hear of.
    pub(crate) fn avail_event(&self, queue: u16) -> u16 {
        let size = u64::from(self.queues[usize::from(queue)].size);
        let at = ring_base(queue) + USED + 4 + 8 * size;
        self.ram().read_obj(GuestAddress(at)).unwrap()
    }

    pub(crate) fn kick(&mut self, queue: u16) {
        self.write(NOTIFY + 4 * u64::from(queue), u64::from(queue), 2);
    }

    /// The next used chain, if there is one now.
    pub(crate) fn try_used(&mut self, queue: u16) -> Option<(u16, u32)> {
        let used = ring_base(queue) + USED;
        let ram = self.memory.ram();
        let index: u16 =
            ram.load(GuestAddress(used + 2), std::sync::atomic::Ordering::SeqCst).unwrap();
        let state = &mut self.queues[usize::from(queue)];
        if index == state.used {
            return None;
        }
        let slot = u64::from(state.used % state.size);
        state.used = state.used.wrapping_add(1);
        let [head, len]: [u32; 2] = ram.read_obj(GuestAddress(used + 4 + 8 * slot)).unwrap();
        Some((head as u16, len))
    }

    /// The next used chain, waited for.
    pub(crate) fn used(&mut self, queue: u16) -> (u16, u32) {
        let mut used = None;
        self.wait_for("a used buffer", |driver| {
            used = driver.try_used(queue);
            used.is_some()
        });
        used.unwrap()
    }

    /// Whether `vector` was raised since the last look.
    pub(crate) fn interrupted(&self, vector: u16) -> bool {
        self.function.vectors().event(vector).read().is_ok()
    }

    pub(crate) fn wait_for(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let started = Instant::now();
        while !done(self) {
            assert!(started.elapsed() < PATIENCE, "no {what} in time");
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

fn ring_base(queue: u16) -> u64 {
    RINGS + 0x1_0000 * u64::from(queue)
}
