//! Why the daemon refused an operation.

use super::{LeaseId, Op};
use crate::lease::LeaseState;
use serde::{Deserialize, Serialize};

/// A refusal, typed so that a VMM can act on it and worded so that a person can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(tag = "error", rename_all = "kebab-case")]
pub enum OpError {
    /// The vendor module of the VF does not serve this operation.
    #[error("'{}' is not supported by the VF's vendor module", op.name())]
    NotSupported {
        /// The operation.
        op: Op,
    },
    /// Every suitable VF is held.
    #[error(
        "no VF is free: {held} of {total} suitable ones are held, in maintenance or kept for who waits; detach a VM, serve more \
         (--vfs), or end the maintenance (enable)"
    )]
    NoVfFree {
        /// VFs that would do.
        total: u32,
        /// How many of them are held, out of order, in maintenance or kept for who waits longer.
        held: u32,
    },
    /// Every suitable VF is held, or kept for those who wait longer; the device is in the queue.
    #[error("no VF is free; the device is in the queue, with {ahead} before it")]
    Queued {
        /// How many wait longer.
        ahead: u32,
    },
    /// No VF of the pool could ever do what is asked.
    #[error("no VF of this host can serve the request: {reason}")]
    Unsuitable {
        /// What is missing.
        reason: String,
    },
    /// The handle names no lease, or one that has ended.
    #[error("there is no lease {lease}; acquire a VF first")]
    NoSuchLease {
        /// The handle.
        lease: LeaseId,
    },
    /// Another process holds the lease.
    #[error("lease {lease} belongs to process {owner_pid}")]
    NotOwner {
        /// The handle.
        lease: LeaseId,
        /// Who holds it.
        owner_pid: u32,
    },
    /// The caller may hold leases, and no more.
    #[error("only root, or the daemon's own user, may do that")]
    NotAdmin,
    /// The port is not there, in use, or not the caller's.
    #[error("{reason}")]
    Port {
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The port's policy does not allow it.
    #[error(
        "the policy of port '{port}' does not allow that: {reason}; an operator's matter (--ports)"
    )]
    Policy {
        /// The port.
        port: String,
        /// What it does not allow.
        reason: String,
    },
    /// The operation is not legal in the lease's state.
    #[error("'{}' is not legal while the lease is {state}; release is always legal", op.name())]
    WrongState {
        /// The operation.
        op: Op,
        /// The state.
        state: LeaseState,
    },
    /// An argument is out of range.
    #[error("bad request: {reason}")]
    Invalid {
        /// Which, and what it may be.
        reason: String,
    },
    /// The VF was to be freed, but a process still has it open.
    #[error(
        "the VF is still open in {}: close it, then release again",
        holder.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    StillOpen {
        /// The process, if it could be found.
        holder: Option<u32>,
    },
    /// The kernel refused a step; the lease is failed and must be released.
    #[error("{step} failed: {reason}")]
    Kernel {
        /// What was tried.
        step: String,
        /// What the kernel said.
        reason: String,
    },
    /// The operation did not end in time; the lease is failed and must be released.
    #[error("'{}' did not end within {deadline_ms} ms", op.name())]
    Deadline {
        /// The operation.
        op: Op,
        /// Its bound.
        deadline_ms: u64,
    },
}

/// An error's message with those of its causes, for where only a text goes on.
#[cfg(feature = "daemon")]
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    use std::fmt::Write;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string does not fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
