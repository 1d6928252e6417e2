//! What becomes of a received frame: delivered, or its buffers freed. Never touches a ring.

use super::group::{GroupHistory, frame_key};
use super::stats::Stats;
use crate::os::{NetOs, RxMeta, RxPiece};

/// How long after the traffic has moved a path may still bring copies of group-addressed frames
/// that the other delivered, in nanoseconds: the emulated path's way through bridge and tap.
const STRAGGLER_NS: u64 = 250_000_000;

/// Length of an Ethernet header.
pub(super) const ETHERNET_HEADER: u32 = 14;

/// How receive copes with two live paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// There is one path: every frame is delivered unseen.
    Off,
    /// A VF's ring is live but held: the emulated path's group frames are remembered.
    Held,
    /// The VF's ring, which was held, is being emptied: what the emulated path has delivered is
    /// dropped.
    Releasing,
    /// The VF carries the traffic: its group frames are remembered, the emulated path's copies
    /// dropped.
    Vf,
    /// The VF is gone; until this time the emulated path may bring copies.
    Until(u64),
}

/// Receive's state for one interface.
pub(super) struct Receiver {
    mac: [u8; 6],
    open: bool,
    watch: Watch,
    from_emulated: GroupHistory,
    from_vf: GroupHistory,
    pub(super) stats: Stats,
}

impl Receiver {
    /// A closed interface with the address `mac`; `None` without memory.
    pub(super) fn new(os: &impl NetOs, mac: [u8; 6]) -> Option<Self> {
        let from_emulated = GroupHistory::new(os)?;
        let Some(from_vf) = GroupHistory::new(os) else {
            from_emulated.free(os);
            return None;
        };
        let (open, watch, stats) = (false, Watch::Off, Stats::default());
        Some(Self { mac, open, watch, from_emulated, from_vf, stats })
    }

    pub(super) fn free(self, os: &impl NetOs) {
        self.from_emulated.free(os);
        self.from_vf.free(os);
    }

    pub(super) fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    /// A VF's ring is about to go live, held.
    pub(super) fn vf_appears(&mut self) {
        self.from_emulated.clear();
        self.from_vf.clear();
        self.watch = Watch::Held;
    }

    /// The VF's ring is released: emptied first.
    pub(super) fn vf_released(&mut self) {
        self.watch = Watch::Releasing;
    }

    /// The VF's ring has been found empty.
    pub(super) fn vf_empty(&mut self) {
        if self.watch == Watch::Releasing {
            self.watch = Watch::Vf;
            self.from_emulated.clear();
        }
    }

    /// The VF delivers nothing any more.
    pub(super) fn vf_gone(&mut self, now: u64) {
        self.watch = match self.watch {
            Watch::Vf | Watch::Releasing => Watch::Until(now.saturating_add(STRAGGLER_NS)),
            Watch::Off | Watch::Held => Watch::Off,
            until @ Watch::Until(_) => until,
        };
    }

    /// A path gave back a damaged frame.
    pub(super) fn count_error(&mut self, accelerated: bool) {
        let path = if accelerated { &mut self.stats.vf } else { &mut self.stats.emulated };
        path.rx_errors = path.rx_errors.wrapping_add(1);
    }

    /// A path gave back a frame that cannot be one.
    pub(super) fn reject<O: NetOs>(&mut self, os: &O, accelerated: bool, pieces: &[RxPiece]) {
        self.count_error(accelerated);
        free_all(os, pieces);
    }

    /// A path gave back a frame that its device should not have delivered.
    pub(super) fn discard<O: NetOs>(&mut self, os: &O, pieces: &[RxPiece]) {
        self.stats.rx_own_echoes = self.stats.rx_own_echoes.wrapping_add(1);
        free_all(os, pieces);
    }

    /// Takes a frame that a path indicated, with its buffers.
    pub(super) fn take<O: NetOs>(&mut self, os: &O, meta: &RxMeta, pieces: &[RxPiece]) {
        if !self.open {
            self.stats.rx_closed = self.stats.rx_closed.wrapping_add(1);
            return free_all(os, pieces);
        }
        if self.watch != Watch::Off && self.is_unwanted(os, meta, pieces) {
            return free_all(os, pieces);
        }
        let path = if meta.accelerated { &mut self.stats.vf } else { &mut self.stats.emulated };
        path.rx_frames = path.rx_frames.wrapping_add(1);
        path.rx_bytes = path.rx_bytes.wrapping_add(u64::from(meta.length));
        os.deliver(meta, pieces);
    }

    /// Whether the frame is our own, come back through the adapter's switch, or a copy of one
    /// that the other path delivered.
    fn is_unwanted<O: NetOs>(&mut self, os: &O, meta: &RxMeta, pieces: &[RxPiece]) -> bool {
        let Some(first) = pieces.first() else { return false };
        let length = first.length.min(ETHERNET_HEADER);
        let Some(header) = os.rx_data(first.handle, first.offset, length) else { return false };
        if header.get(6..12) == Some(self.mac.as_slice()) {
            self.stats.rx_own_echoes = self.stats.rx_own_echoes.wrapping_add(1);
            return true;
        }
        if header.first().is_none_or(|byte| byte & 1 == 0) {
            return false;
        }
        let now = os.now_ns();
        if let Watch::Until(end) = self.watch
            && now >= end
        {
            self.watch = Watch::Off;
            return false;
        }
        let Some(key) = frame_key(os, meta, pieces) else { return false };
        let recent = now.saturating_sub(STRAGGLER_NS);
        let double = match (self.watch, meta.accelerated) {
            (Watch::Releasing, true) => self.from_emulated.take(key, 0),
            (Watch::Releasing | Watch::Vf | Watch::Until(_), false) => {
                self.from_vf.take(key, recent)
            }
            _ => false,
        };
        if double {
            self.stats.rx_group_duplicates = self.stats.rx_group_duplicates.wrapping_add(1);
        } else if meta.accelerated {
            self.from_vf.remember(key, now);
        } else if matches!(self.watch, Watch::Held | Watch::Releasing) {
            self.from_emulated.remember(key, now);
        }
        double
    }
}

fn free_all<O: NetOs>(os: &O, pieces: &[RxPiece]) {
    for piece in pieces {
        os.rx_free(piece.handle);
    }
}
