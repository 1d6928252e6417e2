//! Where a switch stands, seen from the host.

use std::fmt;

use npa_abi::protocol::{HostView, State};

/// The host's phase of a switch: finer than the [`State`] that the guest sees, because the host
/// must know whose turn it is and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// No shell has registered; a stock driver may be at work. No VF.
    Unregistered,
    /// A shell is registered and the emulated path carries everything. No VF.
    Emulated,
    /// The host acquires and opens a VF and verifies its plugin. The guest knows nothing of it.
    Preparing,
    /// A VF and a plugin wait for the guest to accept them. The guest's turn.
    Offered,
    /// The host writes the landing, maps the window and wires the vectors.
    Loading,
    /// The guest enters the plugin and sets up its rings. The guest's turn.
    Landed,
    /// The host moves address and forwarding to the VF and drains the emulated path.
    Moving,
    /// The guest takes up the VF. The guest's turn.
    Granted,
    /// The VF carries the traffic.
    Active,
    /// The guest sends on the emulated path again and waits for the VF's transmits. The guest's
    /// turn.
    Draining,
    /// The host moves address and forwarding back.
    Returning,
    /// The guest drains the VF's receive side and gives up the plugin. The guest's turn.
    Returned,
    /// The guest is done with the VF; the host takes it out of its reach.
    Releasing,
    /// The VF is out of the guest's reach, and the guest knows of no switch any more; the host
    /// closes and releases the VF.
    Closing,
    /// The host takes the VF away by force. The guest still sees what it saw before, because it
    /// may reuse its ring memory as soon as it sees `Failed`.
    Revoking(HostView),
    /// The guest has to give up the plugin. The VF can do no harm any more; `held` while it is
    /// not yet closed and back in the pool.
    Failed {
        /// The VF is not back in the pool yet.
        held: bool,
    },
    /// The host closes and releases a VF about which the guest knows nothing, or nothing any
    /// more: an attach failed before it was offered, or the guest was reset.
    Withdrawing {
        /// A shell is registered (again).
        registered: bool,
    },
}

/// A part of a switch that the guest must finish by a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestHalf {
    /// Accept an offer.
    Accept,
    /// Enter the plugin and set up its queues.
    Load,
    /// Move to the VF.
    Switch,
    /// Wait for the VF's transmits.
    Drain,
    /// Drain receive and quiesce the plugin.
    Quiesce,
}

impl GuestHalf {
    /// Name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept the offer",
            Self::Load => "start the plugin",
            Self::Switch => "move to the VF",
            Self::Drain => "drain the VF's transmits",
            Self::Quiesce => "quiesce the plugin",
        }
    }
}

const fn view(state: State, host_done: bool) -> HostView {
    HostView { state, host_done }
}

impl Phase {
    /// Every phase, `Revoking` once for each view that it can freeze.
    pub const ALL: [Self; 26] = [
        Self::Unregistered,
        Self::Emulated,
        Self::Preparing,
        Self::Offered,
        Self::Loading,
        Self::Landed,
        Self::Moving,
        Self::Granted,
        Self::Active,
        Self::Draining,
        Self::Returning,
        Self::Returned,
        Self::Releasing,
        Self::Closing,
        Self::Failed { held: true },
        Self::Failed { held: false },
        Self::Withdrawing { registered: true },
        Self::Withdrawing { registered: false },
        Self::Revoking(view(State::Offered, true)),
        Self::Revoking(view(State::Loading, false)),
        Self::Revoking(view(State::Loading, true)),
        Self::Revoking(view(State::Ready, false)),
        Self::Revoking(view(State::Ready, true)),
        Self::Revoking(view(State::Active, true)),
        Self::Revoking(view(State::Quiescing, false)),
        Self::Revoking(view(State::Quiescing, true)),
    ];

    /// What the guest reads in the state register.
    pub const fn view(self) -> HostView {
        match self {
            Self::Unregistered
            | Self::Emulated
            | Self::Preparing
            | Self::Closing
            | Self::Withdrawing { .. } => view(State::Emulated, true),
            Self::Offered => view(State::Offered, true),
            Self::Loading => view(State::Loading, false),
            Self::Landed => view(State::Loading, true),
            Self::Moving => view(State::Ready, false),
            Self::Granted => view(State::Ready, true),
            Self::Active => view(State::Active, true),
            Self::Draining | Self::Returning => view(State::Quiescing, false),
            Self::Returned | Self::Releasing => view(State::Quiescing, true),
            Self::Revoking(frozen) => frozen,
            Self::Failed { .. } => view(State::Failed, true),
        }
    }

    /// The part that the guest must finish in this phase, if it is the guest's turn.
    pub const fn guest_half(self) -> Option<GuestHalf> {
        match self {
            Self::Offered => Some(GuestHalf::Accept),
            Self::Landed => Some(GuestHalf::Load),
            Self::Granted => Some(GuestHalf::Switch),
            Self::Draining => Some(GuestHalf::Drain),
            Self::Returned => Some(GuestHalf::Quiesce),
            _ => None,
        }
    }

    /// Whether a VF may be held: outside these phases it is closed and back in the pool (or, with
    /// the daemon away, waiting to be taken back).
    pub const fn holds_vf(self) -> bool {
        !matches!(self, Self::Unregistered | Self::Emulated | Self::Failed { held: false })
    }

    /// Whether a shell is registered, so that its page may be read and written.
    pub const fn registered(self) -> bool {
        !matches!(self, Self::Unregistered | Self::Withdrawing { registered: false })
    }

    /// Whether nothing is under way: the phase lasts until the operator or the guest acts.
    pub const fn at_rest(self) -> bool {
        matches!(
            self,
            Self::Unregistered | Self::Emulated | Self::Active | Self::Failed { held: false }
        )
    }

    /// Whether neither the guest nor a VF takes part in a switch: what the guest sees does not
    /// change by itself, and nothing but its CPUs and the emulated path writes to its memory.
    pub const fn is_settled(self) -> bool {
        matches!(
            self,
            Self::Unregistered | Self::Emulated | Self::Closing | Self::Failed { held: false }
        )
    }

    /// Name as the log and the status output spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unregistered => "unregistered",
            Self::Emulated => "emulated",
            Self::Preparing => "preparing",
            Self::Offered => "offered",
            Self::Loading => "loading",
            Self::Landed => "landed",
            Self::Moving => "moving",
            Self::Granted => "granted",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Returning => "returning",
            Self::Returned => "returned",
            Self::Releasing => "releasing",
            Self::Closing => "closing",
            Self::Revoking(_) => "revoking",
            Self::Failed { .. } => "failed",
            Self::Withdrawing { .. } => "withdrawing",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
