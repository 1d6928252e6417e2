//! Why a switch did not go where it should, and what operators are told.

use std::error::Error;
use std::time::Duration;

use npa_abi::protocol::GuestError;
use pf_control::client::ClientError;

use super::hardware::VfPool;
use super::inject::InjectError;
use super::landing::ShellPageError;
use super::switch::{GuestHalf, Refusal, SwitchAction};
use super::window::WindowError;
use crate::vfio::VfError;
use crate::virtio::{DrainError, PathError};

/// Why an action of the host failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The VF daemon.
    #[error(transparent)]
    Pool(#[from] ClientError),
    /// The VF.
    #[error(transparent)]
    Vf(#[from] VfError),
    /// The plugin.
    #[error(transparent)]
    Plugin(#[from] InjectError),
    /// The landing or the shell page.
    #[error(transparent)]
    ShellPage(#[from] ShellPageError),
    /// The window.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The emulated path's mode.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The emulated path's rest.
    #[error(transparent)]
    Drain(#[from] DrainError),
    /// The guest relies on more than the VF does.
    #[error(
        "VF {vf} does no {}, on which the guest relies; start the VM with `offloads=off` in the \
         card's `--net` to have such VFs too", lacks.join(", no ")
    )]
    Offloads {
        /// PCI address.
        vf: String,
        /// What it does not do.
        lacks: Vec<&'static str>,
    },
    /// Something that an earlier step must have left is not there.
    #[error("there is no {0} to work with")]
    Missing(&'static str),
}

/// Why a switch did not go where it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchFailure {
    /// A step of the host.
    #[error("{}: {reason}", action.name())]
    Step {
        /// Which.
        action: SwitchAction,
        /// The chain of reasons.
        reason: String,
    },
    /// The guest was too slow.
    #[error(
        "the guest did not {} within {} ms (is it paused, or hung?)",
        half.name(), limit.as_millis()
    )]
    Deadline {
        /// Its part.
        half: GuestHalf,
        /// The limit.
        limit: Duration,
    },
    /// The guest gave up.
    #[error("the guest gave up: {}", guest_error(*error))]
    Guest {
        /// Its reason.
        error: GuestError,
    },
    /// The VF.
    #[error("the VF was lost: {0}")]
    Vf(&'static str),
    /// The guest is gone.
    #[error("the guest was reset, or its shell driver unloaded")]
    GuestReset,
}

impl SwitchFailure {
    /// Whether the same attach may succeed later: a slow guest may have caught up, a VF may have
    /// become free. A guest that says no is not asked again.
    pub(super) fn may_pass(&self) -> bool {
        !matches!(self, Self::Guest { .. })
    }
}

fn guest_error(error: GuestError) -> &'static str {
    match error {
        GuestError::Unspecified => "no reason given",
        GuestError::NoMemory => "not enough memory for queues or buffers",
        GuestError::BadImage => "it does not recognise the plugin image",
        GuestError::WrongAbi => "the plugin speaks another ABI version",
        GuestError::WrongLicence => "the plugin's licence does not suit its kernel",
        GuestError::WrongHash => "the plugin image was changed on the way",
        GuestError::PluginFailed => "the plugin failed to start or run",
        GuestError::Refused => "its owner has switched plugins off",
        GuestError::NoVectors => "it could not set up the VF's interrupts",
    }
}

/// What an attach or detach is answered with when it does not succeed.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// No shell.
    #[error(
        "the guest runs no shell driver on this device; load the shell module in the guest (its \
         stock driver stays in use until then)"
    )]
    NotRegistered,
    /// On a VF already.
    #[error("the device is on a VF already")]
    AlreadyAttached,
    /// Not on a VF.
    #[error("the device is not on a VF")]
    NotAttached,
    /// Another switch runs.
    #[error("another switch of this device is under way; try again in a moment")]
    Busy,
    /// The device has to stay emulated for now.
    #[error(
        "the VM is being saved or moved, for which the device stays emulated; try again after that"
    )]
    Reserved,
    /// The guest has to act first.
    #[error(
        "the guest has not cleaned up after the last failed switch; it does so as soon as it runs"
    )]
    GuestNotClean,
    /// The VF daemon is needed for the way back.
    #[error("nothing was changed, because the VF could not be given back")]
    PoolAway(#[source] ClientError),
    /// The attach did not work out.
    #[error("the device stays on its emulated path: {0}")]
    AttachFailed(SwitchFailure),
    /// The detach took force.
    #[error("the VF was revoked by force, because {0}; traffic goes on on the emulated path")]
    Forced(SwitchFailure),
    /// No end in sight.
    #[error("the switch did not end within {} s; see the status", .0.as_secs())]
    TimedOut(Duration),
}

impl SwitchError {
    /// Whether the same attach may succeed later without anybody else asking for it.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            // Whoever reserved the device sees to it.
            Self::AlreadyAttached | Self::NotAttached | Self::Reserved => false,
            Self::AttachFailed(failure) | Self::Forced(failure) => failure.may_pass(),
            Self::NotRegistered
            | Self::Busy
            | Self::GuestNotClean
            | Self::PoolAway(_)
            | Self::TimedOut(_) => true,
        }
    }

    /// The error for a refused request.
    pub(super) fn refused(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotRegistered => Self::NotRegistered,
            Refusal::AlreadyAttached => Self::AlreadyAttached,
            Refusal::NotAttached => Self::NotAttached,
            Refusal::GuestNotClean => Self::GuestNotClean,
            Refusal::Busy | Refusal::WrongState => Self::Busy,
        }
    }
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Transparent errors repeat their source's text.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// Whether the pool could take a VF back now.
pub(super) fn pool_ready(
    pool: &dyn VfPool,
    lease: Option<pf_control::ops::LeaseId>,
) -> Result<(), SwitchError> {
    lease.map_or(Ok(()), |lease| pool.check(lease).map_err(SwitchError::PoolAway))
}
