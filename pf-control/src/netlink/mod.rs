//! The route netlink requests that the daemon needs, each with a deadline.
//!
//! Calls block, so they belong on a blocking thread of the runtime that the connection lives in.
//! Each returns when the kernel has acknowledged it. No policy here.

mod events;
mod fdb;
mod link;

pub use events::follow_links;
pub use fdb::{FdbEntry, FdbKind};
pub use link::Link;

use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::runtime::Handle as Runtime;

/// How long the kernel may take for one request. It holds the RTNL lock meanwhile, which other
/// processes hold for as long as a driver takes to bring an interface up.
const DEADLINE: Duration = Duration::from_secs(1);

/// A request that the kernel refused or did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{request}")]
pub struct NetlinkError {
    /// What was asked, in words.
    pub request: String,
    /// What the kernel said; [`io::ErrorKind::TimedOut`] for no answer.
    pub source: io::Error,
}

impl NetlinkError {
    /// The kernel knows no such link or entry.
    pub fn is_absent(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::ENODEV | libc::ENOENT))
    }

    /// The kernel does not allow it in the present state.
    pub fn is_not_permitted(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EPERM)
    }
}

/// A connection to the kernel's route netlink family, in the network namespace in which it was
/// opened.
#[derive(Clone)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    runtime: Runtime,
}

impl Netlink {
    /// Opens a connection, driven by the runtime of the caller.
    ///
    /// # Errors
    /// The kernel has no netlink, or no descriptor is left.
    pub fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let runtime = Runtime::current();
        runtime.spawn(connection);
        Ok(Self { handle, runtime })
    }

    /// Carries out `request` on this blocking thread.
    fn run<T>(
        &self,
        request: impl Fn() -> String,
        work: impl Future<Output = Result<T, rtnetlink::Error>>,
    ) -> Result<T, NetlinkError> {
        let outcome = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, work).await });
        let source = match outcome {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(rtnetlink::Error::NetlinkError(error))) => error.to_io(),
            Ok(Err(error)) => io::Error::other(error.to_string()),
            Err(_) => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer from the kernel in {} ms", DEADLINE.as_millis()),
            ),
        };
        Err(NetlinkError { request: request(), source })
    }
}
