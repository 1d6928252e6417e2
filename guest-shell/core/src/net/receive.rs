//! What becomes of a received frame: delivered, or its buffers freed. Never touches a ring.

use super::callbacks::Pieces;
use super::group::{GroupHistory, frame_key};
use super::stats::Stats;
use crate::os::{NetOs, RxMeta, RxPiece};

/// How much later than one path the other may bring its copy of a group-addressed frame, in
/// nanoseconds: the way through bridge and tap.
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
    /// The VF's ring, which was held, is being emptied: what the emulated path delivered meanwhile,
    /// however long ago, is dropped.
    Releasing,
    /// Both paths are polled: what the other one delivered lately is dropped. Which copy comes
    /// first is not known: the wire's reach the VF first, those of the host's own bridge may not.
    Both,
    /// The VF is gone; until this time the emulated path may bring copies.
    Until(u64),
}

/// Receive's state for one interface.
pub(super) struct Receiver {
    mac: [u8; 6],
    open: bool,
    watch: Watch,
    /// The next frame waits for [`Receiver::open_gate`].
    gate_shut: bool,
    /// The frame that waits. One is enough: the path is asked for one.
    waiting: Option<(RxMeta, Pieces)>,
    /// When the present or last VF's ring went live.
    appeared: u64,
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
        Some(Self {
            mac,
            open: false,
            watch: Watch::Off,
            gate_shut: false,
            waiting: None,
            appeared: 0,
            from_emulated,
            from_vf,
            stats: Stats::default(),
        })
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
    pub(super) fn vf_appears(&mut self, now: u64) {
        self.appeared = now;
        self.watch = Watch::Held;
    }

    /// The VF's ring is released: emptied first.
    pub(super) fn vf_released(&mut self) {
        self.watch = Watch::Releasing;
    }

    /// The VF's ring has been found empty.
    pub(super) fn vf_empty(&mut self) {
        if self.watch == Watch::Releasing {
            self.watch = Watch::Both;
        }
    }

    /// The VF delivers nothing any more.
    pub(super) fn vf_gone(&mut self, now: u64) {
        self.watch = match self.watch {
            // Held: copies of what an earlier VF delivered may still come.
            Watch::Held | Watch::Releasing | Watch::Both => {
                Watch::Until(now.saturating_add(STRAGGLER_NS))
            }
            Watch::Off => Watch::Off,
            until @ Watch::Until(_) => until,
        };
    }

    /// Keeps the emulated path's next frame back, to look first at what is to come before it.
    pub(super) fn shut_gate(&mut self) {
        self.gate_shut = true;
    }

    /// Delivers the frame that was kept back, if there is one.
    pub(super) fn open_gate<O: NetOs>(&mut self, os: &O) {
        self.gate_shut = false;
        if let Some((meta, pieces)) = self.waiting.take() {
            self.take(os, &meta, pieces);
        }
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
    pub(super) fn take<O: NetOs>(&mut self, os: &O, meta: &RxMeta, pieces: Pieces) {
        if self.gate_shut && !meta.accelerated && self.waiting.is_none() {
            self.waiting = Some((*meta, pieces));
            return;
        }
        let pieces = pieces.as_slice();
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
        let (own, other) = if meta.accelerated {
            (&mut self.from_vf, &mut self.from_emulated)
        } else {
            (&mut self.from_emulated, &mut self.from_vf)
        };
        let since = match self.watch {
            Watch::Releasing if meta.accelerated => self.appeared.min(recent),
            _ => recent,
        };
        let double = other.take(key, since);
        if double {
            self.stats.rx_group_duplicates = self.stats.rx_group_duplicates.wrapping_add(1);
        } else {
            own.remember(key, now);
        }
        double
    }
}

fn free_all<O: NetOs>(os: &O, pieces: &[RxPiece]) {
    for piece in pieces {
        os.rx_free(piece.handle);
    }
}
