//! Drives the transition function against the registers: observes, acts, follows its own steps to
//! their end. Never waits: a step that is not done yet is looked at again on the next call.

use super::state::{ShellAction, ShellEvent, ShellState};
use super::transition::transition;
use crate::handshake::Link;
use crate::log::LogLine;
use crate::os::{LogLevel, Os};
use npa_abi::protocol::{Command, CommandStatus, GuestError};

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Done.
    Done,
    /// Under way; whoever ends it has the event function called.
    Pending,
    /// It failed, or the plugin did.
    Failed(GuestError),
}

/// What a device class does in each step. Each method returns without waiting.
pub trait Steps {
    /// Decides on an offer and prepares what needs no plugin.
    fn prepare(&mut self) -> Progress;
    /// Checks and enters the landed plugin, sets up and fills its rings, fills in the shell page's
    /// queue part, for the offer `generation`.
    fn load(&mut self, generation: u32) -> Progress;
    /// Begins to move receive, then transmit, to the VF.
    fn switch_to_vf(&mut self) -> Progress;
    /// Begins to move transmit back.
    fn drain_transmit(&mut self) -> Progress;
    /// Begins to move receive back and to quiesce the plugin.
    fn drain_receive(&mut self) -> Progress;
    /// How far the step of `state` is, which answered [`Progress::Pending`] when it began.
    fn progress(&mut self, state: ShellState) -> Progress;
    /// Whether the plugin broke a rule since it was loaded.
    fn fault(&mut self) -> Option<GuestError>;
    /// Sets up and fills the plugin's rings again.
    fn reinit_rings(&mut self) -> Result<(), GuestError>;
    /// Never calls the plugin again, keeps its memory.
    fn stop_plugin(&mut self);
    /// Frees what the VF used and sends again what it did not finish.
    fn give_up(&mut self);
}

/// Most transitions of one call: far above what one observation can set off.
const TRANSITIONS_MAX: u32 = 32;

/// The shell's half of the switch.
#[derive(Debug)]
pub struct Driver {
    state: ShellState,
    generation: u32,
    resets: u32,
    error: GuestError,
    detach_asked: bool,
}

impl Default for Driver {
    fn default() -> Self {
        Self::new()
    }
}

impl Driver {
    /// A shell that is not registered.
    pub const fn new() -> Self {
        Self {
            state: ShellState::Unregistered,
            generation: 0,
            resets: 0,
            error: GuestError::Refused,
            detach_asked: false,
        }
    }

    /// Where the shell stands.
    pub const fn state(&self) -> ShellState {
        self.state
    }

    /// The offer adopted last; 0 before the first.
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// The host took the registration; `generation` was read before it.
    pub fn registered(&mut self, generation: u32) {
        self.generation = generation;
        self.state = transition(self.state, ShellEvent::Registered).state;
    }

    /// Goes as far as it can without waiting. `leaving` asks the way out. Answers whether it
    /// should be called again soon; otherwise an interrupt or `schedule_event` tells.
    pub fn run<O: Os>(
        &mut self,
        os: &O,
        link: &Link,
        steps: &mut impl Steps,
        leaving: bool,
    ) -> bool {
        for _ in 0..TRANSITIONS_MAX {
            if self.state == ShellState::Unregistered {
                return false;
            }
            let mut moved = false;
            if leaving && !(self.state == ShellState::Active && self.detach_asked) {
                self.detach_asked |= self.state == ShellState::Active;
                moved |= self.apply(os, link, steps, ShellEvent::Unload);
            }
            if self.state == ShellState::Unregistered {
                return false;
            }
            if link.revoked() == self.generation && self.generation != 0 {
                moved |= self.apply(os, link, steps, ShellEvent::Revoked);
            }
            let Some(view) = link.observe(os) else {
                self.apply(os, link, steps, ShellEvent::Gone);
                return false;
            };
            let same_generation = link.generation(os) == self.generation;
            moved |= self.apply(os, link, steps, ShellEvent::Observed { view, same_generation });
            if self.state.has_plugin() {
                moved |= self.look_after_plugin(os, link, steps);
            }
            if self.state.has_step() {
                match steps.progress(self.state) {
                    Progress::Pending => {}
                    Progress::Done => moved |= self.apply(os, link, steps, ShellEvent::StepDone),
                    Progress::Failed(error) => {
                        moved |= self.apply(os, link, steps, ShellEvent::StepFailed(error));
                    }
                }
            }
            if !moved {
                break;
            }
        }
        self.state.has_step() || (leaving && self.state != ShellState::Unregistered)
    }

    /// Resets that the plugin must be told of, and rules that it broke.
    fn look_after_plugin<O: Os>(&mut self, os: &O, link: &Link, steps: &mut impl Steps) -> bool {
        if let Some(error) = steps.fault() {
            return self.apply(os, link, steps, ShellEvent::StepFailed(error));
        }
        let resets = link.resets(os);
        if resets == self.resets {
            return false;
        }
        self.resets = resets;
        self.apply(os, link, steps, ShellEvent::DeviceReset)
    }

    /// Applies `event` and what follows from its actions; answers whether the state changed.
    fn apply<O: Os>(
        &mut self,
        os: &O,
        link: &Link,
        steps: &mut impl Steps,
        event: ShellEvent,
    ) -> bool {
        let before = self.state;
        let mut next_event = Some(event);
        for _ in 0..TRANSITIONS_MAX {
            let Some(event) = next_event.take() else { break };
            if let ShellEvent::StepFailed(error) = event {
                self.error = error;
            }
            let next = transition(self.state, event);
            if next.state != self.state {
                log_transition(os, self.state, next.state, self.generation);
            }
            self.state = next.state;
            for action in next.actions {
                // Only the last action of a list leads to an event (tested below).
                next_event = self.perform(os, link, steps, *action);
            }
        }
        self.state != before
    }

    fn perform<O: Os>(
        &mut self,
        os: &O,
        link: &Link,
        steps: &mut impl Steps,
        action: ShellAction,
    ) -> Option<ShellEvent> {
        let progress = match action {
            ShellAction::AdoptOffer => {
                self.generation = link.generation(os);
                self.error = GuestError::Refused;
                self.detach_asked = false;
                return None;
            }
            ShellAction::Send(command) => return self.send(os, link, command),
            ShellAction::StopPlugin => {
                steps.stop_plugin();
                return None;
            }
            ShellAction::ReinitRings => {
                return steps.reinit_rings().err().map(ShellEvent::StepFailed);
            }
            ShellAction::GiveUp => {
                steps.give_up();
                Progress::Done
            }
            ShellAction::Prepare => steps.prepare(),
            ShellAction::Load => {
                self.resets = link.resets(os);
                steps.load(self.generation)
            }
            ShellAction::SwitchToVf => steps.switch_to_vf(),
            ShellAction::DrainTransmit => steps.drain_transmit(),
            ShellAction::DrainReceive => steps.drain_receive(),
        };
        match progress {
            Progress::Done => Some(ShellEvent::StepDone),
            Progress::Pending => None,
            Progress::Failed(error) => Some(ShellEvent::StepFailed(error)),
        }
    }

    fn send<O: Os>(&mut self, os: &O, link: &Link, command: Command) -> Option<ShellEvent> {
        if command == Command::Fail {
            link.tell_error(os, self.error);
            LogLine::new("npa: attach failed, guest error ")
                .number(self.error as u32 as u64)
                .write(os, LogLevel::Error);
        }
        match link.command(os, command, self.generation) {
            CommandStatus::Ok => None,
            status => {
                LogLine::new("npa: host refused command ")
                    .number(command as u16 as u64)
                    .text(" with status ")
                    .number(status as u32 as u64)
                    .write(os, LogLevel::Info);
                Some(ShellEvent::Refused(status))
            }
        }
    }
}

fn log_transition(os: &impl Os, from: ShellState, to: ShellState, generation: u32) {
    LogLine::new("npa: ")
        .text(from.name())
        .text(" -> ")
        .text(to.name())
        .text(", generation ")
        .number(u64::from(generation))
        .write(os, LogLevel::Info);
}
