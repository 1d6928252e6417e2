//! What the VMM's actions do to the world.

use crate::world::{Landing, Queue, World};
use pf_control::lease::LeaseEvent;
use vmm::npa::switch::{OnFailure, Phase, SwitchAction, SwitchEvent, Verdict};

impl World {
    /// Applies an event to the VMM's machine and takes up the work that follows.
    pub(crate) fn host_event(&mut self, event: SwitchEvent) -> Verdict {
        let before = self.phase();
        let next = self.switch.apply(event);
        if let Some(work) = next.work {
            self.work = Some((work, 0));
        }
        // Frames may be lost or doubled once force is used, and only then.
        self.forced |= matches!(next.phase, Phase::Revoking(_)) || event == SwitchEvent::GuestReset;
        if before == Phase::Active && event == SwitchEvent::GuestRequestDetach && self.daemon {
            return self.host_event(SwitchEvent::Detach);
        }
        next.verdict
    }

    /// Does the next action of the present work.
    pub(crate) fn host_step(&mut self) -> Option<()> {
        let (work, at) = self.work?;
        let Some(action) = work.actions.get(usize::from(at)) else {
            self.work = None;
            if let Some(event) = work.then {
                self.host_event(event);
            }
            return Some(());
        };
        if self.perform(*action) {
            self.work = Some((work, at + 1));
            Some(())
        } else {
            self.fail_step()
        }
    }

    /// The next action fails although it could succeed. What tears down cannot fail but by the
    /// daemon's absence, which is a deed of its own.
    pub(crate) fn host_step_fails(&mut self) -> Option<()> {
        let (work, at) = self.work?;
        work.actions.get(usize::from(at))?;
        (work.on_failure == OnFailure::Abort).then_some(())?;
        self.fail_step()
    }

    fn fail_step(&mut self) -> Option<()> {
        let (work, at) = self.work?;
        match work.on_failure {
            OnFailure::Abort => {
                self.work = None;
                self.host_event(SwitchEvent::StepFailed);
            }
            OnFailure::Continue => self.work = Some((work, at + 1)),
        }
        Some(())
    }

    /// Does `action`; answers whether it succeeded.
    fn perform(&mut self, action: SwitchAction) -> bool {
        match action {
            SwitchAction::Acquire => return self.ask(LeaseEvent::Acquire),
            SwitchAction::OpenVf => {
                if !self.vf_there {
                    return false;
                }
                self.vf_open = true;
            }
            SwitchAction::InitVf => {
                if !self.vf_there {
                    return false;
                }
                self.vf_dma = true;
                self.vf_programmed = false;
            }
            SwitchAction::WriteLanding => {
                if self.in_plugin {
                    self.broken = Some("the landing was written while the plugin may run");
                }
                self.landing = Landing::Image(self.switch.generation());
            }
            SwitchAction::RestoreLanding => {
                if self.in_plugin {
                    self.broken = Some("the landing was filled while the plugin may run");
                }
                self.landing = Landing::Fill;
            }
            SwitchAction::MapWindow => self.window = true,
            SwitchAction::MapDeadPage => self.window = false,
            // Nothing to do for a VF behind a switch; but one that is gone does not even do that.
            SwitchAction::StartQueues | SwitchAction::AdmitVf | SwitchAction::DismissVf => {
                return self.vf_there;
            }
            SwitchAction::PfInit => return self.ask(LeaseEvent::Init),
            SwitchAction::PfActivate => return self.ask(LeaseEvent::Activate),
            SwitchAction::PfQuiesce => return self.ask(LeaseEvent::Quiesce),
            SwitchAction::DrainPath => {
                let mut tap = std::mem::take(&mut self.tap);
                tap.pour(&mut self.ring_in);
            }
            SwitchAction::SetRevoked => self.revoked = self.switch.generation(),
            SwitchAction::StopVf => {
                self.vf_dma = false;
                if !self.rings {
                    // What came after the guest's reset is in memory that nobody reads.
                    self.vf_in = Queue::default();
                }
            }
            SwitchAction::CloseVf => {
                if self.window {
                    self.broken = Some("the VF was closed under its window");
                }
                self.vf_open = false;
                self.vf_dma = false;
                self.vf_there = true;
            }
            SwitchAction::Release => {
                if !self.ask(LeaseEvent::Release) {
                    self.release_owed = true;
                    return false;
                }
            }
            SwitchAction::LoadPlugin
            | SwitchAction::WireVectors
            | SwitchAction::UnwireVectors
            | SwitchAction::StandbyPath
            | SwitchAction::ServePath
            | SwitchAction::Notify => {}
        }
        true
    }

    fn ask(&mut self, event: LeaseEvent) -> bool {
        self.daemon && self.lease_event(event).is_ok()
    }
}
