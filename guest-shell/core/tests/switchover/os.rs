//! An operating system that keeps exact books: every allocation is known, freed once and freed at
//! the end, and services are called only in the contexts that the shell promises.
#![allow(unsafe_code, reason = "gives the shell memory by address")]

use crate::host::{Host, NOTIFY_LENGTH, NPA_BAR, WINDOW_LENGTH, WINDOW_OFFSET};
use crate::image::{LANDING_LENGTH, LandingMemory};
use npa_abi::PAGE_SIZE;
use shell_core::os::{
    DmaMemory, LandingRange, LogLevel, NetOs, Os, RxBuffer, RxHandle, RxMeta, RxPiece, TxHandle,
    VectorsUnavailable, Width,
};
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard};

pub(crate) const BUFFER: usize = 2048;

/// The books.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) host: Host,
    dma: HashMap<usize, Layout>,
    memory: HashMap<usize, Layout>,
    pub(crate) rx_buffers: HashSet<usize>,
    pub(crate) tx_frames: HashMap<usize, Box<[u8]>>,
    pub(crate) tx_sent: u64,
    pub(crate) tx_given_up: u64,
    /// Frames that reached the stack, in order.
    pub(crate) delivered: Vec<Vec<u8>>,
    /// Revokes the VF once this many frames more were delivered: within a poll.
    pub(crate) revoke_after: Option<usize>,
    pub(crate) stopped: bool,
    pub(crate) poll_wanted: bool,
    pub(crate) event_wanted: bool,
    pub(crate) vectors: Option<(u32, u32)>,
    pub(crate) vectors_missing: bool,
    /// Receive buffers that may still be allocated.
    pub(crate) buffers: usize,
    /// Memory allocations that may still succeed.
    pub(crate) allocations: usize,
    locked: bool,
    now: u64,
    pub(crate) link_changes: u32,
    pub(crate) announcements: u32,
    pub(crate) log: Vec<String>,
}

/// The operating system.
#[derive(Debug)]
pub(crate) struct FakeOs {
    world: Mutex<World>,
    pub(crate) landing: LandingMemory,
    pages: Vec<u64>,
    notify: Box<[u8; NOTIFY_LENGTH]>,
    window: Box<[u8; WINDOW_LENGTH]>,
    pub(crate) injection: bool,
}

impl FakeOs {
    pub(crate) fn new() -> Self {
        Self {
            world: Mutex::new(World {
                host: Host::new(),
                dma: HashMap::new(),
                memory: HashMap::new(),
                rx_buffers: HashSet::new(),
                tx_frames: HashMap::new(),
                tx_sent: 0,
                tx_given_up: 0,
                delivered: Vec::new(),
                revoke_after: None,
                stopped: false,
                poll_wanted: false,
                event_wanted: false,
                vectors: None,
                vectors_missing: false,
                buffers: usize::MAX,
                allocations: usize::MAX,
                locked: false,
                now: 1_000_000_000,
                link_changes: 0,
                announcements: 0,
                log: Vec::new(),
            }),
            landing: LandingMemory::new(),
            pages: (0..LANDING_LENGTH / PAGE_SIZE).map(|page| (page * PAGE_SIZE) as u64).collect(),
            notify: Box::new([0; NOTIFY_LENGTH]),
            window: Box::new([0; WINDOW_LENGTH]),
            injection: true,
        }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Whether anything is still allocated.
    pub(crate) fn leaks(&self) -> Option<String> {
        let world = self.world();
        let leaks = format!(
            "dma {} memory {} rx {} tx {} vectors {:?}",
            world.dma.len(),
            world.memory.len(),
            world.rx_buffers.len(),
            world.tx_frames.len(),
            world.vectors,
        );
        (leaks != "dma 0 memory 0 rx 0 tx 0 vectors None").then_some(leaks)
    }

    fn locked(&self) -> MutexGuard<'_, World> {
        let world = self.world();
        assert!(world.locked, "called without the path lock");
        world
    }

    fn unlocked(&self) -> MutexGuard<'_, World> {
        let world = self.world();
        assert!(!world.locked, "may sleep, but the path lock is held");
        world
    }
}

/// What the shell kept on purpose goes with the operating system.
impl Drop for FakeOs {
    fn drop(&mut self) {
        let Ok(world) = self.world.get_mut() else { return };
        for (base, layout) in world.dma.drain().chain(world.memory.drain()) {
            // SAFETY: allocated with this layout, and nobody uses it any more.
            unsafe { dealloc(base as *mut u8, layout) }
        }
        for base in world.rx_buffers.drain() {
            // SAFETY: as above.
            unsafe { dealloc(base as *mut u8, buffer_layout()) }
        }
    }
}

impl Os for FakeOs {
    fn config_read(&self, offset: u16) -> u32 {
        let at = usize::from(offset);
        u32::from_le_bytes(self.unlocked().host.config[at..at + 4].try_into().unwrap())
    }

    fn mmio_read(&self, bar: u8, offset: u64, width: Width) -> u32 {
        let value = self.world().host.mmio_read(bar, offset);
        match width {
            Width::Byte => value & 0xff,
            Width::Word => value & 0xffff,
            Width::Double => value,
        }
    }

    fn mmio_write(&self, bar: u8, offset: u64, _: Width, value: u32) {
        self.world().host.mmio_write(bar, offset, value);
    }

    fn bar_memory(&self, bar: u8, offset: u64, length: u64) -> Option<NonNull<u8>> {
        let memory: &[u8] = if bar == NPA_BAR {
            assert_eq!(offset, WINDOW_OFFSET);
            self.window.as_slice()
        } else {
            self.notify.as_slice()
        };
        assert!(length as usize <= memory.len());
        NonNull::new(memory.as_ptr().cast_mut())
    }

    fn dma_alloc(&self, length: usize) -> Option<DmaMemory> {
        let mut world = self.unlocked();
        world.allocations = world.allocations.checked_sub(1)?;
        let layout = Layout::from_size_align(length, PAGE_SIZE).unwrap();
        // SAFETY: not empty.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        world.dma.insert(base.as_ptr() as usize, layout);
        Some(DmaMemory { base, device_address: base.as_ptr() as u64, length })
    }

    fn dma_free(&self, memory: DmaMemory) {
        let layout = self.unlocked().dma.remove(&(memory.base.as_ptr() as usize)).unwrap();
        assert_eq!(layout.size(), memory.length);
        // SAFETY: allocated with this layout, and removed from the books.
        unsafe { dealloc(memory.base.as_ptr(), layout) }
    }

    fn memory_alloc(&self, length: usize) -> Option<NonNull<u8>> {
        let mut world = self.unlocked();
        world.allocations = world.allocations.checked_sub(1)?;
        let layout = Layout::from_size_align(length, 64).unwrap();
        // SAFETY: not empty.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        world.memory.insert(base.as_ptr() as usize, layout);
        Some(base)
    }

    fn memory_free(&self, memory: NonNull<u8>, length: usize) {
        let layout = self.unlocked().memory.remove(&(memory.as_ptr() as usize)).unwrap();
        assert_eq!(layout.size(), length);
        // SAFETY: allocated with this layout, and removed from the books.
        unsafe { dealloc(memory.as_ptr(), layout) }
    }

    fn landing(&self) -> Option<LandingRange<'_>> {
        self.injection.then(|| LandingRange {
            base: NonNull::new(self.landing.base()).unwrap(),
            length: LANDING_LENGTH,
            pages: &self.pages,
        })
    }

    fn wire_vectors(&self, first: u32, count: u32) -> Result<(), VectorsUnavailable> {
        let mut world = self.unlocked();
        assert_eq!(world.vectors, None);
        if world.vectors_missing {
            return Err(VectorsUnavailable);
        }
        world.vectors = Some((first, count));
        Ok(())
    }

    fn unwire_vectors(&self, first: u32, count: u32) {
        assert_eq!(self.unlocked().vectors.take(), Some((first, count)));
    }

    fn schedule_event(&self) {
        self.world().event_wanted = true;
    }

    fn schedule_poll(&self) {
        self.world().poll_wanted = true;
    }

    fn log(&self, _: LogLevel, text: &str) {
        self.world().log.push(text.to_owned());
    }

    fn now_ns(&self) -> u64 {
        let mut world = self.world();
        world.now += 1000;
        world.now
    }

    fn sleep_ms(&self, milliseconds: u32) {
        let mut world = self.unlocked();
        world.now += u64::from(milliseconds) * 1_000_000;
        // The host and the devices go on meanwhile.
        world.host.step(&self.landing);
        world.host.send(false, usize::MAX);
        world.host.send(true, usize::MAX);
    }

    fn path_lock(&self) {
        let mut world = self.world();
        assert!(!world.locked, "the path lock is taken twice");
        world.locked = true;
    }

    fn path_unlock(&self) {
        self.locked().locked = false;
    }
}

fn buffer_layout() -> Layout {
    Layout::from_size_align(BUFFER, 64).unwrap()
}

impl NetOs for FakeOs {
    fn rx_buffer_length(&self) -> u32 {
        BUFFER as u32
    }

    fn rx_alloc(&self) -> Option<RxBuffer> {
        let mut world = self.world();
        world.buffers = world.buffers.checked_sub(1)?;
        // SAFETY: not empty.
        let base = unsafe { alloc(buffer_layout()) } as usize;
        world.rx_buffers.insert(base);
        Some(RxBuffer {
            handle: RxHandle(NonZeroUsize::new(base).unwrap()),
            device_address: base as u64,
        })
    }

    fn rx_free(&self, handle: RxHandle) {
        let base = handle.0.get();
        assert!(self.world().rx_buffers.remove(&base), "freed twice");
        // SAFETY: allocated with this layout, and removed from the books.
        unsafe { dealloc(base as *mut u8, buffer_layout()) }
    }

    fn rx_data(&self, handle: RxHandle, offset: u32, length: u32) -> Option<&[u8]> {
        let base = handle.0.get();
        assert!(self.locked().rx_buffers.contains(&base), "not a buffer");
        let end = offset.checked_add(length)?;
        // SAFETY: within the buffer, which the shell owns, and which no device writes at this
        // time (one thread).
        (end as usize <= BUFFER).then(|| unsafe {
            std::slice::from_raw_parts((base + offset as usize) as *const u8, length as usize)
        })
    }

    fn rx_mark(&self, handle: RxHandle, offset: u32, length: u32) {
        let base = handle.0.get();
        assert!((offset + length) as usize <= BUFFER);
        let mut world = self.world();
        assert!(world.rx_buffers.contains(&base), "not a buffer");
        if length > 0 {
            world.host.vf.unmarked.remove(&(base as u64));
        }
    }

    fn deliver(&self, frame: &RxMeta, pieces: &[RxPiece]) {
        let mut bytes = Vec::new();
        for piece in pieces {
            bytes.extend_from_slice(
                self.rx_data(piece.handle, piece.offset, piece.length).expect("piece in range"),
            );
        }
        assert_eq!(bytes.len(), frame.length as usize);
        for piece in pieces {
            self.rx_free(piece.handle);
        }
        let mut world = self.locked();
        world.delivered.push(bytes);
        world.revoke_after = match world.revoke_after {
            Some(1) => {
                world.host.revoke();
                world.host.emulated.receive(usize::MAX);
                None
            }
            left => left.map(|left| left - 1),
        };
    }

    fn tx_done(&self, handle: TxHandle, sent: bool) {
        let mut world = self.world();
        assert!(world.tx_frames.remove(&handle.0.get()).is_some(), "completed twice");
        if sent {
            world.tx_sent += 1;
        } else {
            world.tx_given_up += 1;
        }
    }

    fn tx_stop(&self) {
        self.locked().stopped = true;
    }

    fn tx_wake(&self) {
        self.locked().stopped = false;
    }

    fn announce(&self) {
        self.unlocked().announcements += 1;
    }

    fn link_changed(&self, _: bool) {
        self.unlocked().link_changes += 1;
    }
}
