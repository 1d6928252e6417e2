//! The header in front of each frame (`virtio_net_hdr_v1`, VIRTIO 1.2, section 5.1.6).

/// Length of the header in bytes, with `num_buffers`, which a modern device always has.
pub const HEADER_LEN: usize = 12;

/// Offset of `num_buffers`: over how many chains a received frame spreads.
pub(super) const NUM_BUFFERS: usize = 10;

/// Shortest frame with its header that makes sense: both addresses and the type.
pub(super) const SHORTEST: u64 = (HEADER_LEN + 14) as u64;

/// Longest frame with its header: an IP packet of 64 KiB with a VLAN tag.
pub(super) const LONGEST: u64 = (HEADER_LEN + 18 + 65_535) as u64;
