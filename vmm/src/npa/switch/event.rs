//! What can happen to a switch, and what the host does about it.

use npa_abi::protocol::Command;

/// Who brings an event about; decides how a refusal is worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The guest wrote a command or was reset.
    Guest,
    /// The operator asked.
    Operator,
    /// The control thread, a timer, or the VF.
    Host,
}

/// An event. Events carry no data: what belongs to them (generation, queue descriptors, reasons)
/// is checked and kept by the caller before it applies them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SwitchEvent {
    /// The operator wants the device on a VF.
    Attach,
    /// The operator wants it back on the emulated path. The caller has made sure that the VF
    /// daemon answers.
    Detach,
    /// All of the work of `Preparing` is done.
    Prepared,
    /// All of the work of `Loading` is done.
    LandingWritten,
    /// All of the work of `Moving` is done.
    PathMoved,
    /// All of the work of `Returning` is done.
    PathReturned,
    /// All of the work of `Revoking` is done: the VF can reach nothing any more.
    Revoked,
    /// All of the work of `Releasing` is done: the VF can reach nothing any more.
    Retired,
    /// The VF is closed and given back.
    Released,
    /// An action of the present work failed.
    StepFailed,
    /// The guest did not finish its half in time.
    Deadline,
    /// The VF is gone, or cannot be used any more.
    VfLost,
    /// The VF was reset behind our back (its PF was) and could be brought up again.
    VfReset,
    /// All of the work that [`SwitchEvent::VfReset`] set off is done.
    VfRecovered,
    /// A valid shell page was registered.
    GuestRegister,
    /// [`Command::Unregister`].
    GuestUnregister,
    /// [`Command::Accept`].
    GuestAccept,
    /// [`Command::Ready`], with valid queue descriptors.
    GuestReady,
    /// [`Command::Switched`].
    GuestSwitched,
    /// [`Command::TxDrained`].
    GuestTxDrained,
    /// [`Command::Quiesced`].
    GuestQuiesced,
    /// [`Command::Fail`].
    GuestFail,
    /// [`Command::Cleaned`].
    GuestCleaned,
    /// [`Command::RequestDetach`]. Where it is taken, the caller goes on as if the operator had
    /// asked for a detach.
    GuestRequestDetach,
    /// The device was reset: the shell and its memory are gone.
    GuestReset,
}

impl SwitchEvent {
    /// All events.
    pub const ALL: [Self; 25] = [
        Self::Attach,
        Self::Detach,
        Self::Prepared,
        Self::LandingWritten,
        Self::PathMoved,
        Self::PathReturned,
        Self::Revoked,
        Self::Retired,
        Self::Released,
        Self::StepFailed,
        Self::Deadline,
        Self::VfLost,
        Self::VfReset,
        Self::VfRecovered,
        Self::GuestRegister,
        Self::GuestUnregister,
        Self::GuestAccept,
        Self::GuestReady,
        Self::GuestSwitched,
        Self::GuestTxDrained,
        Self::GuestQuiesced,
        Self::GuestFail,
        Self::GuestCleaned,
        Self::GuestRequestDetach,
        Self::GuestReset,
    ];

    /// The event that a guest's command is.
    pub const fn of_command(command: Command) -> Self {
        match command {
            Command::Register => Self::GuestRegister,
            Command::Unregister => Self::GuestUnregister,
            Command::Accept => Self::GuestAccept,
            Command::Ready => Self::GuestReady,
            Command::Switched => Self::GuestSwitched,
            Command::TxDrained => Self::GuestTxDrained,
            Command::Quiesced => Self::GuestQuiesced,
            Command::Fail => Self::GuestFail,
            Command::Cleaned => Self::GuestCleaned,
            Command::RequestDetach => Self::GuestRequestDetach,
        }
    }

    /// Who brings it about.
    pub const fn origin(self) -> Origin {
        match self {
            Self::Attach | Self::Detach => Origin::Operator,
            Self::Prepared
            | Self::LandingWritten
            | Self::PathMoved
            | Self::PathReturned
            | Self::Revoked
            | Self::Retired
            | Self::Released
            | Self::StepFailed
            | Self::Deadline
            | Self::VfLost
            | Self::VfReset
            | Self::VfRecovered => Origin::Host,
            Self::GuestRegister
            | Self::GuestUnregister
            | Self::GuestAccept
            | Self::GuestReady
            | Self::GuestSwitched
            | Self::GuestTxDrained
            | Self::GuestQuiesced
            | Self::GuestFail
            | Self::GuestCleaned
            | Self::GuestRequestDetach
            | Self::GuestReset => Origin::Guest,
        }
    }
}

/// What the control thread does. Each is harmless when there is nothing (left) to do, so that a
/// list can be run from any point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SwitchAction {
    /// Take a VF out of the daemon's pool.
    Acquire,
    /// Open it and map guest RAM for its DMA.
    OpenVf,
    /// Bring it up through its withheld control page.
    InitVf,
    /// Find the VF's plugin and verify it.
    LoadPlugin,
    /// Relocate the plugin and write it to the landing.
    WriteLanding,
    /// Put the VF's data pages into the window.
    MapWindow,
    /// Connect the VF's vectors to the guest's.
    WireVectors,
    /// Tell the daemon of the rings.
    PfInit,
    /// Have the daemon move address and forwarding to the VF.
    PfActivate,
    /// Deliver what the emulated path still holds.
    DrainPath,
    /// Tell the VF where its queues are, if its device is told on the control side.
    StartQueues,
    /// Let frames reach the VF, if no switch is before it that does so.
    AdmitVf,
    /// Let none reach it any more.
    DismissVf,
    /// Let the emulated path stand by.
    StandbyPath,
    /// Let the emulated path serve again.
    ServePath,
    /// Have the daemon move address and forwarding back.
    PfQuiesce,
    /// Write the revoked word in the shell page, from which on the guest may reuse all memory that
    /// the VF knew: only once the VF is stopped.
    SetRevoked,
    /// Put the dead page over the window.
    MapDeadPage,
    /// Stop the VF's DMA and interrupts through its withheld control page.
    StopVf,
    /// Disconnect the VF's vectors.
    UnwireVectors,
    /// Fill the landing again.
    RestoreLanding,
    /// Close the VF.
    CloseVf,
    /// Give the VF back to the daemon.
    Release,
    /// Interrupt the guest so that it reads the state register.
    Notify,
}

impl SwitchAction {
    /// Name as the log and the status output spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::OpenVf => "open-vf",
            Self::InitVf => "init-vf",
            Self::LoadPlugin => "load-plugin",
            Self::WriteLanding => "write-landing",
            Self::MapWindow => "map-window",
            Self::WireVectors => "wire-vectors",
            Self::PfInit => "pf-init",
            Self::PfActivate => "pf-activate",
            Self::DrainPath => "drain-path",
            Self::StartQueues => "start-queues",
            Self::AdmitVf => "admit-vf",
            Self::DismissVf => "dismiss-vf",
            Self::StandbyPath => "standby-path",
            Self::ServePath => "serve-path",
            Self::PfQuiesce => "pf-quiesce",
            Self::SetRevoked => "set-revoked",
            Self::MapDeadPage => "map-dead-page",
            Self::StopVf => "stop-vf",
            Self::UnwireVectors => "unwire-vectors",
            Self::RestoreLanding => "restore-landing",
            Self::CloseVf => "close-vf",
            Self::Release => "release",
            Self::Notify => "notify",
        }
    }
}
