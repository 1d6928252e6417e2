//! Group-addressed frames reach both the VF and the emulated path while both are alive. This
//! remembers what one path delivered, so that the other's copy is dropped, each copy once. Never
//! looks at unicast frames: the forwarding entry gives these to one path.

use crate::memory::Table;
use crate::os::{NetOs, RxMeta, RxPiece};
use npa_abi::net::RX_CSUM_PARTIAL;

/// Frames remembered per path; as many as a receive ring holds, so that all that waits in a held
/// ring can be told apart.
const REMEMBERED: usize = 256;

/// A remembered frame: its key (0: free) and when it was delivered.
type Entry = [u64; 2];

/// Frames that a path has delivered lately.
pub(super) struct GroupHistory {
    entries: Table<Entry>,
    next: usize,
}

impl GroupHistory {
    /// An empty history; `None` without memory.
    pub(super) fn new(os: &impl NetOs) -> Option<Self> {
        Some(Self { entries: Table::new(os, REMEMBERED)?, next: 0 })
    }

    /// Remembers a delivery at time `now`, over the oldest one.
    pub(super) fn remember(&mut self, key: u64, now: u64) {
        if let Some(entry) = self.entries.as_mut_slice().get_mut(self.next) {
            *entry = [key, now];
        }
        self.next = self.next.wrapping_add(1) % REMEMBERED;
    }

    /// Whether `key` was delivered at `since` or later; forgets that delivery.
    pub(super) fn take(&mut self, key: u64, since: u64) -> bool {
        let entries = self.entries.as_mut_slice();
        let found = entries.iter_mut().find(|[known, at]| *known == key && *at >= since);
        match found {
            Some(entry) => {
                *entry = [0, 0];
                true
            }
            None => false,
        }
    }

    /// Frees the memory.
    pub(super) fn free(self, os: &impl NetOs) {
        self.entries.free(os);
    }
}

/// A key of the frame's bytes as they would be on the wire: a checksum that is not filled in yet
/// (a frame from this host) counts as filled in. `None` if the bytes cannot be read.
pub(super) fn frame_key<O: NetOs>(os: &O, meta: &RxMeta, pieces: &[RxPiece]) -> Option<u64> {
    let checksum = match meta.checksum {
        RX_CSUM_PARTIAL => {
            let start = usize::from(meta.csum_start);
            let at = start.saturating_add(usize::from(meta.csum_offset));
            Some((at, final_checksum(os, pieces, start)?))
        }
        _ => None,
    };
    // FNV-1a, 64 bits.
    let mut key = 0xcbf2_9ce4_8422_2325u64;
    for_each_byte(os, pieces, |index, byte| {
        let byte = match checksum {
            Some((at, [high, _])) if index == at => high,
            Some((at, [_, low])) if index == at.wrapping_add(1) => low,
            _ => byte,
        };
        key = (key ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    })?;
    Some(key.max(1))
}

/// The internet checksum from `start` on, in network byte order; the field itself holds the
/// pseudo-header's sum, which is part of it.
fn final_checksum<O: NetOs>(os: &O, pieces: &[RxPiece], start: usize) -> Option<[u8; 2]> {
    let mut sum = 0u64;
    for_each_byte(os, pieces, |index, byte| {
        if let Some(offset) = index.checked_sub(start) {
            let shift = if offset % 2 == 0 { 8 } else { 0 };
            sum = sum.wrapping_add(u64::from(byte) << shift);
        }
    })?;
    while sum >> 16 != 0 {
        sum = (sum & 0xffff).wrapping_add(sum >> 16);
    }
    // Zero would mean "no checksum" in UDP (RFC 768); hardware sends ones then.
    let sum = match !(sum as u16) {
        0 => 0xffff,
        sum => sum,
    };
    Some(sum.to_be_bytes())
}

fn for_each_byte<O: NetOs>(
    os: &O,
    pieces: &[RxPiece],
    mut visit: impl FnMut(usize, u8),
) -> Option<()> {
    let mut index = 0usize;
    for piece in pieces {
        for byte in os.rx_data(piece.handle, piece.offset, piece.length)? {
            visit(index, *byte);
            index = index.wrapping_add(1);
        }
    }
    Some(())
}
