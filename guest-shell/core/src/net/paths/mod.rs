//! Both paths of an interface, as they stand behind the path lock: which one sends, which ones
//! deliver, and how that moves. Everything that moves traffic does so here, from poll and transmit;
//! nothing waits.

mod moves;
mod traffic;

use super::path::NetPath;
use super::receive::Receiver;
use super::shell::PluginLabel;
use super::stats::Stats;
use super::transmit::TxFifo;
use crate::handshake::RevokedWord;
use crate::os::{NetOs, TxHandle};
use npa_abi::net::{TxFrame, TxSegment};

/// Outcome of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    /// Frames received, at most the budget.
    pub done: u32,
    /// Work waits: poll again, soon. Otherwise interrupts are armed.
    pub again: bool,
}

/// Frames that may wait for the end of a burst before the ring is written.
const BURST_MAX: u32 = 32;

/// Which path sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum Route {
    /// The emulated path.
    Emulated,
    /// None, until the emulated path has completed what it has; then the VF.
    DrainToVf,
    /// The VF.
    Vf,
    /// None, until the VF has completed what it has; then the emulated path.
    DrainToEmulated,
    /// None: the VF's plugin was stopped, and the VF may still send what it has.
    Stalled,
}

impl Route {
    /// Whether the outstanding frames are with the VF.
    const fn is_with_vf(self) -> bool {
        matches!(self, Self::Vf | Self::DrainToEmulated | Self::Stalled)
    }
}

/// Which paths deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum Delivery {
    /// The emulated path; a VF's ring, if any, is held.
    Emulated,
    /// The emulated path until it is empty; then both.
    ToVf,
    /// Both; the emulated path only brings stragglers.
    Both,
    /// The VF; the emulated path is held.
    EmulatedHeld,
    /// The VF until it is empty; then it is quiesced and the emulated path delivers.
    DrainVf,
}

/// The VF path and what belongs to it.
pub(in crate::net) struct VfPath {
    path: NetPath,
    generation: u32,
    revoked: RevokedWord,
    label: PluginLabel,
    /// The plugin may be called.
    live: bool,
    /// The plugin was quiesced in good order.
    quiesced: bool,
}

impl VfPath {
    /// A path, held: set up and filled if `live`, else to be freed only.
    pub(in crate::net) fn new(
        path: NetPath,
        generation: u32,
        revoked: RevokedWord,
        label: PluginLabel,
        live: bool,
    ) -> Self {
        Self { path, generation, revoked, label, live, quiesced: false }
    }

    /// Frees what it holds. The VF may not write there any more.
    pub(in crate::net) fn free(self, os: &impl NetOs) {
        self.path.free(os);
    }

    fn is_revoked(&self) -> bool {
        self.live && self.revoked.read() == self.generation
    }
}

/// The paths of a started interface.
pub(in crate::net) struct Paths {
    emulated: NetPath,
    vf: Option<VfPath>,
    frames: TxFifo,
    pub(in crate::net) receiver: Receiver,
    route: Route,
    delivery: Delivery,
    /// On the way back: once both sides allow, send on the emulated path and hold its receive.
    returning: bool,
    /// The stack was told to stop sending.
    stopped: bool,
}

impl Paths {
    /// An interface on its emulated path.
    pub(in crate::net) fn new(emulated: NetPath, frames: TxFifo, receiver: Receiver) -> Self {
        Self {
            emulated,
            vf: None,
            frames,
            receiver,
            route: Route::Emulated,
            delivery: Delivery::Emulated,
            returning: false,
            stopped: false,
        }
    }

    /// Which path sends and which ones deliver.
    pub(in crate::net) const fn position(&self) -> (Route, Delivery) {
        (self.route, self.delivery)
    }

    /// The plugin that sends.
    pub(in crate::net) fn label(&self) -> Option<PluginLabel> {
        self.vf.as_ref().filter(|_| self.route == Route::Vf).map(|vf| vf.label)
    }

    /// Whether the VF's plugin broke a rule.
    pub(in crate::net) fn vf_has_fault(&self) -> bool {
        self.vf.as_ref().is_some_and(|vf| vf.path.has_fault())
    }

    /// Whether the VF's plugin was quiesced.
    pub(in crate::net) fn vf_is_quiesced(&self) -> bool {
        self.vf.as_ref().is_some_and(|vf| vf.quiesced)
    }

    /// Whether a receive ring runs short of buffers.
    pub(in crate::net) fn is_starved(&self) -> bool {
        self.emulated.is_starved()
            || self.vf.as_ref().is_some_and(|vf| vf.live && vf.path.is_starved())
    }

    /// The network was told where the interface is.
    pub(in crate::net) fn count_announcement(&mut self) {
        self.count(|stats| &mut stats.announcements, 1);
    }

    /// The counters.
    pub(in crate::net) const fn stats(&self) -> Stats {
        self.receiver.stats
    }

    /// One round of work: completions, received frames, steps of a switch, frames that wait.
    pub(in crate::net) fn poll<O: NetOs>(&mut self, os: &O, budget: u32) -> Poll {
        self.count(|stats| &mut stats.polls, 1);
        let before = self.position();
        self.notice_revoke(os);
        self.reap(os);
        let (done, more) = self.receive(os, budget);
        self.advance();
        self.submit(os);
        self.wake(os);
        if self.position() != before {
            os.schedule_event();
        }
        let again = more || done >= budget || self.arm(os);
        Poll { done, again }
    }

    /// Takes a frame to send; `false` if there is no room, and the stack was told to stop.
    pub(in crate::net) fn transmit<O: NetOs>(
        &mut self,
        os: &O,
        frame: &TxFrame,
        segments: &[TxSegment],
        handle: TxHandle,
        more: bool,
    ) -> bool {
        if self.frames.room() == 0 {
            self.reap(os);
            self.submit(os);
        }
        if self.frames.room() == 0 {
            self.stop_stack(os);
            return false;
        }
        if !self.frames.push(frame, segments, handle) {
            // Not a frame that any path could send.
            self.count(|stats| &mut stats.tx_given_up, 1);
            os.tx_done(handle, false);
            return true;
        }
        if !more || self.frames.waiting() >= BURST_MAX {
            self.flush(os);
        }
        if self.frames.room() == 0 {
            self.stop_stack(os);
        }
        true
    }

    fn flush<O: NetOs>(&mut self, os: &O) {
        if self.vf.as_ref().is_some_and(VfPath::is_revoked) {
            // Poll deals with it: what the VF has received is delivered from there.
            os.schedule_poll();
            return;
        }
        if self.frames.wants_reaping() {
            self.reap(os);
        }
        self.submit(os);
    }

    /// Gives every frame back to the operating system and answers the paths, to be freed after
    /// the device was reset.
    pub(in crate::net) fn take_apart<O: NetOs>(mut self, os: &O) -> (NetPath, TxFifo, Receiver) {
        while let Some((handle, _)) = self.frames.pop() {
            os.tx_done(handle, false);
        }
        (self.emulated, self.frames, self.receiver)
    }

    fn stop_stack<O: NetOs>(&mut self, os: &O) {
        if !self.stopped {
            self.stopped = true;
            self.count(|stats| &mut stats.tx_stops, 1);
        }
        os.tx_stop();
    }

    fn wake<O: NetOs>(&mut self, os: &O) {
        if self.stopped && self.frames.has_ample_room() {
            self.stopped = false;
            os.tx_wake();
        }
    }

    fn count(&mut self, counter: impl FnOnce(&mut Stats) -> &mut u64, by: u32) {
        let counter = counter(&mut self.receiver.stats);
        *counter = counter.wrapping_add(u64::from(by));
    }
}
