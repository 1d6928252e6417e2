//! How the traffic moves between the paths: the beginnings that the control side asks for, what
//! poll makes of them, and what happens when a VF is lost or its plugin breaks a rule.

use super::{Delivery, Paths, Route, VfPath};
use crate::net::path::Fault;
use crate::os::{LogLevel, NetOs};

impl Paths {
    /// Installs a VF path, held.
    pub(in crate::net) fn install(&mut self, vf: VfPath) {
        self.vf = Some(vf);
    }

    /// Begins to move the traffic to the VF.
    pub(in crate::net) fn begin_switch(&mut self) {
        self.route = Route::DrainToVf;
        self.delivery = Delivery::ToVf;
    }

    /// Begins to move transmit back.
    pub(in crate::net) fn begin_return(&mut self) {
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
    pub(in crate::net) fn begin_drain_receive(&mut self) {
        self.delivery = Delivery::DrainVf;
    }

    /// Never calls the VF's plugin again; what it has to send stays with it.
    pub(in crate::net) fn stop_vf<O: NetOs>(&mut self, os: &O) {
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
    pub(in crate::net) fn remove_vf<O: NetOs>(&mut self, os: &O) -> Option<VfPath> {
        self.lose_vf(os);
        let vf = self.vf.take();
        self.submit(os);
        self.wake(os);
        vf
    }

    /// Sets up the VF's rings again after it was reset.
    pub(in crate::net) fn reinit_vf<O: NetOs>(&mut self, os: &O) -> Result<(), Fault> {
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

    pub(super) fn notice_revoke<O: NetOs>(&mut self, os: &O) {
        if self.vf.as_ref().is_some_and(VfPath::is_revoked) {
            os.log(LogLevel::Error, "npa: vf revoked, going on emulated");
            self.lose_vf(os);
            os.schedule_event();
        }
    }

    /// The VF has been reset and will not write memory any more. What it wrote before a revoke is
    /// still there, and salvaged.
    pub(super) fn lose_vf<O: NetOs>(&mut self, os: &O) {
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

    pub(super) fn quiesce_vf<O: NetOs>(&mut self, os: &O) {
        let Some(vf) = self.vf.as_mut() else { return };
        if vf.live && vf.path.quiesce(os, &mut self.receiver).is_err() {
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

    pub(super) fn advance(&mut self) {
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

    pub(super) fn fail_vf<O: NetOs>(&mut self, os: &O) {
        os.log(LogLevel::Error, "npa: plugin broke a rule, stopped");
        self.count(|stats| &mut stats.plugin_faults, 1);
        self.stop_vf(os);
        os.schedule_event();
    }
}
