//! Why a VM was not moved or saved.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::channel::ChannelError;
use crate::api::ApiError;
use crate::state::StateError;
use crate::virtio::worker::CallError;
use crate::vm::VmError;

/// A VM that was not moved or saved. Except after [`MigrationError::InDoubt`], it runs where it
/// ran before.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// No connection.
    #[error("cannot reach {endpoint}; is a vmm running there with --incoming?")]
    Connect {
        /// Where to.
        endpoint: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Cannot be listened on.
    #[error("cannot listen on {endpoint}")]
    Listen {
        /// Where.
        endpoint: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The connection, or what came over it.
    #[error("{phase}: {source}")]
    Channel {
        /// What was being done.
        phase: &'static str,
        /// What went wrong.
        #[source]
        source: ChannelError,
    },
    /// This end sees that it cannot be.
    #[error("the other end cannot take this VM: {}", .0.join("; "))]
    Unfit(Vec<String>),
    /// The other end gave up, and says why.
    #[error("the other end gave up: {0}")]
    Peer(String),
    /// A message that does not belong here.
    #[error("the other end sent {got} where {expected} belongs; is it a vmm of this version?")]
    Unexpected {
        /// What came.
        got: String,
        /// What should have come.
        expected: &'static str,
    },
    /// Memory that the VM does not have.
    #[error("the other end sent {len:#x} bytes for guest address {gpa:#x}, which is no RAM here")]
    NotRam {
        /// Guest physical address.
        gpa: u64,
        /// Bytes.
        len: u64,
    },
    /// Memory differs after the copy.
    #[error("guest memory differs at the two ends (checksums {ours:08x} and {theirs:08x})")]
    MemoryDiffers {
        /// Here.
        ours: u32,
        /// There.
        theirs: u32,
    },
    /// A device did not give up its VF.
    #[error("`{device}` did not fall back to its emulated path: {source}")]
    Fallback {
        /// The device.
        device: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// A device's thread.
    #[error("`{device}` did not take part in the move")]
    Device {
        /// The device.
        device: String,
        /// Why.
        #[source]
        source: CallError,
    },
    /// The VM.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// Its state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The guest writes faster than its memory can be copied.
    #[error(
        "after {} s and {rounds} rounds a stop would still take {} ms, and {} ms are the target: \
         the guest writes {written} MB/s, the connection carries {carried} MB/s; use \
         --on-timeout force, --throttle, or a larger --downtime-target",
        elapsed.as_secs(), estimate.as_millis(), target.as_millis()
    )]
    NotConverging {
        /// Since the copying began.
        elapsed: Duration,
        /// Passes over memory.
        rounds: u32,
        /// How long the stop would be.
        estimate: Duration,
        /// How long it may be.
        target: Duration,
        /// What the guest writes, in MB/s.
        written: u64,
        /// What is carried, in MB/s.
        carried: u64,
    },
    /// Time is up within a pass over memory.
    #[error(
        "after {} s memory is still being copied: the connection carries {carried:.1} MB/s; use a \
         larger --timeout, or --on-timeout force",
        timeout.as_secs()
    )]
    TooSlow {
        /// How long it may be copied.
        timeout: Duration,
        /// What is carried, in MB/s.
        carried: f64,
    },
    /// Somebody asked for it.
    #[error("cancelled")]
    Cancelled,
    /// Something moves or saves the VM already.
    #[error("the VM is being moved or saved already; see the status")]
    Busy,
    /// Too late for that.
    #[error("there is nothing to cancel")]
    NothingToCancel,
    /// Nobody here knows whether the VM runs there.
    #[error(
        "the connection fell silent at the very moment of the hand-over, so the VM may run at the \
         other end; it is held here. Look there: if it does not run, `vmm ctl resume` lets it go \
         on here; if it does, `vmm ctl shutdown` ends it here"
    )]
    InDoubt,
    /// A snapshot's files.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// There is one already.
    #[error("{} exists already; name a folder that does not", .0.display())]
    Exists(PathBuf),
    /// The snapshot's folder is not one that this VM may write to.
    #[error(
        "may not make {}: a VM makes snapshots below the folder that its `--snapshots` names, where \
         its user may write", .0.display()
    )]
    Forbidden(PathBuf),
}

impl MigrationError {
    /// Says in which phase a channel failed.
    pub(super) fn at(phase: &'static str) -> impl Fn(ChannelError) -> Self {
        move |source| Self::Channel { phase, source }
    }
}
