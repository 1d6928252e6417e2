//! The life of a VF lease: states, events, and the one function that says what follows what.
//!
//! Pure: no I/O, no allocation, no clock. The daemon carries out the effects; a model of the
//! whole switch protocol explores the same function.
//!
//! The rules that it keeps: what fails after acquire can only be released; what was activated
//! is quiesced before it is free; release is legal in every state and comes to the same end,
//! and the death of the owner is a release.

mod transition;

pub use transition::{Next, Refused, transition};

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a VF's lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// Nobody's, under its placeholder address.
    Free,
    /// A VM's, which may open and reset it; it still carries the placeholder address.
    Acquired,
    /// Its queues are known to the vendor module.
    Initialised,
    /// It carries the VM's address, and the switch sends the VM's frames to it.
    Active,
    /// Address and forwarding entry are back with the emulated path.
    Quiesced,
    /// A step failed. Only release leads on.
    Failed,
}

/// What can happen to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeaseEvent {
    /// A VM asks for the VF.
    Acquire,
    /// The VM names its rings.
    Init,
    /// The VM's queues run: move its traffic here.
    Activate,
    /// Move its traffic back.
    Quiesce,
    /// The VM gives the VF back.
    Release,
    /// The process that holds the VF has ended.
    OwnerDied,
    /// An effect of the last transition failed, or ran out of time.
    Fault,
}

/// What the daemon does on a transition, in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeaseEffect {
    /// Give the VF its placeholder address.
    SetPlaceholder,
    /// Have the vendor module ready the VF for its rings.
    PrepareQueues,
    /// Give the VF the VM's address: from now on the wire's frames go to it.
    MoveMacToVf,
    /// Wait until the switch has delivered what the PF had taken in for the VM's address before
    /// that went to the VF.
    SettleUplink,
    /// Point the switch's entry for the VM's address at the uplink, hence at the VF.
    ForwardToUplink,
    /// Point the switch's entry for the VM's address at the port of the emulated path.
    ForwardToPort,
    /// Give the VF its placeholder address again: the wire's frames go to the switch.
    MoveMacBack,
    /// Make sure that no process has the VF open any more.
    AwaitClosed,
    /// Reset the function.
    ResetVf,
    /// Turn the switch's entry into one that the switch learns and ages by itself.
    ForgetForwarding,
}

impl LeaseState {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Free, Self::Acquired, Self::Initialised, Self::Active, Self::Quiesced, Self::Failed];
}

impl LeaseEffect {
    /// All effects.
    pub const ALL: [Self; 10] = [
        Self::SetPlaceholder,
        Self::PrepareQueues,
        Self::MoveMacToVf,
        Self::SettleUplink,
        Self::ForwardToUplink,
        Self::ForwardToPort,
        Self::MoveMacBack,
        Self::AwaitClosed,
        Self::ResetVf,
        Self::ForgetForwarding,
    ];
}

impl LeaseEvent {
    /// All events.
    pub const ALL: [Self; 7] = [
        Self::Acquire,
        Self::Init,
        Self::Activate,
        Self::Quiesce,
        Self::Release,
        Self::OwnerDied,
        Self::Fault,
    ];
}

impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Free => "free",
            Self::Acquired => "acquired",
            Self::Initialised => "initialised",
            Self::Active => "active",
            Self::Quiesced => "quiesced",
            Self::Failed => "failed",
        })
    }
}

impl fmt::Display for LeaseEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SetPlaceholder => "set-placeholder",
            Self::PrepareQueues => "prepare-queues",
            Self::MoveMacToVf => "move-mac-to-vf",
            Self::SettleUplink => "settle-uplink",
            Self::ForwardToUplink => "forward-to-uplink",
            Self::ForwardToPort => "forward-to-port",
            Self::MoveMacBack => "move-mac-back",
            Self::AwaitClosed => "await-closed",
            Self::ResetVf => "reset-vf",
            Self::ForgetForwarding => "forget-forwarding",
        })
    }
}
