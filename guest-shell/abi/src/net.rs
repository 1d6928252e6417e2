//! The net class: ops and frames. Queue `2n` receives and queue `2n + 1` transmits, as in
//! virtio-net (virtio 1.2, 5.1.2), so role 0 is receive and role 1 is transmit.

use crate::plugin::{Instance, Status};

/// Role index of receive queues in [`crate::image::PluginHeader::roles`].
pub const ROLE_RX: usize = 0;
/// Role index of transmit queues.
pub const ROLE_TX: usize = 1;

/// Most segments of a frame to send.
pub const TX_SEGMENTS_MAX: usize = 18;
/// Most segments of a received frame.
pub const RX_SEGMENTS_MAX: usize = 18;

/// Frame to send: insert [`TxFrame::vlan_tag`].
pub const TX_VLAN: u16 = 1 << 0;
/// Frame to send: fill in the layer 4 checksum from `csum_start` on, at `csum_offset` from there;
/// the pseudo-header's sum is already in that place.
pub const TX_CSUM: u16 = 1 << 1;
/// Frame to send: cut TCP segments of [`TxFrame::mss`] payload bytes. Implies [`TX_CSUM`]; the
/// pseudo-header's sum is over the uncut frame, as the stack and virtio have it.
pub const TX_TSO: u16 = 1 << 2;
/// Frame to send is IPv4.
pub const TX_IPV4: u16 = 1 << 3;
/// Frame to send is IPv6.
pub const TX_IPV6: u16 = 1 << 4;
/// Frame to send is TCP.
pub const TX_TCP: u16 = 1 << 5;
/// Frame to send is UDP.
pub const TX_UDP: u16 = 1 << 6;

/// A piece of a frame to send.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxSegment {
    /// Device address of the first byte.
    pub address: u64,
    /// Length in bytes, not zero.
    pub length: u32,
    /// Zero.
    pub reserved: u32,
}

/// A frame to send, without FCS. Lengths and offsets are in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TxFrame {
    /// `segment_count` segments; legal for the plugin to read only during the call.
    pub segments: *const TxSegment,
    /// 1 to [`TX_SEGMENTS_MAX`].
    pub segment_count: u16,
    /// `TX_*` flags.
    pub flags: u16,
    /// Length of the whole frame.
    pub length: u32,
    /// With [`TX_TSO`]: TCP payload bytes per segment.
    pub mss: u16,
    /// With [`TX_VLAN`]: the tag control information.
    pub vlan_tag: u16,
    /// Length of the Ethernet header, or where layer 3 begins.
    pub l2_length: u16,
    /// Length of the layer 3 header, extension headers included.
    pub l3_length: u16,
    /// Length of the layer 4 header.
    pub l4_length: u16,
    /// With [`TX_CSUM`]: where the checksummed range begins.
    pub csum_start: u16,
    /// With [`TX_CSUM`]: offset of the checksum field from `csum_start`.
    pub csum_offset: u16,
    /// Zero.
    pub reserved: u16,
    /// With [`TX_TSO`]: virtual address of the frame's headers (`l2_length + l3_length +
    /// l4_length` bytes, all within the first segment), for devices that want them changed and
    /// so need a copy; the plugin only reads, during the call. Null where the shell cannot tell.
    pub headers: *const u8,
}

/// Checksum of a received frame was not looked at.
pub const RX_CSUM_UNKNOWN: u8 = 0;
/// Checksum of a received frame is right.
pub const RX_CSUM_CORRECT: u8 = 1;
/// Checksum of a received frame is wrong; the stack decides.
pub const RX_CSUM_INCORRECT: u8 = 2;
/// Frame comes from this machine and carries only the pseudo-header's sum
/// (`csum_start`, `csum_offset`).
pub const RX_CSUM_PARTIAL: u8 = 3;

/// Received frame carries [`RxFrame::vlan_tag`].
pub const RX_VLAN: u16 = 1 << 0;
/// Received frame carries [`RxFrame::hash`].
pub const RX_HASH: u16 = 1 << 1;
/// The frame only gives its slots' buffers back and is no error: the device should not have
/// delivered it (an echo of the interface's own broadcast, say).
pub const RX_DISCARD: u16 = 1 << 2;

/// Received frame is not a merged one.
pub const RX_GSO_NONE: u8 = 0;
/// Received frame merges TCP/IPv4 segments of [`RxFrame::gso_size`] payload bytes.
pub const RX_GSO_TCPV4: u8 = 1;
/// Received frame merges TCP/IPv6 segments.
pub const RX_GSO_TCPV6: u8 = 2;

/// A piece of a received frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxSegment {
    /// Ring slot whose buffer holds it (see `alloc_rx_buffer`). A slot is indicated at most once
    /// per filling.
    pub slot: u32,
    /// Where the piece begins in the buffer, in bytes.
    pub offset: u32,
    /// Length in bytes.
    pub length: u32,
}

/// A received frame, without FCS. A frame with `segment_count` 1 and `length` 0 only gives its
/// slot's buffer back (a damaged frame); the shell counts it as an error. A frame with
/// [`RX_DISCARD`] gives the buffers of all its segments back and is not counted as one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RxFrame {
    /// `segment_count` segments; read by the shell only during the call.
    pub segments: *const RxSegment,
    /// 1 to [`RX_SEGMENTS_MAX`].
    pub segment_count: u16,
    /// `RX_*` flags.
    pub flags: u16,
    /// Length of the whole frame in bytes.
    pub length: u32,
    /// VLAN tag control information.
    pub vlan_tag: u16,
    /// One of `RX_CSUM_*`.
    pub checksum: u8,
    /// One of `RX_GSO_*`.
    pub gso_type: u8,
    /// Payload bytes per merged segment.
    pub gso_size: u16,
    /// With [`RX_CSUM_PARTIAL`]: where the checksummed range begins.
    pub csum_start: u16,
    /// With [`RX_CSUM_PARTIAL`]: offset of the checksum field from `csum_start`.
    pub csum_offset: u16,
    /// Length of all headers for a merged frame, or 0 where unknown.
    pub header_length: u16,
    /// RSS hash value.
    pub hash: u32,
}

/// Words 0-7 of [`Instance::device_info`] for the net class.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The interface's MAC address.
    pub mac: [u8; 6],
    /// MTU in bytes, without the Ethernet header.
    pub mtu: u16,
    /// Class-defined, zero.
    pub reserved: [u32; 6],
}

/// Answer of `enable_interrupt`: armed, and nothing was waiting.
pub const ARMED: Status = 0;
/// Answer of `enable_interrupt`: work waits already; poll again.
pub const WORK_WAITS: Status = 1;

/// The ops of a net plugin. `size` and `abi` come first; the plugin fills all that it is given
/// room for. All counts are frames; budgets bound the work of one call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NetOps {
    /// Bytes that the plugin filled.
    pub size: u32,
    /// ABI version that the plugin will speak.
    pub abi: u32,
    /// Initialises software state only, touching no device register. `OK` or `ERR_CONFIG`.
    pub sw_init: Option<unsafe extern "sysv64" fn(*mut Instance) -> Status>,
    /// Zeroes receive ring `queue` and programs it, empty and enabled. Never returns buffers: the
    /// shell takes back what it had outstanding. `OK`, `ERR_QUEUE` or `ERR_DEVICE`.
    pub reinit_rx_ring: Option<unsafe extern "sysv64" fn(*mut Instance, queue: u32) -> Status>,
    /// The same for transmit ring `queue`.
    pub reinit_tx_ring: Option<unsafe extern "sysv64" fn(*mut Instance, queue: u32) -> Status>,
    /// Arms the interrupt of `queue`: [`ARMED`] or [`WORK_WAITS`] (the interrupt may then come as
    /// well), or `ERR_QUEUE`.
    pub enable_interrupt: Option<unsafe extern "sysv64" fn(*mut Instance, queue: u32) -> Status>,
    /// Disarms the interrupt of `queue`. `OK` or `ERR_QUEUE`.
    pub disable_interrupt: Option<unsafe extern "sysv64" fn(*mut Instance, queue: u32) -> Status>,
    /// Puts up to `count` frames on transmit ring `queue`, in order, with one doorbell at the end.
    /// Answers how many were taken (fewer only because the ring is full), or an error.
    pub add_frames_to_tx_ring: Option<
        unsafe extern "sysv64" fn(
            *mut Instance,
            queue: u32,
            frames: *const TxFrame,
            count: u32,
        ) -> Status,
    >,
    /// Reports finished transmits of `queue` by `complete_send`, in the order in which they were
    /// given. Answers how many frames it reported.
    pub check_tx_ring: Option<unsafe extern "sysv64" fn(*mut Instance, queue: u32) -> Status>,
    /// Hands up to `budget` received frames of `queue` to `indicate_recv`. Answers how many,
    /// damaged and discarded ones included.
    pub check_rx_ring:
        Option<unsafe extern "sysv64" fn(*mut Instance, queue: u32, budget: u32) -> Status>,
    /// Fills up to `count` empty slots of receive ring `queue` with buffers from
    /// `alloc_rx_buffer`, one doorbell at the end. Answers how many were added; 0 with the ring
    /// full or no buffer to be had.
    pub add_buffers_to_rx_ring:
        Option<unsafe extern "sysv64" fn(*mut Instance, queue: u32, count: u32) -> Status>,
    /// Stops the device's DMA and interrupts for all queues; the last op but one: `check_rx_ring` is
    /// called once more, for what the device had finished, and has memory to go by alone. `OK`, or
    /// `ERR_DEVICE` when the device does not answer (the hypervisor resets it in any case).
    pub quiesce: Option<unsafe extern "sysv64" fn(*mut Instance) -> Status>,
}
