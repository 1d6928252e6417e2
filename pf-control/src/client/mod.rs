//! The blocking client of the daemon, for VMMs.
//!
//! Every call has a deadline and opens its own connection, so that a daemon that was restarted
//! in between is no event. It must not be called from inside an async runtime.

mod error;
mod transport;

pub use error::ClientError;

use crate::ops::{
    AcquireRequest, Acquired, AdapterEntry, DeviceClass, LeaseId, LeaseInfo, MacAddr, Op,
    OpenRequest, Reply, Request, RequestEntry, Rings, Supported, VfEntry,
};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an operation may take unless [`Client::with_deadline`] says otherwise. It is longer
/// than the daemon's own bounds, so that the daemon's answer normally comes first.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// The answer to a ping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct Pong {
    /// The daemon's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
}

/// A daemon, by its socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
}

impl Client {
    /// The daemon that listens at `socket`. Does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), deadline: DEFAULT_DEADLINE }
    }

    /// The same daemon, with another bound for each call.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The daemon's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether the daemon is there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ping(&self) -> Result<Pong, ClientError> {
        self.get("/v1/ping")
    }

    /// All VFs of the pool.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn list(&self) -> Result<Vec<VfEntry>, ClientError> {
        self.get("/v1/vfs")
    }

    /// The host's adapters.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn adapters(&self) -> Result<Vec<AdapterEntry>, ClientError> {
        self.get("/v1/adapters")
    }

    /// What VMs ask for, as far as this process may see it: those that have a VF, then those that
    /// wait, the next one first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn requests(&self) -> Result<Vec<RequestEntry>, ClientError> {
        self.get("/v1/requests")
    }

    /// The daemon's counters and gauges, in Prometheus' text form.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn metrics(&self) -> Result<String, ClientError> {
        transport::text(&self.socket, self.deadline, "/metrics")
    }

    /// Follows the inventory: `each` gets every VF that this process may see, then each that
    /// changes, and now and then `None`, so that it can break off.
    ///
    /// # Errors
    /// [`ClientError`], once the daemon has ended or been silent for long.
    pub fn follow<B>(
        &self,
        mut each: impl FnMut(Option<VfEntry>) -> ControlFlow<B>,
    ) -> Result<B, ClientError> {
        transport::follow(&self.socket, self.deadline, "/v1/events", |line| {
            let entry = match line {
                [] => None,
                line => Some(serde_json::from_slice(line).map_err(|error| {
                    ClientError::Protocol { reason: format!("an event makes no sense: {error}") }
                })?),
            };
            Ok(each(entry))
        })
    }

    /// Puts the PF behind the interface `pf` into maintenance: its VFs are given to nobody, and
    /// VMMs are asked for those that they hold. Answers these. May be repeated.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] unless this process is root's or the daemon's user's.
    pub fn drain(&self, pf: &str) -> Result<Vec<VfEntry>, ClientError> {
        transport::post(&self.socket, self.deadline, &format!("/v1/pfs/{pf}/drain"))
    }

    /// Ends a PF's maintenance.
    ///
    /// # Errors
    /// As [`Client::drain`].
    pub fn enable(&self, pf: &str) -> Result<Vec<VfEntry>, ClientError> {
        transport::post(&self.socket, self.deadline, &format!("/v1/pfs/{pf}/enable"))
    }

    /// Carries out any operation of the table.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn call(&self, request: &Request) -> Result<Reply, ClientError> {
        transport::call(&self.socket, self.deadline, request)
    }

    /// Whether a VF of `class` could be given.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn is_supported(&self, class: DeviceClass) -> Result<Supported, ClientError> {
        match self.call(&Request::IsSupported { class })? {
            Reply::Supported(supported) => Ok(supported),
            other => Err(unexpected(Op::IsSupported, &other)),
        }
    }

    /// Takes a VF for this process. It is released when the process ends, whatever happens.
    ///
    /// # Errors
    /// [`ClientError::NoVfFree`] when all are held; [`ClientError::Refused`] when none will ever
    /// do; otherwise the daemon's absence.
    pub fn acquire(&self, request: AcquireRequest) -> Result<Acquired, ClientError> {
        match self.call(&Request::Acquire(request))? {
            Reply::Acquired(acquired) => Ok(*acquired),
            other => Err(unexpected(Op::Acquire, &other)),
        }
    }

    /// Readies the VF for its rings.
    ///
    /// # Errors
    /// [`ClientError`]; the lease must then be released.
    pub fn init(&self, lease: LeaseId, rings: Rings) -> Result<(), ClientError> {
        self.done(&Request::Init { lease, rings })
    }

    /// Moves `mac` and the switch's entry for it from `port` (the tap's name) to the VF. When it
    /// returns, the kernel has acknowledged both.
    ///
    /// # Errors
    /// [`ClientError`]; the daemon has put back what it moved, and the lease must be released.
    pub fn activate(
        &self,
        lease: LeaseId,
        mac: MacAddr,
        port: impl Into<String>,
    ) -> Result<(), ClientError> {
        self.done(&Request::Activate { lease, mac, port: port.into() })
    }

    /// Moves the address and the switch's entry back to the port.
    ///
    /// # Errors
    /// [`ClientError`]; the lease must then be released.
    pub fn quiesce(&self, lease: LeaseId) -> Result<(), ClientError> {
        self.done(&Request::Quiesce { lease })
    }

    /// Gives the VF back, from any state. The VF must be closed already; the daemon waits a
    /// moment for that.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn release(&self, lease: LeaseId) -> Result<(), ClientError> {
        self.done(&Request::Release { lease })
    }

    /// What is known of the lease.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get_info(&self, lease: LeaseId) -> Result<LeaseInfo, ClientError> {
        match self.call(&Request::GetInfo { lease })? {
            Reply::Info(info) => Ok(*info),
            other => Err(unexpected(Op::GetInfo, &other)),
        }
    }

    /// The open IOMMU group of a VF that this process holds, which may lock `memory` bytes of guest
    /// RAM from then on.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when the lease is not ours or the group is open.
    pub fn open_group(&self, lease: LeaseId, memory: u64) -> Result<OwnedFd, ClientError> {
        let path = format!("/v1/leases/{lease}/open");
        transport::open(&self.socket, self.deadline, &path, Some(&OpenRequest { memory }))
    }

    /// The open tap `port`.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when there is none, or not for this user.
    pub fn open_port(&self, port: &str) -> Result<OwnedFd, ClientError> {
        let path = format!("/v1/ports/{port}/open");
        transport::open(&self.socket, self.deadline, &path, None::<&()>)
    }

    fn done(&self, request: &Request) -> Result<(), ClientError> {
        match self.call(request)? {
            Reply::Done => Ok(()),
            other => Err(unexpected(request.op(), &other)),
        }
    }

    fn get<T: for<'a> Deserialize<'a>>(&self, path: &str) -> Result<T, ClientError> {
        transport::get(&self.socket, self.deadline, path)
    }
}

fn unexpected(op: Op, reply: &Reply) -> ClientError {
    ClientError::Protocol { reason: format!("'{op}' was answered by {reply:?}") }
}

#[cfg(test)]
#[path = "client_test.rs"]
mod tests;
