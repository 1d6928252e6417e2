//! The seam to the C layer: the structures and functions of `module/core.h`, whose comments hold
//! the rules. Private to the module; both sides assert the sizes.
#![allow(unsafe_code, reason = "declares foreign functions")]

use core::ffi::c_void;

/// The C layer's device; opaque here.
#[repr(C)]
pub struct NpaDev {
    _opaque: [u8; 0],
}

/// Bit of [`Info::flags`]: transmit checksums.
pub const INFO_CSUM: u16 = 0x01;
/// Bit of [`Info::flags`]: TCP segmentation, IPv4.
pub const INFO_TSO4: u16 = 0x02;
/// Bit of [`Info::flags`]: TCP segmentation, IPv6.
pub const INFO_TSO6: u16 = 0x04;
/// Bit of [`Info::flags`]: receive checksums.
pub const INFO_RXCSUM: u16 = 0x08;
/// Bit of [`Info::flags`]: merged receive frames.
pub const INFO_RXMERGED: u16 = 0x10;
/// Bit of [`Info::flags`]: the link is up.
pub const INFO_LINK_UP: u16 = 0x20;

/// `struct npa_info`: what a device is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// MAC address.
    pub mac: [u8; 6],
    /// Largest MTU in bytes.
    pub mtu: u16,
    /// Receive ring entries.
    pub rx_entries: u16,
    /// Transmit ring entries.
    pub tx_entries: u16,
    /// `INFO_*` bits.
    pub flags: u16,
}

/// `struct npa_tx_frame`: a frame to send. Segments and flags are those of [`npa_abi::net`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TxFrame {
    /// `segment_count` segments.
    pub segments: *const npa_abi::net::TxSegment,
    /// All headers, or null.
    pub headers: *const u8,
    /// Length of the frame in bytes.
    pub length: u32,
    /// Number of segments.
    pub segment_count: u16,
    /// `TX_*` flags.
    pub flags: u16,
    /// TCP payload bytes per segment.
    pub mss: u16,
    /// Length of the Ethernet header.
    pub l2_length: u16,
    /// Length of the layer 3 header.
    pub l3_length: u16,
    /// Length of the layer 4 header.
    pub l4_length: u16,
    /// Where the checksummed range begins.
    pub csum_start: u16,
    /// Offset of the checksum from there.
    pub csum_offset: u16,
    /// Zero.
    pub reserved: u32,
}

/// `struct npa_rx_buffer`: a receive buffer; `handle` is null when there is none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RxBuffer {
    /// The C layer's name of it.
    pub handle: *mut c_void,
    /// Device address of its first byte.
    pub address: u64,
}

/// `struct npa_rx_piece`: a piece of a received frame.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RxPiece {
    /// Its buffer.
    pub handle: *mut c_void,
    /// Where it begins, in bytes.
    pub offset: u32,
    /// Its length in bytes.
    pub length: u32,
}

/// `struct npa_rx_frame`: what is known of a received frame. Codes are those of
/// [`npa_abi::net`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxFrame {
    /// Length of the frame in bytes.
    pub length: u32,
    /// RSS hash.
    pub hash: u32,
    /// `RX_*` flags.
    pub flags: u16,
    /// VLAN tag control information.
    pub vlan_tag: u16,
    /// Payload bytes per merged segment.
    pub gso_size: u16,
    /// Length of all headers of a merged frame.
    pub header_length: u16,
    /// Where the checksummed range begins.
    pub csum_start: u16,
    /// Offset of the checksum from there.
    pub csum_offset: u16,
    /// `RX_CSUM_*`.
    pub checksum: u8,
    /// `RX_GSO_*`.
    pub gso_type: u8,
    /// 1 if the frame came over the VF.
    pub accelerated: u8,
    /// Zero.
    pub reserved: u8,
}

/// `struct npa_dma_memory`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DmaMemory {
    /// Virtual address; null when there is none.
    pub base: *mut u8,
    /// Device address.
    pub address: u64,
}

/// `struct npa_landing_range`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LandingRange {
    /// Virtual address; null when there is none.
    pub base: *mut u8,
    /// Length in bytes.
    pub length: usize,
    /// Guest physical address of each page.
    pub pages: *const u64,
}

/// Data bytes of a receive buffer: `NPA_RX_BUFFER`.
pub const RX_BUFFER_LENGTH: u32 = 2048;

/// Most pieces of a frame: `NPA_SEGMENTS_MAX`.
pub const SEGMENTS_MAX: usize = 18;

const _: () = {
    assert!(size_of::<Info>() == 14);
    assert!(size_of::<npa_abi::net::TxSegment>() == 16);
    assert!(size_of::<TxFrame>() == 40);
    assert!(size_of::<RxBuffer>() == 16);
    assert!(size_of::<RxPiece>() == 16);
    assert!(size_of::<RxFrame>() == 24);
    assert!(size_of::<DmaMemory>() == 16);
    assert!(size_of::<LandingRange>() == 24);
    assert!(SEGMENTS_MAX == npa_abi::net::TX_SEGMENTS_MAX);
    assert!(SEGMENTS_MAX == npa_abi::net::RX_SEGMENTS_MAX);
};

#[allow(missing_docs, reason = "documented in module/core.h")]
unsafe extern "C" {
    pub fn npa_os_config_read(dev: *mut NpaDev, offset: u16) -> u32;
    pub fn npa_os_mmio_read(dev: *mut NpaDev, bar: u8, offset: u64, width: u8) -> u32;
    pub fn npa_os_mmio_write(dev: *mut NpaDev, bar: u8, offset: u64, width: u8, value: u32);
    pub fn npa_os_bar_memory(dev: *mut NpaDev, bar: u8, offset: u64, length: u64) -> *mut u8;
    pub fn npa_os_dma_alloc(dev: *mut NpaDev, length: usize) -> DmaMemory;
    pub fn npa_os_dma_free(dev: *mut NpaDev, base: *mut u8, address: u64, length: usize);
    pub fn npa_os_memory_alloc(length: usize) -> *mut u8;
    pub fn npa_os_memory_free(memory: *mut u8);
    pub fn npa_os_landing(dev: *mut NpaDev) -> LandingRange;
    pub fn npa_os_wire_vectors(dev: *mut NpaDev, first: u32, count: u32) -> i32;
    pub fn npa_os_unwire_vectors(dev: *mut NpaDev, first: u32, count: u32);
    pub fn npa_os_schedule_event(dev: *mut NpaDev);
    pub fn npa_os_schedule_poll(dev: *mut NpaDev);
    pub fn npa_os_log(dev: *mut NpaDev, level: u32, text: *const u8, length: usize);
    pub fn npa_os_now_ns() -> u64;
    pub fn npa_os_sleep_ms(milliseconds: u32);
    pub fn npa_os_path_lock(dev: *mut NpaDev);
    pub fn npa_os_path_unlock(dev: *mut NpaDev);
    pub fn npa_os_rx_alloc(dev: *mut NpaDev) -> RxBuffer;
    pub fn npa_os_rx_free(dev: *mut NpaDev, handle: *mut c_void);
    pub fn npa_os_rx_data(
        dev: *mut NpaDev,
        handle: *mut c_void,
        offset: u32,
        length: u32,
    ) -> *const u8;
    pub fn npa_os_deliver(
        dev: *mut NpaDev,
        frame: *const RxFrame,
        pieces: *const RxPiece,
        count: u32,
    );
    pub fn npa_os_tx_done(dev: *mut NpaDev, handle: *mut c_void, sent: bool);
    pub fn npa_os_tx_stop(dev: *mut NpaDev);
    pub fn npa_os_tx_wake(dev: *mut NpaDev);
    pub fn npa_os_announce(dev: *mut NpaDev);
    pub fn npa_os_link_changed(dev: *mut NpaDev, up: bool);
}

#[cfg(test)]
#[path = "seam_test.rs"]
mod tests;
