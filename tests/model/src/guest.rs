//! What the shell's actions do to the world, and how its commands reach the VMM.

use crate::world::{Deed, Landing, Queue, Route, World};
use npa_abi::protocol::{Command, CommandStatus, GuestError};
use shell_core::switch::{ShellAction, ShellEvent, ShellState, transition};
use vmm::npa::switch::SwitchEvent;

impl World {
    pub(crate) fn shell_deed(&mut self, deed: Deed) -> Option<()> {
        match deed {
            Deed::ShellRegisters => {
                // A device reset is not complete, and the next driver not at work, while the old
                // one's VF can still reach the guest's memory.
                let reset_pending = self.vf_dma && self.vf_programmed;
                if self.shell != ShellState::Unregistered || self.leaving || reset_pending {
                    return None;
                }
                let generation = self.switch.generation();
                if self.command(Command::Register) == CommandStatus::Ok {
                    self.adopted = generation;
                    self.shell_event(ShellEvent::Registered);
                }
            }
            Deed::ShellLooks => {
                if self.shell == ShellState::Unregistered {
                    return None;
                }
                if self.leaving && !(self.shell == ShellState::Active && self.detach_asked) {
                    self.detach_asked |= self.shell == ShellState::Active;
                    self.shell_event(ShellEvent::Unload);
                }
                if self.revoked_now() {
                    self.shell_event(ShellEvent::Revoked);
                }
                let view = self.switch.view();
                let same_generation = self.switch.generation() == self.adopted;
                self.shell_event(ShellEvent::Observed { view, same_generation });
            }
            Deed::ShellStepDone => {
                if !self.shell.has_step() || !self.step_can_end() {
                    return None;
                }
                self.step_ended();
                self.shell_event(ShellEvent::StepDone);
            }
            Deed::ShellStepFails => {
                if !self.shell.has_step() || self.shell == ShellState::CleaningUp {
                    return None;
                }
                self.budget.shell_faults = self.budget.shell_faults.checked_sub(1)?;
                self.shell_event(ShellEvent::StepFailed(GuestError::PluginFailed));
            }
            Deed::ShellUnloads => {
                if self.leaving || self.shell == ShellState::Unregistered {
                    return None;
                }
                self.budget.unloads = self.budget.unloads.checked_sub(1)?;
                self.leaving = true;
            }
            _ => return None,
        }
        Some(())
    }

    fn shell_event(&mut self, event: ShellEvent) {
        let next = transition(self.shell, event);
        self.shell = next.state;
        for action in next.actions {
            self.shell_action(*action);
        }
    }

    fn shell_action(&mut self, action: ShellAction) {
        match action {
            ShellAction::AdoptOffer => {
                self.adopted = self.switch.generation();
                self.detach_asked = false;
            }
            ShellAction::Prepare => self.rings = true,
            ShellAction::Load => {
                if self.landing != Landing::Image(self.adopted) {
                    self.broken = Some("the shell entered a landing that holds no image");
                }
                self.in_plugin = true;
                self.vf_programmed = true;
                self.vf_held = true;
            }
            // New frames wait until the old path is done with its own.
            ShellAction::SwitchToVf | ShellAction::DrainTransmit => self.route = Route::Stopped,
            ShellAction::DrainReceive => {}
            ShellAction::ReinitRings => {
                self.vf_in = Queue::default();
                self.vf_out = Queue::default();
            }
            ShellAction::StopPlugin => {
                self.in_plugin = false;
                if self.route == Route::Vf {
                    self.route = Route::Stopped;
                }
            }
            ShellAction::GiveUp => {
                self.in_plugin = false;
                if self.vf_dma && self.vf_programmed {
                    self.broken = Some("ring memory was freed while the VF could write to it");
                }
                // What the VF had written is lost, what it had not confirmed is sent again.
                self.vf_in = Queue::default();
                let mut outstanding = std::mem::take(&mut self.vf_done);
                self.vf_out.pour(&mut outstanding);
                outstanding.pour(&mut self.ring_out);
                self.rings = false;
                self.route = Route::Emulated;
                self.vf_held = false;
                self.emulated_held = false;
            }
            ShellAction::Send(command) => {
                let status = self.command(command);
                if status != CommandStatus::Ok {
                    self.shell_event(ShellEvent::Refused(status));
                }
            }
        }
    }

    /// Whether the condition that the present step waits for holds.
    fn step_can_end(&self) -> bool {
        match self.shell {
            ShellState::Switching => self.ring_in.is_empty() && self.ring_out.is_empty(),
            ShellState::DrainingTransmit => self.vf_out.is_empty(),
            ShellState::DrainingReceive => self.vf_in.is_empty(),
            _ => true,
        }
    }

    /// What the end of the present step means for the paths.
    fn step_ended(&mut self) {
        match self.shell {
            ShellState::Switching => {
                self.vf_held = false;
                self.route = Route::Vf;
            }
            ShellState::DrainingTransmit => {
                self.vf_done = Queue::default();
                self.route = Route::Emulated;
                self.emulated_held = true;
                // A way back that began before the way there ended leaves the VF's receive held;
                // it has the older frames now.
                self.vf_held = false;
            }
            ShellState::DrainingReceive => {
                self.emulated_held = false;
                self.in_plugin = false;
            }
            _ => {}
        }
    }

    /// Writes the command register: the check of the generation, then the VMM's machine.
    fn command(&mut self, command: Command) -> CommandStatus {
        let any_generation = matches!(command, Command::Register | Command::Unregister);
        if !any_generation && self.adopted != self.switch.generation() {
            return CommandStatus::Stale;
        }
        self.host_event(SwitchEvent::of_command(command)).command_status()
    }

    /// The device is reset and the shell with all that it had is gone.
    pub(crate) fn guest_reset(&mut self) {
        self.host_event(SwitchEvent::GuestReset);
        self.guest_reset = true;
        self.shell = ShellState::Unregistered;
        self.in_plugin = false;
        self.rings = false;
        self.leaving = false;
        self.detach_asked = false;
        self.adopted = 0;
        self.revoked = 0;
        self.landing = Landing::Fill;
        self.route = Route::Emulated;
        (self.vf_held, self.emulated_held) = (false, false);
        for queue in [
            &mut self.tap,
            &mut self.ring_in,
            &mut self.vf_in,
            &mut self.ring_out,
            &mut self.vf_out,
            &mut self.vf_done,
        ] {
            *queue = Queue::default();
        }
    }
}
