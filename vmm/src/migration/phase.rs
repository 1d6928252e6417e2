//! Who may run a VM that moves, at every moment: one total function for each end. Pure: no clock,
//! no connection, no VM.
//!
//! The one message that matters is *go*. Before the source sends it, the destination cannot run the
//! VM, so whatever fails, the VM stays. From then on the source holds it for good, unless the
//! destination's process is known to have died: a destination gives up its connection only when
//! it does, so a closed connection says so, and a silent one says nothing. Silence right then
//! leaves the VM held at the source, and its operator told, for two running VMs are worse than
//! none.

use std::fmt;

/// Where the source stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourcePhase {
    /// The ends compare what they are.
    Checking,
    /// The devices give up their VFs.
    FallingBack,
    /// Memory is copied while the guest runs.
    Copying,
    /// The VM is held; what is left of its memory, and its state, are sent.
    Stopped,
    /// *Go* is sent.
    HandingOver,
    /// The VM runs there; what still arrives here is sent after it.
    Following,
    /// It is over: the VM is there.
    Moved,
    /// It is over: the VM is here.
    Stayed,
    /// It is over, and nobody here knows where the VM is; it is held.
    InDoubt,
}

/// What changes a [`SourcePhase`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceEvent {
    /// Both ends fit.
    Agreed,
    /// All devices are emulated.
    FellBack,
    /// So little is left to copy that the VM is stopped.
    Stopped,
    /// The destination could run the VM; *go* is being sent.
    PeerReady,
    /// The destination runs it.
    PeerRunning,
    /// Nothing arrives here any more.
    Followed,
    /// This end, its operator, or the other end does not want to go on.
    GaveUp,
    /// The destination's process has died, or says that it does not go on; it says that only while it
    /// cannot run the VM.
    PeerDied,
    /// The destination does not answer.
    PeerSilent,
}

impl SourcePhase {
    /// The phase after `event`; an event that means nothing in a phase changes nothing.
    pub const fn after(self, event: SourceEvent) -> Self {
        use SourceEvent as E;
        use SourcePhase as P;
        match (self, event) {
            (P::Checking, E::Agreed) => P::FallingBack,
            (P::FallingBack, E::FellBack) => P::Copying,
            (P::Copying, E::Stopped) => P::Stopped,
            (P::Stopped, E::PeerReady) => P::HandingOver,
            (P::HandingOver, E::PeerRunning) => P::Following,
            (
                P::Checking | P::FallingBack | P::Copying | P::Stopped,
                E::GaveUp | E::PeerDied | E::PeerSilent,
            )
            | (P::HandingOver, E::PeerDied) => P::Stayed,
            (P::HandingOver, E::GaveUp | E::PeerSilent) => P::InDoubt,
            (P::Following, E::Followed | E::GaveUp | E::PeerDied | E::PeerSilent) => P::Moved,
            (phase, _) => phase,
        }
    }

    /// Whether the source may run the VM.
    pub const fn may_run(self) -> bool {
        matches!(self, Self::Checking | Self::FallingBack | Self::Copying | Self::Stayed)
    }

    /// Whether it can still be cancelled.
    pub const fn can_cancel(self) -> bool {
        matches!(self, Self::Checking | Self::FallingBack | Self::Copying | Self::Stopped)
    }

    /// Name as log and status spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::FallingBack => "falling-back",
            Self::Copying => "copying",
            Self::Stopped => "stopped",
            Self::HandingOver => "handing-over",
            Self::Following => "following",
            Self::Moved => "moved",
            Self::Stayed => "stayed",
            Self::InDoubt => "in-doubt",
        }
    }
}

impl fmt::Display for SourcePhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the destination stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DestinationPhase {
    /// Memory arrives.
    Receiving,
    /// Memory and state are in place; only *go* is missing.
    Ready,
    /// The VM is here.
    Running,
    /// It is over: the VM is not here.
    Refused,
}

/// What changes a [`DestinationPhase`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DestinationEvent {
    /// Memory and state fit.
    Restored,
    /// *Go* came.
    Go,
    /// This end cannot, the other does not want to, or the connection is gone.
    Lost,
}

impl DestinationPhase {
    /// The phase after `event`; an event that means nothing in a phase changes nothing.
    pub const fn after(self, event: DestinationEvent) -> Self {
        use DestinationEvent as E;
        use DestinationPhase as P;
        match (self, event) {
            (P::Receiving, E::Restored) => P::Ready,
            (P::Ready, E::Go) => P::Running,
            (P::Receiving | P::Ready, E::Lost) => P::Refused,
            (phase, _) => phase,
        }
    }

    /// Whether the destination may run the VM.
    pub const fn may_run(self) -> bool {
        matches!(self, Self::Running)
    }
}

#[cfg(test)]
#[path = "phase_test.rs"]
mod tests;
