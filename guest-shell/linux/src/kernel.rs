//! The kernel's services as the core's [`Os`] and [`NetOs`], by way of the C layer. A thin
//! wrapper: every method is one call.
#![allow(unsafe_code, reason = "calls the C layer")]

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::num::NonZeroUsize;
use core::ptr::NonNull;

use shell_core::mark_pages;
use shell_core::os::{
    DmaMemory, LandingRange, LogLevel, NetOs, Os, RxBuffer, RxHandle, RxMeta, RxPiece, TxHandle,
    VectorsUnavailable, Width,
};

use crate::seam::{self, NpaDev};

/// One device of the C layer. It is valid from `npa_core_probe` to `npa_core_remove`, and every
/// function that it is passed to may be called from any CPU.
#[derive(Debug)]
pub struct Kernel {
    dev: NonNull<NpaDev>,
}

// SAFETY: the C layer's functions do their own locking; the pointer is never dereferenced here.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl Kernel {
    /// The services of `dev`.
    ///
    /// # Safety
    /// `dev` is a device of the C layer and outlives the value.
    pub const unsafe fn new(dev: NonNull<NpaDev>) -> Self {
        Self { dev }
    }

    const fn dev(&self) -> *mut NpaDev {
        self.dev.as_ptr()
    }
}

const fn bytes(width: Width) -> u8 {
    match width {
        Width::Byte => 1,
        Width::Word => 2,
        Width::Double => 4,
    }
}

const fn pointer(handle: NonZeroUsize) -> *mut c_void {
    core::ptr::with_exposed_provenance_mut(handle.get())
}

impl Os for Kernel {
    fn config_read(&self, offset: u16) -> u32 {
        // SAFETY: `dev` is valid (see `Kernel::new`).
        unsafe { seam::npa_os_config_read(self.dev(), offset) }
    }

    fn mmio_read(&self, bar: u8, offset: u64, width: Width) -> u32 {
        // SAFETY: `dev` is valid; the C layer checks the place.
        unsafe { seam::npa_os_mmio_read(self.dev(), bar, offset, bytes(width)) }
    }

    fn mmio_write(&self, bar: u8, offset: u64, width: Width, value: u32) {
        // SAFETY: `dev` is valid; the C layer checks the place.
        unsafe { seam::npa_os_mmio_write(self.dev(), bar, offset, bytes(width), value) }
    }

    fn bar_memory(&self, bar: u8, offset: u64, length: u64) -> Option<NonNull<u8>> {
        // SAFETY: `dev` is valid; the C layer checks the range.
        NonNull::new(unsafe { seam::npa_os_bar_memory(self.dev(), bar, offset, length) })
    }

    fn dma_alloc(&self, length: usize) -> Option<DmaMemory> {
        // SAFETY: `dev` is valid.
        let memory = unsafe { seam::npa_os_dma_alloc(self.dev(), length) };
        let base = NonNull::new(memory.base)?;
        Some(DmaMemory { base, device_address: memory.address, length })
    }

    fn dma_free(&self, memory: DmaMemory) {
        let DmaMemory { base, device_address, length } = memory;
        // SAFETY: the memory came from `dma_alloc`, whose caller gives it back.
        unsafe { seam::npa_os_dma_free(self.dev(), base.as_ptr(), device_address, length) }
    }

    fn memory_alloc(&self, length: usize) -> Option<NonNull<u8>> {
        // SAFETY: no argument can be wrong.
        NonNull::new(unsafe { seam::npa_os_memory_alloc(length) })
    }

    fn memory_free(&self, memory: NonNull<u8>, _length: usize) {
        // SAFETY: the memory came from `memory_alloc`, whose caller gives it back.
        unsafe { seam::npa_os_memory_free(memory.as_ptr()) }
    }

    fn landing(&self) -> Option<LandingRange<'_>> {
        // SAFETY: `dev` is valid.
        let range = unsafe { seam::npa_os_landing(self.dev()) };
        let base = NonNull::new(range.base)?;
        let count = range.length / npa_abi::PAGE_SIZE;
        // SAFETY: the C layer gives one address per page, for as long as the device lives.
        let pages = unsafe { core::slice::from_raw_parts(range.pages, count) };
        Some(LandingRange { base, length: range.length, pages })
    }

    fn wire_vectors(&self, first: u32, count: u32) -> Result<(), VectorsUnavailable> {
        // SAFETY: `dev` is valid; the C layer checks the range.
        match unsafe { seam::npa_os_wire_vectors(self.dev(), first, count) } {
            0 => Ok(()),
            _ => Err(VectorsUnavailable),
        }
    }

    fn unwire_vectors(&self, first: u32, count: u32) {
        // SAFETY: `dev` is valid; the C layer checks the range.
        unsafe { seam::npa_os_unwire_vectors(self.dev(), first, count) }
    }

    fn schedule_event(&self) {
        // SAFETY: `dev` is valid.
        unsafe { seam::npa_os_schedule_event(self.dev()) }
    }

    fn schedule_poll(&self) {
        // SAFETY: `dev` is valid.
        unsafe { seam::npa_os_schedule_poll(self.dev()) }
    }

    fn log(&self, level: LogLevel, text: &str) {
        let level = match level {
            LogLevel::Error => 0,
            LogLevel::Info => 1,
        };
        // SAFETY: `dev` is valid; the text is read during the call.
        unsafe { seam::npa_os_log(self.dev(), level, text.as_ptr(), text.len()) }
    }

    fn now_ns(&self) -> u64 {
        // SAFETY: no argument can be wrong.
        unsafe { seam::npa_os_now_ns() }
    }

    fn sleep_ms(&self, milliseconds: u32) {
        // SAFETY: no argument can be wrong; the core calls it where it may sleep.
        unsafe { seam::npa_os_sleep_ms(milliseconds) }
    }

    fn path_lock(&self) {
        // SAFETY: `dev` is valid; the core pairs lock and unlock.
        unsafe { seam::npa_os_path_lock(self.dev()) }
    }

    fn path_unlock(&self) {
        // SAFETY: `dev` is valid; the core holds the lock.
        unsafe { seam::npa_os_path_unlock(self.dev()) }
    }
}

impl NetOs for Kernel {
    fn rx_buffer_length(&self) -> u32 {
        seam::RX_BUFFER_LENGTH
    }

    fn rx_alloc(&self) -> Option<RxBuffer> {
        // SAFETY: `dev` is valid.
        let buffer = unsafe { seam::npa_os_rx_alloc(self.dev()) };
        let handle = NonZeroUsize::new(buffer.handle.expose_provenance())?;
        Some(RxBuffer { handle: RxHandle(handle), device_address: buffer.address })
    }

    fn rx_free(&self, handle: RxHandle) {
        // SAFETY: the handle came from `rx_alloc`, whose caller gives it back.
        unsafe { seam::npa_os_rx_free(self.dev(), pointer(handle.0)) }
    }

    fn rx_data(&self, handle: RxHandle, offset: u32, length: u32) -> Option<&[u8]> {
        // SAFETY: the handle came from `rx_alloc` and the core still owns the buffer.
        let data = unsafe { seam::npa_os_rx_data(self.dev(), pointer(handle.0), offset, length) };
        if data.is_null() {
            return None;
        }
        // SAFETY: the C layer checked the range; the device has finished with the buffer.
        Some(unsafe { core::slice::from_raw_parts(data, length as usize) })
    }

    fn rx_mark(&self, handle: RxHandle, offset: u32, length: u32) {
        // SAFETY: the handle came from `rx_alloc` and the core still owns the buffer.
        let data = unsafe { seam::npa_os_rx_data(self.dev(), pointer(handle.0), offset, length) };
        if let Some(base) = NonNull::new(data.cast_mut()) {
            // SAFETY: the C layer checked the range; the buffer is the core's, and no reference
            // to its bytes lives longer than a call of it.
            unsafe { mark_pages(base, length as usize) };
        }
    }

    fn deliver(&self, frame: &RxMeta, pieces: &[RxPiece]) {
        let seam_frame = seam::RxFrame {
            length: frame.length,
            hash: frame.hash,
            flags: frame.flags,
            vlan_tag: frame.vlan_tag,
            gso_size: frame.gso_size,
            header_length: frame.header_length,
            csum_start: frame.csum_start,
            csum_offset: frame.csum_offset,
            checksum: frame.checksum,
            gso_type: frame.gso_type,
            accelerated: frame.accelerated.into(),
            reserved: 0,
        };
        let mut room = [const { MaybeUninit::<seam::RxPiece>::uninit() }; seam::SEGMENTS_MAX];
        let mut count = 0;
        for (place, piece) in room.iter_mut().zip(pieces) {
            place.write(seam::RxPiece {
                handle: pointer(piece.handle.0),
                offset: piece.offset,
                length: piece.length,
            });
            count += 1;
        }
        // SAFETY: the first `count` pieces are written; their buffers are the C layer's now.
        unsafe { seam::npa_os_deliver(self.dev(), &seam_frame, room.as_ptr().cast(), count) }
    }

    fn tx_done(&self, handle: TxHandle, sent: bool) {
        // SAFETY: the handle came with the frame and is given back once.
        unsafe { seam::npa_os_tx_done(self.dev(), pointer(handle.0), sent) }
    }

    fn tx_stop(&self) {
        // SAFETY: `dev` is valid.
        unsafe { seam::npa_os_tx_stop(self.dev()) }
    }

    fn tx_wake(&self) {
        // SAFETY: `dev` is valid.
        unsafe { seam::npa_os_tx_wake(self.dev()) }
    }

    fn announce(&self) {
        // SAFETY: `dev` is valid.
        unsafe { seam::npa_os_announce(self.dev()) }
    }

    fn link_changed(&self, up: bool) {
        // SAFETY: `dev` is valid.
        unsafe { seam::npa_os_link_changed(self.dev(), up) }
    }
}
