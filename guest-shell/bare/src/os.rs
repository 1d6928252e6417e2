//! The shell's operating system, which is hardly one: polled, single-threaded, memory mapped one
//! to one.
#![allow(unsafe_code)] // Receive buffers by address; single-threaded sharing.

use crate::machine::{Clock, Function, Memory, landing, load, print, store};
use crate::traffic::Received;
use core::cell::{Cell, RefCell};
use core::num::NonZeroUsize;
use core::ptr::NonNull;
use npa_abi::PAGE_SIZE;
use npa_abi::shell_page::LANDING_PAGES_MAX;
use shell_core::mark_pages;
use shell_core::os::{
    DmaMemory, LandingRange, LogLevel, NetOs, Os, RxBuffer, RxHandle, RxMeta, RxPiece, TxHandle,
    VectorsUnavailable, Width,
};

/// Bytes of a receive buffer: merged frames fit in as many as a frame may have.
const BUFFER: usize = 4096;

/// Most bytes looked at of a received frame.
const LOOK: usize = 64;

/// The operating system.
pub(crate) struct BareOs {
    function: Function,
    clock: Clock,
    memory: RefCell<Memory>,
    pages: [u64; LANDING_PAGES_MAX],
    /// What has been received.
    pub(crate) received: RefCell<Received>,
    /// Frames that were sent and are complete.
    pub(crate) sent: Cell<u64>,
    /// The shell takes no frame at present.
    pub(crate) stopped: Cell<bool>,
    /// The shell wants its event function called.
    pub(crate) event: Cell<bool>,
}

// SAFETY: there is one CPU and interrupts are off, so there is one thread.
unsafe impl Sync for BareOs {}

impl BareOs {
    /// On top of `function`, with `memory` to give away.
    pub(crate) fn new(function: Function, clock: Clock, memory: Memory) -> Self {
        let mut pages = [0; LANDING_PAGES_MAX];
        let first = landing().0.as_ptr() as u64;
        for (page, address) in pages.iter_mut().zip((first..).step_by(PAGE_SIZE)) {
            *page = address;
        }
        Self {
            function,
            clock,
            memory: RefCell::new(memory),
            pages,
            received: RefCell::new(Received::new()),
            sent: Cell::new(0),
            stopped: Cell::new(false),
            event: Cell::new(false),
        }
    }
}

impl Os for BareOs {
    fn config_read(&self, offset: u16) -> u32 {
        self.function.config_read(offset)
    }

    fn mmio_read(&self, bar: u8, offset: u64, width: Width) -> u32 {
        match (width, self.function.bar(bar, offset, 4)) {
            (Width::Byte, Some(at)) => load::<u8>(at).into(),
            (Width::Word, Some(at)) => load::<u16>(at).into(),
            (Width::Double, Some(at)) => load(at),
            (_, None) => u32::MAX,
        }
    }

    fn mmio_write(&self, bar: u8, offset: u64, width: Width, value: u32) {
        match (width, self.function.bar(bar, offset, 4)) {
            (Width::Byte, Some(at)) => store(at, value as u8),
            (Width::Word, Some(at)) => store(at, value as u16),
            (Width::Double, Some(at)) => store(at, value),
            (_, None) => {}
        }
    }

    fn bar_memory(&self, bar: u8, offset: u64, length: u64) -> Option<NonNull<u8>> {
        NonNull::new(self.function.bar(bar, offset, length)? as *mut u8)
    }

    fn dma_alloc(&self, length: usize) -> Option<DmaMemory> {
        // A block of a page or more is aligned to a page.
        let base = self.memory.borrow_mut().alloc(length.max(PAGE_SIZE))?;
        Some(DmaMemory { base, device_address: base.as_ptr() as u64, length })
    }

    fn dma_free(&self, memory: DmaMemory) {
        self.memory.borrow_mut().free(memory.base, memory.length.max(PAGE_SIZE));
    }

    fn memory_alloc(&self, length: usize) -> Option<NonNull<u8>> {
        self.memory.borrow_mut().alloc(length)
    }

    fn memory_free(&self, memory: NonNull<u8>, length: usize) {
        self.memory.borrow_mut().free(memory, length);
    }

    fn landing(&self) -> Option<LandingRange<'_>> {
        let (base, length) = landing();
        let pages = self.pages.get(..length / PAGE_SIZE)?;
        Some(LandingRange { base, length, pages })
    }

    fn wire_vectors(&self, _: u32, _: u32) -> Result<(), VectorsUnavailable> {
        // Everything is polled.
        Ok(())
    }

    fn unwire_vectors(&self, _: u32, _: u32) {}

    fn schedule_event(&self) {
        self.event.set(true);
    }

    fn schedule_poll(&self) {
        // Polls come all the time.
    }

    fn log(&self, level: LogLevel, text: &str) {
        print(if level == LogLevel::Error { "bare: error: " } else { "bare: " });
        print(text);
        print("\n");
    }

    fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    fn sleep_ms(&self, milliseconds: u32) {
        self.clock.wait_ms(milliseconds);
    }

    fn path_lock(&self) {}

    fn path_unlock(&self) {}
}

fn block(handle: RxHandle) -> Option<NonNull<u8>> {
    NonNull::new(handle.0.get() as *mut u8)
}

impl NetOs for BareOs {
    fn rx_buffer_length(&self) -> u32 {
        BUFFER as u32
    }

    fn rx_alloc(&self) -> Option<RxBuffer> {
        let base = self.memory.borrow_mut().alloc(BUFFER)?.as_ptr() as usize;
        let handle = RxHandle(NonZeroUsize::new(base)?);
        Some(RxBuffer { handle, device_address: base as u64 })
    }

    fn rx_free(&self, handle: RxHandle) {
        if let Some(block) = block(handle) {
            self.memory.borrow_mut().free(block, BUFFER);
        }
    }

    fn rx_data(&self, handle: RxHandle, offset: u32, length: u32) -> Option<&[u8]> {
        let (offset, length) = (offset as usize, length as usize);
        if offset.checked_add(length)? > BUFFER {
            return None;
        }
        let base = block(handle)?.as_ptr().cast_const().wrapping_add(offset);
        // SAFETY: within a buffer that the shell owns, which the device has finished with.
        Some(unsafe { core::slice::from_raw_parts(base, length) })
    }

    fn rx_mark(&self, handle: RxHandle, offset: u32, length: u32) {
        let (offset, length) = (offset as usize, length as usize);
        let inside = offset.checked_add(length).is_some_and(|end| end <= BUFFER);
        if let (Some(base), true) = (block(handle), inside) {
            // SAFETY: within a buffer that the shell owns, which the device has finished with.
            unsafe { mark_pages(base.byte_add(offset), length) };
        }
    }

    fn deliver(&self, _: &RxMeta, pieces: &[RxPiece]) {
        if let Some(first) = pieces.first() {
            let length = first.length.min(LOOK as u32);
            let bytes = self.rx_data(first.handle, first.offset, length);
            self.received.borrow_mut().count(bytes.unwrap_or(&[]));
        }
        for piece in pieces {
            self.rx_free(piece.handle);
        }
    }

    fn tx_done(&self, handle: TxHandle, sent: bool) {
        if let Some(block) = NonNull::new(handle.0.get() as *mut u8) {
            self.memory.borrow_mut().free(block, crate::traffic::FRAME_LENGTH);
        }
        self.sent.set(self.sent.get().wrapping_add(u64::from(sent)));
    }

    fn tx_stop(&self) {
        self.stopped.set(true);
    }

    fn tx_wake(&self) {
        self.stopped.set(false);
    }

    fn announce(&self) {
        // This guest has no address of the network's; its frames tell where it is.
        print("bare: announce\n");
    }

    fn link_changed(&self, up: bool) {
        print(if up { "bare: link up\n" } else { "bare: link down\n" });
    }
}

/// A block with a copy of `bytes`, to be sent.
pub(crate) fn outgoing(os: &BareOs, bytes: &[u8]) -> Option<(TxHandle, u64)> {
    let base = os.memory_alloc(bytes.len())?.as_ptr() as usize;
    for (at, byte) in (base as u64..).zip(bytes) {
        store(at, *byte);
    }
    Some((TxHandle(NonZeroUsize::new(base)?), base as u64))
}
