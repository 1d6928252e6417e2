//! What the device must be told, or given, to fill in checksums, VLAN tags and to cut segments.

use npa_abi::net::{TX_CSUM, TX_IPV4, TX_TCP, TX_TSO, TX_VLAN, TxFrame};
use npa_plugin_sdk::net::SendFrame;

/// Room for a copy of a frame's headers, in bytes.
pub(crate) const HEADERS_MAX: usize = 128;

/// Context descriptor, second word: advanced context descriptor.
const CONTEXT: u64 = 0x0020_0000 | 1 << 29;
/// Context descriptor: IPv4.
const CONTEXT_IPV4: u64 = 0x400;
/// Context descriptor: TCP.
const CONTEXT_TCP: u64 = 0x800;
/// Data descriptor, high half of the second word: fill in the IPv4 header's checksum.
const IP_CHECKSUM: u64 = 0x100 << 32;
/// Data descriptor, high half of the second word: fill in the layer 4 checksum.
const L4_CHECKSUM: u64 = 0x200 << 32;

/// Where the TCP checksum is in its header: tells TCP from UDP.
const TCP_CHECKSUM: u16 = 16;

/// A context descriptor's content: the device keeps it for the frames that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    vlan_tag: u16,
    l2_length: u16,
    l3_length: u16,
    l4_length: u16,
    mss: u16,
    kinds: u64,
}

impl Context {
    /// The context that `frame` needs; `None` when none.
    pub(crate) fn of(frame: &TxFrame) -> Option<Self> {
        let checksum = frame.flags & (TX_CSUM | TX_TSO) != 0;
        let vlan = frame.flags & TX_VLAN != 0;
        if !checksum && !vlan {
            return None;
        }
        let cut = frame.flags & TX_TSO != 0;
        let mut kinds = 0;
        if frame.flags & TX_IPV4 != 0 {
            kinds |= CONTEXT_IPV4;
        }
        if frame.flags & TX_TCP != 0 || cut || (checksum && frame.csum_offset == TCP_CHECKSUM) {
            kinds |= CONTEXT_TCP;
        }
        Some(Self {
            vlan_tag: if vlan { frame.vlan_tag } else { 0 },
            l2_length: frame.l2_length,
            l3_length: l3_length(frame),
            l4_length: if cut { frame.l4_length } else { 0 },
            mss: if cut { frame.mss } else { 0 },
            kinds,
        })
    }

    /// The descriptor's two words.
    pub(crate) fn encode(&self) -> (u64, u64) {
        let low = u64::from(self.vlan_tag) << 16
            | u64::from(self.l2_length & 0x7f) << 9
            | u64::from(self.l3_length & 0x1ff);
        let high = u64::from(self.mss) << 16 | u64::from(self.l4_length & 0xff) << 8;
        (low, CONTEXT | self.kinds | high << 32)
    }
}

/// Layer 3 header's length in bytes: up to where the checksum begins, if there is one to fill in.
fn l3_length(frame: &TxFrame) -> u16 {
    if frame.flags & TX_CSUM != 0 && frame.csum_start > frame.l2_length {
        frame.csum_start - frame.l2_length
    } else {
        frame.l3_length
    }
}

/// The high half of the data descriptors' second word: payload length and what to fill in.
pub(crate) fn options(frame: &TxFrame) -> u64 {
    let cut = frame.flags & TX_TSO != 0;
    let headers =
        u32::from(frame.l2_length) + u32::from(frame.l3_length) + u32::from(frame.l4_length);
    let payload = if cut { frame.length.saturating_sub(headers) } else { frame.length };
    let mut options = u64::from(payload) << 14 << 32;
    if frame.flags & (TX_CSUM | TX_TSO) != 0 {
        options |= L4_CHECKSUM;
    }
    if cut && frame.flags & TX_IPV4 != 0 {
        options |= IP_CHECKSUM;
    }
    options
}

/// A changed copy of a frame's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Headers {
    bytes: [u8; HEADERS_MAX],
    /// Length in bytes.
    pub(crate) length: u32,
}

impl Headers {
    /// The bytes as little endian words, the last one filled up.
    pub(crate) fn words(&self) -> impl Iterator<Item = u64> + '_ {
        let (words, _) = self.bytes.as_chunks::<8>();
        let used = (self.length as usize).div_ceil(8);
        words.iter().take(used).map(|word| u64::from_le_bytes(*word))
    }

    fn set(&mut self, offset: usize, value: [u8; 2]) {
        if let Some(place) = self.bytes.get_mut(offset..).and_then(<[u8]>::first_chunk_mut) {
            *place = value;
        }
    }

    fn get(&self, offset: usize) -> [u8; 2] {
        let place = self.bytes.get(offset..).and_then(<[u8]>::first_chunk::<2>);
        place.copied().unwrap_or_default()
    }
}

/// The headers of a frame to cut, as the device wants them: no length in the IP header nor in the
/// pseudo-header's sum, since it puts each segment's in, and no IP checksum. `None` when they
/// cannot be copied: then the frame goes as it is, which devices that compute both anew accept.
pub(crate) fn headers(frame: &SendFrame<'_>) -> Option<Headers> {
    let description = frame.describe();
    let original = frame.headers();
    let l3 = usize::from(description.l2_length);
    let l4 = l3 + usize::from(description.l3_length);
    let checksum = l4 + usize::from(TCP_CHECKSUM);
    if original.len() > HEADERS_MAX || original.len() < checksum + 2 {
        return None;
    }
    let mut copy = Headers { bytes: [0; HEADERS_MAX], length: original.len() as u32 };
    for (to, from) in copy.bytes.iter_mut().zip(original) {
        *to = *from;
    }
    if description.flags & TX_IPV4 != 0 {
        copy.set(l3 + 2, [0; 2]);
        copy.set(l3 + 10, [0; 2]);
    } else {
        copy.set(l3 + 4, [0; 2]);
    }
    let with_length = u16::from_be_bytes(copy.get(checksum));
    let length = description.length.saturating_sub(l4 as u32);
    copy.set(checksum, without(with_length, length).to_be_bytes());
    Some(copy)
}

/// Takes `length` out of a one's complement sum (RFC 1624).
fn without(sum: u16, length: u32) -> u16 {
    let folded = (length & 0xffff) + (length >> 16);
    let total = u32::from(sum) + u32::from(!((folded & 0xffff) + (folded >> 16)) as u16);
    ((total & 0xffff) + (total >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One's complement sum of 16-bit words.
    fn sum(words: &[u16]) -> u16 {
        let total: u32 = words.iter().map(|&word| u32::from(word)).sum();
        let folded = (total & 0xffff) + (total >> 16);
        ((folded & 0xffff) + (folded >> 16)) as u16
    }

    #[test]
    fn the_length_comes_out_of_the_pseudo_header_sum() {
        for length in [1u16, 20, 1480, 0x7fff, 0xffef] {
            let rest = [0xc0a8, 0x0001, 0xc0a8, 0x0002, 0x0006];
            let with = sum(&[&rest[..], &[length]].concat());
            let got = without(with, length.into());
            // Zero has two forms in one's complement.
            assert_eq!(got % 0xffff, sum(&rest) % 0xffff, "length {length}");
        }
    }

    #[test]
    fn frames_without_offloads_need_no_context() {
        let frame = TxFrame {
            segments: core::ptr::null(),
            segment_count: 0,
            flags: TX_IPV4 | TX_TCP,
            length: 60,
            mss: 0,
            vlan_tag: 0,
            l2_length: 14,
            l3_length: 20,
            l4_length: 20,
            csum_start: 0,
            csum_offset: 0,
            reserved: 0,
            headers: core::ptr::null(),
        };
        assert_eq!(Context::of(&frame), None);
        let tagged = TxFrame { flags: TX_VLAN, vlan_tag: 0x0123, ..frame };
        let (low, _) = Context::of(&tagged).unwrap().encode();
        assert_eq!(low >> 16, 0x0123);
        let checked = TxFrame { flags: TX_CSUM | TX_IPV4, csum_start: 34, csum_offset: 6, ..frame };
        let (low, high) = Context::of(&checked).unwrap().encode();
        assert_eq!((low & 0x1ff, low >> 9 & 0x7f), (20, 14));
        assert_eq!(high & CONTEXT_TCP, 0);
        assert_eq!(high & CONTEXT_IPV4, CONTEXT_IPV4);
    }
}
