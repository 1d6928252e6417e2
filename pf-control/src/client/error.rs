//! Why a call to the daemon failed.

use crate::ops::OpError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A failed call. After any but a refusal of `acquire`, the lease may be in any state: release it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "pf-control does not run at {}: start it with 'pf-control serve --socket {}'",
        socket.display(), socket.display()
    )]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What connecting said.
        source: io::Error,
    },
    /// The socket is not ours to use.
    #[error("no permission to use {}: run as its owner or a member of its group", socket.display())]
    Permission {
        /// The socket.
        socket: PathBuf,
        /// What connecting said.
        source: io::Error,
    },
    /// The daemon went away in the middle of the call.
    #[error("pf-control ended during '{call}': {reason}")]
    Died {
        /// The call.
        call: String,
        /// What the connection said.
        reason: String,
    },
    /// No answer in time.
    #[error("pf-control did not answer '{call}' within {} ms", after.as_millis())]
    TimedOut {
        /// The call.
        call: String,
        /// The bound.
        after: Duration,
    },
    /// All VFs that would do are held; the device may be in the queue for one.
    #[error(transparent)]
    NoVfFree(OpError),
    /// The daemon refused.
    #[error(transparent)]
    Refused(OpError),
    /// The answer makes no sense: another version, or not pf-control at all.
    #[error("pf-control gave an answer that is not understood: {reason}")]
    Protocol {
        /// What came.
        reason: String,
    },
}

impl From<OpError> for ClientError {
    fn from(error: OpError) -> Self {
        match error {
            OpError::NoVfFree { .. } | OpError::Queued { .. } => Self::NoVfFree(error),
            other => Self::Refused(other),
        }
    }
}
