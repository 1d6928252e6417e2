//! Watching the processes that hold VFs: when one ends, its VFs are released.

use crate::pool::Pool;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How often a VF that could not be cleaned is tried again.
const RETRY: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Least pause between two rounds: a VF with an operation going on is left to that operation, and
/// its dead owner would wake us at once.
const PAUSE: Duration = Duration::from_millis(20);

/// Wakes the watcher when a VF has a new owner.
#[derive(Debug, Clone)]
pub(super) struct Doorbell(Arc<OwnedFd>);

impl Doorbell {
    /// Rings it; rings that nobody has heard yet are one.
    pub(super) fn ring(&self) {
        if let Err(errno) = write(&self.0, &1_u64.to_ne_bytes()) {
            tracing::warn!(%errno, "the watcher was not told of a new owner; it looks every second");
        }
    }
}

/// Starts the thread that releases the VFs of processes that end. It ends with the daemon.
pub(super) fn start(pool: Arc<Pool>) -> io::Result<Doorbell> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let doorbell = Doorbell(Arc::clone(&bell));
    thread::Builder::new().name("owners".to_owned()).spawn(move || {
        loop {
            if wait(&pool, &bell) != Wake::Bell {
                pool.reap();
                thread::sleep(PAUSE);
            }
        }
    })?;
    Ok(doorbell)
}

#[derive(Debug, PartialEq, Eq)]
enum Wake {
    /// There is a new owner to be watched.
    Bell,
    /// An owner has ended.
    End,
    /// Neither, for a while.
    Retry,
}

fn wait(pool: &Pool, bell: &OwnedFd) -> Wake {
    let owners: Vec<_> = pool.slots().iter().filter_map(|slot| slot.owner()).collect();
    let mut fds = vec![PollFd::new(bell, PollFlags::IN)];
    fds.extend(owners.iter().map(|owner| PollFd::new(&owner.ended, PollFlags::IN)));
    match poll(&mut fds, Some(&RETRY)) {
        Ok(0) | Err(Errno::INTR) => return Wake::Retry,
        Ok(_) => {}
        Err(errno) => {
            tracing::error!(%errno, "the owners of VFs cannot be watched; looking every second");
            thread::sleep(Duration::from_secs(1));
            return Wake::Retry;
        }
    }
    let ended = fds[1..].iter().any(|fd| !fd.revents().is_empty());
    if !fds[0].revents().is_empty() {
        // Empties the counter; its value does not matter, nor that it may be empty already.
        let _ = read(bell, &mut [0_u8; 8]);
    }
    if ended { Wake::End } else { Wake::Bell }
}
