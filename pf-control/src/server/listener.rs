//! Accepts connections, so many of each process and each user and no more: one that opens them by the
//! thousand takes nothing from the others.

use axum::serve::Listener;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};

/// Most connections of one process. A VMM has one for each device, and one for each call.
const OF_A_PROCESS: u32 = 64;
/// Most connections of one user, root and the daemon's own apart.
const OF_A_USER: u32 = 1024;

/// Open connections by who has them.
#[derive(Debug, Default)]
struct Open {
    processes: Count<i32>,
    users: Count<u32>,
}

/// How many there are of each.
#[derive(Debug)]
struct Count<K>(HashMap<K, u32>);

impl<K> Default for Count<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Count<K> {
    /// Adds one, unless there are `most`.
    fn add(&mut self, key: K, most: u32) -> bool {
        let count = self.0.entry(key).or_default();
        let fits = *count < most;
        *count += u32::from(fits);
        fits
    }

    fn take(&mut self, key: K) {
        if let Entry::Occupied(mut count) = self.0.entry(key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// A process, and its user where that counts.
#[derive(Debug, Clone, Copy)]
struct Holder {
    pid: i32,
    uid: Option<u32>,
}

impl Open {
    fn add(&mut self, holder: Holder) -> bool {
        if !self.processes.add(holder.pid, OF_A_PROCESS) {
            return false;
        }
        let fits = holder.uid.is_none_or(|uid| self.users.add(uid, OF_A_USER));
        if !fits {
            self.processes.take(holder.pid);
        }
        fits
    }

    fn take(&mut self, holder: Holder) {
        self.processes.take(holder.pid);
        if let Some(uid) = holder.uid {
            self.users.take(uid);
        }
    }
}

/// The daemon's listener.
pub(super) struct FairListener {
    listener: UnixListener,
    open: Arc<Mutex<Open>>,
}

impl FairListener {
    pub(super) fn new(listener: UnixListener) -> Self {
        Self { listener, open: Arc::default() }
    }

    /// The connection, if its process may have one more.
    fn admit(&self, stream: UnixStream) -> Option<Connection> {
        let credentials = stream.peer_cred().ok()?;
        let uid = credentials.uid();
        let own = rustix::process::geteuid().as_raw();
        let holder = Holder {
            // Those of another PID namespace count as one.
            pid: credentials.pid().unwrap_or(0),
            uid: (uid != 0 && uid != own).then_some(uid),
        };
        if !lock(&self.open).add(holder) {
            tracing::debug!(holder.pid, uid, "a connection too many was closed");
            return None;
        }
        Some(Connection { stream, _place: Place { open: Arc::clone(&self.open), holder } })
    }
}

impl Listener for FairListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            // Waits out a lack of descriptors by itself.
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if let Some(connection) = self.admit(stream) {
                return (connection, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that counts for as long as it is there.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    _place: Place,
}

impl Connection {
    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

#[derive(Debug)]
struct Place {
    open: Arc<Mutex<Open>>,
    holder: Holder,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.open).take(self.holder);
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_its_share_and_takes_nobody_else_s() {
        let mut open = Open::default();
        let flood = Holder { pid: 10, uid: Some(1000) };
        for _ in 0..OF_A_PROCESS {
            assert!(open.add(flood));
        }
        assert!(!open.add(flood));
        assert!(open.add(Holder { pid: 11, uid: Some(1000) }));
        open.take(flood);
        assert!(open.add(flood));
    }

    #[test]
    fn neither_does_a_user_with_many_processes() {
        let mut open = Open::default();
        let admitted = (1..10_000).filter(|&pid| open.add(Holder { pid, uid: Some(1000) })).count();
        assert_eq!(admitted, OF_A_USER as usize);
        assert!(open.add(Holder { pid: 10_000, uid: Some(1001) }));
        assert!(open.add(Holder { pid: 10_001, uid: None }), "an operator is let in");
        // One who was refused has left nothing behind.
        assert_eq!(open.processes.0.len(), OF_A_USER as usize + 2);
        for pid in 1..=OF_A_USER as i32 {
            open.take(Holder { pid, uid: Some(1000) });
        }
        assert_eq!((open.processes.0.len(), open.users.0.len()), (2, 1));
    }
}
