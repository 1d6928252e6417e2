//! What the shell needs of an operating system: [`Os`] for every device class, [`NetOs`] for a
//! network interface. It holds traits and plain types only, never an implementation.
//!
//! # Contexts and locks
//!
//! The *control side* (start, stop, events) runs in process context, one call at a time, and may
//! sleep. The *data path* (poll, transmit) runs wherever the operating system moves frames and
//! takes the path lock. Methods marked *locked* are called with the path lock held: they must not
//! sleep and must not call the shell again; what needs that (handing a received frame to the
//! stack, which may transmit from there) is put aside and done after the shell has returned.
//! Everything else is called without the lock, and may sleep unless it says otherwise.

use core::num::NonZeroUsize;
use core::ptr::NonNull;

/// Importance of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something failed; the owner should look.
    Error,
    /// A step worth keeping.
    Info,
}

/// Width of a register access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    Byte,
    /// Two bytes.
    Word,
    /// Four bytes.
    Double,
}

/// Memory that both the CPU and the device reach: contiguous, coherent, aligned to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaMemory {
    /// Virtual address.
    pub base: NonNull<u8>,
    /// The same memory's address for the device; without an IOMMU in the guest, guest physical.
    pub device_address: u64,
    /// Length in bytes, as asked for.
    pub length: usize,
}

/// Where a plugin image lands: a page-aligned range of the shell's own read-only code, filled
/// with [`npa_abi::shell_page::LANDING_FILL`].
#[derive(Clone, Copy, Debug)]
pub struct LandingRange<'a> {
    /// Virtual address of the first byte.
    pub base: NonNull<u8>,
    /// Length in bytes, a multiple of the page size.
    pub length: usize,
    /// Guest physical address of each page, in order.
    pub pages: &'a [u64],
}

/// The device's vectors could not be wired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorsUnavailable;

/// Services for every device class. One value stands for one PCI device.
pub trait Os: Sync {
    /// Reads 32 bits of the device's configuration space at `offset` (bytes, a multiple of 4).
    fn config_read(&self, offset: u16) -> u32;

    /// Reads a device register; all ones where there is none. Bits beyond `width` are zero. Any
    /// context, *locked* too.
    fn mmio_read(&self, bar: u8, offset: u64, width: Width) -> u32;

    /// Writes a device register. Any context, *locked* too.
    fn mmio_write(&self, bar: u8, offset: u64, width: Width, value: u32);

    /// Virtual address of `length` bytes of a BAR, uncached, valid until the device goes; `None`
    /// when the BAR is not there or too small.
    fn bar_memory(&self, bar: u8, offset: u64, length: u64) -> Option<NonNull<u8>>;

    /// Allocates zeroed DMA memory of `length` bytes, page-aligned.
    fn dma_alloc(&self, length: usize) -> Option<DmaMemory>;

    /// Frees what [`Os::dma_alloc`] gave.
    fn dma_free(&self, memory: DmaMemory);

    /// Allocates zeroed memory, aligned to 64 bytes.
    fn memory_alloc(&self, length: usize) -> Option<NonNull<u8>>;

    /// Frees what [`Os::memory_alloc`] gave for this `length`.
    fn memory_free(&self, memory: NonNull<u8>, length: usize);

    /// The landing of this device, or `None` where injection is switched off or not possible: the
    /// device then stays emulated. The same answer every time.
    fn landing(&self) -> Option<LandingRange<'_>>;

    /// Wires MSI-X vectors `first..first + count` so that each interrupt leads to a poll.
    ///
    /// # Errors
    /// [`VectorsUnavailable`] when not all could be wired; then none is.
    fn wire_vectors(&self, first: u32, count: u32) -> Result<(), VectorsUnavailable>;

    /// Undoes [`Os::wire_vectors`]; returns when no interrupt of these runs any more.
    fn unwire_vectors(&self, first: u32, count: u32);

    /// Has the control side's event function called soon. Any context, *locked* too.
    fn schedule_event(&self);

    /// Has the data path polled soon. Any context, *locked* too.
    fn schedule_poll(&self);

    /// Writes one line to the log. Any context, *locked* too.
    fn log(&self, level: LogLevel, text: &str);

    /// Nanoseconds since some fixed moment. Any context, *locked* too.
    fn now_ns(&self) -> u64;

    /// Sleeps for about `milliseconds`.
    fn sleep_ms(&self, milliseconds: u32);

    /// Takes the path lock, keeping off every context from which the data path is called.
    fn path_lock(&self);

    /// Releases the path lock.
    fn path_unlock(&self);
}

/// A receive buffer, as the operating system names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RxHandle(pub NonZeroUsize);

/// A frame to send, as the operating system names it (its packet structure's address, say).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TxHandle(pub NonZeroUsize);

/// A receive buffer of [`NetOs::rx_buffer_length`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxBuffer {
    /// Name of the buffer.
    pub handle: RxHandle,
    /// Address of its first byte for the device, not zero.
    pub device_address: u64,
}

/// A piece of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxPiece {
    /// The buffer that holds it; now the operating system's.
    pub handle: RxHandle,
    /// Where the piece begins in the buffer, in bytes.
    pub offset: u32,
    /// Its length in bytes; `offset + length` lies within the buffer.
    pub length: u32,
}

/// What is known of a received frame; every field has been checked against its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxMeta {
    /// Length of the whole frame in bytes, at least 14; the sum of its pieces.
    pub length: u32,
    /// `npa_abi::net::RX_*` flags.
    pub flags: u16,
    /// VLAN tag control information, with [`npa_abi::net::RX_VLAN`].
    pub vlan_tag: u16,
    /// One of `npa_abi::net::RX_CSUM_*`.
    pub checksum: u8,
    /// One of `npa_abi::net::RX_GSO_*`.
    pub gso_type: u8,
    /// Payload bytes per merged segment; not zero for a merged frame.
    pub gso_size: u16,
    /// With [`npa_abi::net::RX_CSUM_PARTIAL`]: where the checksummed range begins.
    pub csum_start: u16,
    /// With [`npa_abi::net::RX_CSUM_PARTIAL`]: offset of the checksum from `csum_start`.
    pub csum_offset: u16,
    /// Length of all headers of a merged frame, or 0 where unknown.
    pub header_length: u16,
    /// RSS hash, with [`npa_abi::net::RX_HASH`].
    pub hash: u32,
    /// The frame came over the VF.
    pub accelerated: bool,
}

/// Services for a network interface.
pub trait NetOs: Os {
    /// Usable bytes of a receive buffer: a multiple of 1024, at least 2048.
    fn rx_buffer_length(&self) -> u32;

    /// Allocates a receive buffer. Any context, *locked* too: never sleeps.
    fn rx_alloc(&self) -> Option<RxBuffer>;

    /// Takes a receive buffer back. Any context, *locked* too.
    fn rx_free(&self, handle: RxHandle);

    /// The bytes that the device wrote to a receive buffer, which the shell still owns; `None` if
    /// out of range. *Locked.*
    fn rx_data(&self, handle: RxHandle, offset: u32, length: u32) -> Option<&[u8]>;

    /// Writes to each page that these bytes of a receive buffer are in, and changes none
    /// ([`crate::mark_pages`]). The shell owns the buffer, and its device has finished with it.
    /// *Locked*, or called when no device uses it any more.
    fn rx_mark(&self, handle: RxHandle, offset: u32, length: u32);

    /// Takes a received frame with its buffers. *Locked*: put it aside for after the poll.
    fn deliver(&self, frame: &RxMeta, pieces: &[RxPiece]);

    /// Takes back a frame that was sent (`sent`) or given up. *Locked*, or called from stop.
    fn tx_done(&self, handle: TxHandle, sent: bool);

    /// No further frame will be taken until [`NetOs::tx_wake`]. *Locked.*
    fn tx_stop(&self);

    /// Frames will be taken again. *Locked.*
    fn tx_wake(&self);

    /// The interface may be behind another port of the network's: frames that tell so (gratuitous
    /// ARP and the like) are to be sent soon. Called from the control side.
    fn announce(&self);

    /// The link changed. Called from the control side.
    fn link_changed(&self, up: bool);
}
