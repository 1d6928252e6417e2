//! The header before every frame (virtio 1.2, 5.1.6).

use npa_abi::net::{
    RX_CSUM_CORRECT, RX_CSUM_PARTIAL, RX_CSUM_UNKNOWN, RX_GSO_NONE, RX_GSO_TCPV4, RX_GSO_TCPV6,
    RxFrame, TX_CSUM, TX_IPV6, TX_TSO, TxFrame,
};
use npa_plugin_sdk::net::plain;

/// Bytes of the header, `num_buffers` included: always there without the legacy interface.
pub const HEADER_LENGTH: u32 = 12;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// Bit beside the type: the segments carry congestion marks.
const GSO_ECN: u8 = 0x80;

/// The header's fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) flags: u8,
    pub(crate) gso_type: u8,
    pub(crate) header_length: u16,
    pub(crate) gso_size: u16,
    pub(crate) csum_start: u16,
    pub(crate) csum_offset: u16,
    pub(crate) buffers: u16,
}

impl FrameHeader {
    /// The header of a frame to send; `inserted` bytes (a VLAN tag) go in before layer 3.
    pub(crate) fn for_sending(frame: &TxFrame, inserted: u16) -> Self {
        let mut header = Self::default();
        if frame.flags & (TX_CSUM | TX_TSO) != 0 {
            header.flags = F_NEEDS_CSUM;
            header.csum_start = frame.csum_start.wrapping_add(inserted);
            header.csum_offset = frame.csum_offset;
        }
        if frame.flags & TX_TSO != 0 {
            header.gso_type = if frame.flags & TX_IPV6 != 0 { GSO_TCPV6 } else { GSO_TCPV4 };
            header.gso_size = frame.mss;
            header.header_length = frame
                .l2_length
                .wrapping_add(frame.l3_length)
                .wrapping_add(frame.l4_length)
                .wrapping_add(inserted);
        }
        header
    }

    /// The header as two little endian words: bytes 0-7, and 8-11.
    pub(crate) fn encode(&self) -> (u64, u32) {
        let first = u64::from(self.flags)
            | u64::from(self.gso_type) << 8
            | u64::from(self.header_length) << 16
            | u64::from(self.gso_size) << 32
            | u64::from(self.csum_start) << 48;
        (first, u32::from(self.csum_offset) | u32::from(self.buffers) << 16)
    }

    /// Reads a received header.
    pub(crate) fn decode(bytes: [u8; HEADER_LENGTH as usize]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, b0, b1] = bytes;
        Self {
            flags,
            gso_type,
            header_length: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
            buffers: u16::from_le_bytes([b0, b1]),
        }
    }

    /// Describes a received frame of `length` bytes; `None` when the header cannot be true, or
    /// says what was not negotiated (`partial`: frames with a partial checksum or merged ones).
    pub(crate) fn describe(&self, length: u32, partial: bool) -> Option<RxFrame> {
        let mut frame = plain(length, 0);
        frame.checksum = match (self.flags & F_NEEDS_CSUM != 0, self.flags & F_DATA_VALID != 0) {
            (true, _) => RX_CSUM_PARTIAL,
            (false, true) => RX_CSUM_CORRECT,
            (false, false) => RX_CSUM_UNKNOWN,
        };
        if frame.checksum == RX_CSUM_PARTIAL {
            let end = u32::from(self.csum_start) + u32::from(self.csum_offset) + 2;
            if !partial || end > length {
                return None;
            }
            frame.csum_start = self.csum_start;
            frame.csum_offset = self.csum_offset;
        }
        frame.gso_type = match self.gso_type & !GSO_ECN {
            GSO_NONE => RX_GSO_NONE,
            GSO_TCPV4 => RX_GSO_TCPV4,
            GSO_TCPV6 => RX_GSO_TCPV6,
            _ => return None,
        };
        if frame.gso_type != RX_GSO_NONE {
            if !partial || self.gso_size == 0 {
                return None;
            }
            frame.gso_size = self.gso_size;
            // A hint only (virtio 1.2, 5.1.6.2): passed on where it can be true.
            if u32::from(self.header_length) <= length {
                frame.header_length = self.header_length;
            }
        }
        Some(frame)
    }
}
