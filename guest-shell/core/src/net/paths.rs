//! Both paths of an interface, as they stand behind the path lock: which one sends, which ones
//! deliver, and how that moves. Everything that moves traffic does so here, from poll and transmit;
//! nothing waits.

use super::path::{Fault, NetPath, RX_QUEUE, TX_QUEUE};
use super::receive::Receiver;
use super::shell::PluginLabel;
use super::stats::Stats;
use super::transmit::TxFifo;
use crate::handshake::RevokedWord;
use crate::os::{LogLevel, NetOs, TxHandle};
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
pub(super) enum Route {
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
pub(super) enum Delivery {
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
pub(super) struct VfPath {
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
    pub(super) fn new(
        path: NetPath,
        generation: u32,
        revoked: RevokedWord,
        label: PluginLabel,
        live: bool,
    ) -> Self {
        Self { path, generation, revoked, label, live, quiesced: false }
    }

    /// Frees what it holds. The VF may not write there any more.
    pub(super) fn free(self, os: &impl NetOs) {
        self.path.free(os);
    }

    fn is_revoked(&self) -> bool {
        self.live && self.revoked.read() == self.generation
    }
}

/// The paths of a started interface.
pub(super) struct Paths {
    emulated: NetPath,
    vf: Option<VfPath>,
    frames: TxFifo,
    pub(super) receiver: Receiver,
    route: Route,
    delivery: Delivery,
    /// On the way back: once both sides allow, send on the emulated path and hold its receive.
    returning: bool,
    /// The stack was told to stop sending.
    stopped: bool,
}

impl Paths {
    /// An interface on its emulated path.
    pub(super) fn new(emulated: NetPath, frames: TxFifo, receiver: Receiver) -> Self {
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
    pub(super) const fn position(&self) -> (Route, Delivery) {
        (self.route, self.delivery)
    }

    /// The plugin that sends.
    pub(super) fn label(&self) -> Option<PluginLabel> {
        self.vf.as_ref().filter(|_| self.route == Route::Vf).map(|vf| vf.label)
    }

    /// Whether the VF's plugin broke a rule.
    pub(super) fn vf_has_fault(&self) -> bool {
        self.vf.as_ref().is_some_and(|vf| vf.path.has_fault())
    }

    /// Whether the VF's plugin was quiesced.
    pub(super) fn vf_is_quiesced(&self) -> bool {
        self.vf.as_ref().is_some_and(|vf| vf.quiesced)
    }

    /// Whether a receive ring runs short of buffers.
    pub(super) fn is_starved(&self) -> bool {
        self.emulated.is_starved()
            || self.vf.as_ref().is_some_and(|vf| vf.live && vf.path.is_starved())
    }

    /// The counters.
    pub(super) const fn stats(&self) -> Stats {
        self.receiver.stats
    }

    /// One round of work: completions, received frames, steps of a switch, frames that wait.
    pub(super) fn poll<O: NetOs>(&mut self, os: &O, budget: u32) -> Poll {
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
    pub(super) fn transmit<O: NetOs>(
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
        if self.frames.is_half_full() {
            self.reap(os);
        }
        self.submit(os);
    }

    /// Installs a VF path, held.
    pub(super) fn install(&mut self, vf: VfPath) {
        self.vf = Some(vf);
    }

    /// Begins to move the traffic to the VF.
    pub(super) fn begin_switch(&mut self) {
        self.route = Route::DrainToVf;
        self.delivery = Delivery::ToVf;
    }

    /// Begins to move transmit back.
    pub(super) fn begin_return(&mut self) {
        self.route = match self.route {
            Route::Vf => Route::DrainToEmulated,
            // The VF has not sent anything yet.
            Route::DrainToVf => Route::Emulated,
            other => other,
        };
        if self.delivery == Delivery::Emulated {
            self.delivery = Delivery::ToVf;
        }
        self.returning = true;
    }

    /// Begins to move receive back.
    pub(super) fn begin_drain_receive(&mut self) {
        self.delivery = Delivery::DrainVf;
    }

    /// Never calls the VF's plugin again; what it has to send stays with it.
    pub(super) fn stop_vf<O: NetOs>(&mut self, os: &O) {
        let Some(vf) = self.vf.as_mut() else { return };
        vf.live = false;
        self.returning = false;
        self.route = match self.route {
            Route::Vf | Route::DrainToEmulated | Route::Stalled => Route::Stalled,
            Route::Emulated | Route::DrainToVf => Route::Emulated,
        };
        self.delivery = Delivery::Emulated;
        self.receiver.vf_gone(os.now_ns());
    }

    /// The host has taken the VF away: salvages what it received and completed, sends the rest
    /// again, and answers the path, to be freed.
    pub(super) fn remove_vf<O: NetOs>(&mut self, os: &O) -> Option<VfPath> {
        self.lose_vf(os);
        let vf = self.vf.take();
        self.submit(os);
        self.wake(os);
        vf
    }

    /// Sets up the VF's rings again after it was reset.
    pub(super) fn reinit_vf<O: NetOs>(&mut self, os: &O) -> Result<(), Fault> {
        self.reap(os);
        let Some(vf) = self.vf.as_mut().filter(|vf| vf.live) else { return Ok(()) };
        let outcome = vf.path.reinit(os).and_then(|()| vf.path.fill(os));
        if self.route.is_with_vf() {
            let back = self.frames.rewind();
            self.count(|stats| &mut stats.tx_resubmitted, back);
        }
        match outcome {
            Ok(_) => self.submit(os),
            Err(Fault) => self.fail_vf(os),
        }
        os.schedule_poll();
        outcome.map(drop)
    }

    /// Gives every frame back to the operating system and answers the paths, to be freed after
    /// the device was reset.
    pub(super) fn take_apart<O: NetOs>(mut self, os: &O) -> (NetPath, TxFifo, Receiver) {
        while let Some((handle, _)) = self.frames.pop() {
            os.tx_done(handle, false);
        }
        (self.emulated, self.frames, self.receiver)
    }

    fn notice_revoke<O: NetOs>(&mut self, os: &O) {
        if self.vf.as_ref().is_some_and(VfPath::is_revoked) {
            os.log(LogLevel::Error, "npa: vf revoked, going on emulated");
            self.lose_vf(os);
            os.schedule_event();
        }
    }

    /// The VF has been reset and will not write memory any more. What it wrote before a revoke is
    /// still there, and salvaged.
    fn lose_vf<O: NetOs>(&mut self, os: &O) {
        let Some(vf) = self.vf.as_mut() else { return };
        if vf.live {
            let (entries, revoked) = (vf.path.rx_entries(), vf.is_revoked());
            self.count(|stats| &mut stats.revokes, 1);
            // After a revoke the host leaves the plugin in place until the shell has cleaned up.
            if revoked {
                self.reap(os);
                self.receiver.vf_released();
                self.check_vf_rx(os, entries);
            }
            self.stop_vf(os);
        }
        if self.route == Route::Stalled {
            let back = self.frames.rewind();
            self.count(|stats| &mut stats.tx_resubmitted, back);
            self.route = Route::Emulated;
        }
        self.delivery = Delivery::Emulated;
    }

    fn reap<O: NetOs>(&mut self, os: &O) {
        let stats = &mut self.receiver.stats;
        if !self.route.is_with_vf() {
            if self.emulated.check_tx(os, &mut self.frames, &mut stats.emulated).is_err() {
                self.fail_emulated(os);
            }
            return;
        }
        if let Some(vf) = self.vf.as_mut().filter(|vf| vf.live)
            && vf.path.check_tx(os, &mut self.frames, &mut stats.vf).is_err()
        {
            self.fail_vf(os);
        }
    }

    fn submit<O: NetOs>(&mut self, os: &O) {
        if self.frames.waiting() == 0 {
            return;
        }
        let stats = &mut self.receiver.stats;
        match self.route {
            Route::Emulated => {
                if self.emulated.submit(os, &mut self.frames, &mut stats.emulated).is_err() {
                    self.fail_emulated(os);
                }
            }
            Route::Vf => {
                if let Some(vf) = self.vf.as_mut().filter(|vf| vf.live)
                    && vf.path.submit(os, &mut self.frames, &mut stats.vf).is_err()
                {
                    self.fail_vf(os);
                }
            }
            Route::DrainToVf | Route::DrainToEmulated | Route::Stalled => {}
        }
    }

    /// Answers the frames received and whether some may be left although the budget is not used.
    fn receive<O: NetOs>(&mut self, os: &O, budget: u32) -> (u32, bool) {
        let mut done = 0u32;
        let mut more = false;
        // The VF first: what it delivers is then remembered when the emulated copy comes.
        if matches!(self.delivery, Delivery::Both | Delivery::EmulatedHeld | Delivery::DrainVf) {
            let share = match self.delivery {
                Delivery::Both => budget.saturating_sub(budget / 8),
                _ => budget,
            };
            done = self.check_vf_rx(os, share);
            if done < share {
                self.receiver.vf_empty();
                if self.delivery == Delivery::DrainVf {
                    self.quiesce_vf(os);
                }
            } else {
                more = true;
            }
        }
        let left = budget.saturating_sub(done);
        if left != 0
            && matches!(self.delivery, Delivery::Emulated | Delivery::ToVf | Delivery::Both)
        {
            let got = self.check_emulated_rx(os, left);
            done = done.saturating_add(got);
            if self.delivery == Delivery::ToVf && got < left {
                self.delivery = Delivery::Both;
                self.receiver.vf_released();
                more = true;
            }
        }
        (done, more)
    }

    fn check_vf_rx<O: NetOs>(&mut self, os: &O, budget: u32) -> u32 {
        let Some(vf) = self.vf.as_mut().filter(|vf| vf.live) else { return 0 };
        let got = vf.path.check_rx(os, &mut self.receiver, budget);
        let outcome = got.and_then(|got| refill(os, &mut vf.path).map(|()| got));
        let shortages = vf.path.take_shortages();
        self.count_shortages(os, shortages);
        match outcome {
            Ok(got) => got,
            Err(Fault) => {
                self.fail_vf(os);
                0
            }
        }
    }

    fn check_emulated_rx<O: NetOs>(&mut self, os: &O, budget: u32) -> u32 {
        let got = self.emulated.check_rx(os, &mut self.receiver, budget);
        let outcome = got.and_then(|got| refill(os, &mut self.emulated).map(|()| got));
        let shortages = self.emulated.take_shortages();
        self.count_shortages(os, shortages);
        match outcome {
            Ok(got) => got,
            Err(Fault) => {
                self.fail_emulated(os);
                0
            }
        }
    }

    fn quiesce_vf<O: NetOs>(&mut self, os: &O) {
        let Some(vf) = self.vf.as_mut() else { return };
        if vf.live && vf.path.quiesce(os).is_err() {
            return self.fail_vf(os);
        }
        if !vf.path.has_fault() {
            vf.quiesced = true;
            vf.live = false;
            self.delivery = Delivery::Emulated;
            self.receiver.vf_gone(os.now_ns());
            self.count(|stats| &mut stats.switches_back, 1);
        }
    }

    fn advance(&mut self) {
        if self.route == Route::DrainToVf && self.frames.outstanding() == 0 {
            self.route = Route::Vf;
            self.count(|stats| &mut stats.switches_to_vf, 1);
        }
        let sent = match self.route {
            Route::Emulated => true,
            Route::DrainToEmulated => self.frames.outstanding() == 0,
            _ => false,
        };
        if self.returning && sent && self.delivery == Delivery::Both {
            self.returning = false;
            self.route = Route::Emulated;
            self.delivery = Delivery::EmulatedHeld;
        }
    }

    /// Arms what is in use; answers whether work waits already.
    fn arm<O: NetOs>(&mut self, os: &O) -> bool {
        let mut waits = false;
        let (emulated_delivers, vf_delivers) = match self.delivery {
            Delivery::Emulated | Delivery::ToVf => (true, false),
            Delivery::Both => (true, true),
            Delivery::EmulatedHeld | Delivery::DrainVf => (false, true),
        };
        let vf_sends = self.route.is_with_vf();
        for (wanted, queue) in [(emulated_delivers, RX_QUEUE), (!vf_sends, TX_QUEUE)] {
            if wanted {
                match self.emulated.arm(os, queue) {
                    Ok(work) => waits |= work,
                    Err(Fault) => self.fail_emulated(os),
                }
            }
        }
        for (wanted, queue) in [(vf_delivers, RX_QUEUE), (vf_sends, TX_QUEUE)] {
            if wanted && let Some(vf) = self.vf.as_mut().filter(|vf| vf.live) {
                match vf.path.arm(os, queue) {
                    Ok(work) => waits |= work,
                    Err(Fault) => self.fail_vf(os),
                }
            }
        }
        waits
    }

    fn fail_vf<O: NetOs>(&mut self, os: &O) {
        os.log(LogLevel::Error, "npa: plugin broke a rule, stopped");
        self.count(|stats| &mut stats.plugin_faults, 1);
        self.stop_vf(os);
        os.schedule_event();
    }

    fn fail_emulated<O: NetOs>(&mut self, os: &O) {
        // The path refuses every further call, so this is said once per kind of call at most.
        os.log(LogLevel::Error, "npa: emulated path is broken, reset the device");
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

    fn count_shortages<O: NetOs>(&mut self, os: &O, shortages: u64) {
        if shortages != 0 {
            let total = &mut self.receiver.stats.rx_no_buffer;
            *total = total.wrapping_add(shortages);
            if self.is_starved() {
                os.schedule_event();
            }
        }
    }

    fn count(&mut self, counter: impl FnOnce(&mut Stats) -> &mut u64, by: u32) {
        let counter = counter(&mut self.receiver.stats);
        *counter = counter.wrapping_add(u64::from(by));
    }
}

fn refill<O: NetOs>(os: &O, path: &mut NetPath) -> Result<(), Fault> {
    if path.wants_buffers() {
        path.fill(os)?;
    }
    Ok(())
}
