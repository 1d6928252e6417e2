//! States, events and actions of the shell's half of the switch.

use npa_abi::protocol::{Command, CommandStatus, GuestError, HostView};

/// Where the shell stands. Each state waits for exactly one thing: an observation of the host's
/// state, or the end of a step of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ShellState {
    /// Not registered: the emulated path carries everything and the host offers nothing.
    Unregistered,
    /// Registered; the emulated path carries everything, no VF.
    Emulated,
    /// Own step: decides on the offer and prepares what needs no plugin.
    Preparing,
    /// Waits for the landed image.
    Accepted,
    /// Own step: checks and enters the plugin, sets up and fills its rings; VF receive is held.
    Loading,
    /// Waits until the host has moved the address to the VF.
    Prepared,
    /// Own step: moves receive, then transmit, to the VF.
    Switching,
    /// The VF carries the traffic.
    Active,
    /// Own step: waits for the VF's transmits, then sends on the emulated path and holds its
    /// receive.
    DrainingTransmit,
    /// Waits until the host has moved the address back.
    TransmitDrained,
    /// Own step: empties VF receive, quiesces the plugin, releases emulated receive.
    DrainingReceive,
    /// Waits until the host has taken the VF away; then its memory can be freed.
    Quiesced,
    /// The shell gave up this attach and waits until the host has taken the VF away.
    Failing,
    /// Own step: the VF is gone; frees what it used and sends again what it did not finish.
    CleaningUp,
}

impl ShellState {
    /// All states.
    pub const ALL: [Self; 14] = [
        Self::Unregistered,
        Self::Emulated,
        Self::Preparing,
        Self::Accepted,
        Self::Loading,
        Self::Prepared,
        Self::Switching,
        Self::Active,
        Self::DrainingTransmit,
        Self::TransmitDrained,
        Self::DrainingReceive,
        Self::Quiesced,
        Self::Failing,
        Self::CleaningUp,
    ];

    /// Name for the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unregistered => "unregistered",
            Self::Emulated => "emulated",
            Self::Preparing => "preparing",
            Self::Accepted => "accepted",
            Self::Loading => "loading",
            Self::Prepared => "prepared",
            Self::Switching => "switching",
            Self::Active => "active",
            Self::DrainingTransmit => "draining-transmit",
            Self::TransmitDrained => "transmit-drained",
            Self::DrainingReceive => "draining-receive",
            Self::Quiesced => "quiesced",
            Self::Failing => "failing",
            Self::CleaningUp => "cleaning-up",
        }
    }

    /// Whether a step of the shell's own is under way, which ends in [`ShellEvent::StepDone`] or
    /// [`ShellEvent::StepFailed`].
    pub const fn has_step(self) -> bool {
        matches!(
            self,
            Self::Preparing
                | Self::Loading
                | Self::Switching
                | Self::DrainingTransmit
                | Self::DrainingReceive
                | Self::CleaningUp
        )
    }

    /// Whether the plugin is loaded and may be called.
    pub const fn has_plugin(self) -> bool {
        matches!(
            self,
            Self::Prepared
                | Self::Switching
                | Self::Active
                | Self::DrainingTransmit
                | Self::TransmitDrained
                | Self::DrainingReceive
        )
    }
}

/// What happens to the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShellEvent {
    /// The host took [`Command::Register`].
    Registered,
    /// The state register was read.
    Observed {
        /// What it showed.
        view: HostView,
        /// The generation register names the offer that the shell adopted last.
        same_generation: bool,
    },
    /// The step of the action given last is done.
    StepDone,
    /// The step of the action given last failed, or the plugin did.
    StepFailed(GuestError),
    /// The host refused the command given last.
    Refused(CommandStatus),
    /// The revoked word names the adopted generation: the VF has been reset and unmapped.
    Revoked,
    /// The VF was reset under the plugin and is usable again (the reset counter moved).
    DeviceReset,
    /// The driver wants to leave; told again until [`ShellState::Unregistered`].
    Unload,
    /// The device does not answer any more (registers read as ones).
    Gone,
}

/// What the shell does on a transition, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShellAction {
    /// Take the generation register's value as the present offer.
    AdoptOffer,
    /// Begin the step of [`ShellState::Preparing`].
    Prepare,
    /// Begin the step of [`ShellState::Loading`].
    Load,
    /// Begin the step of [`ShellState::Switching`].
    SwitchToVf,
    /// Begin the step of [`ShellState::DrainingTransmit`].
    DrainTransmit,
    /// Begin the step of [`ShellState::DrainingReceive`].
    DrainReceive,
    /// Set up and fill the plugin's rings again, after [`ShellEvent::DeviceReset`].
    ReinitRings,
    /// Never call the plugin again; keep its memory, because the VF may still write there.
    StopPlugin,
    /// Begin the step of [`ShellState::CleaningUp`]: free all that the VF used, send again what
    /// it did not finish. Does nothing where there is nothing.
    GiveUp,
    /// Write the command register; [`Command::Fail`] with the error of the last
    /// [`ShellEvent::StepFailed`], or [`GuestError::Refused`] without one.
    Send(Command),
}

/// Outcome of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Next {
    /// The new state.
    pub state: ShellState,
    /// What to do, in order.
    pub actions: &'static [ShellAction],
}

impl Next {
    /// A transition to `state` with `actions`.
    pub(super) const fn new(state: ShellState, actions: &'static [ShellAction]) -> Self {
        Self { state, actions }
    }
}
