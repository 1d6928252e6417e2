//! The socket: only for its owner's eyes, and with stale leftovers out of the way.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use axum::serve::Listener;
use rustix::fs::Mode;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};

use super::server::ServerError;

/// Listens on a Unix socket of mode 0600 and serves its owner and root only. The socket's file
/// goes when this is dropped.
pub(super) struct PrivateListener {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

impl PrivateListener {
    /// Binds `path`, in place of a socket that nobody serves any more.
    pub(super) fn bind(path: &Path) -> Result<Self, ServerError> {
        remove_stale(path)?;
        let failed = |source| ServerError::Bind { path: path.to_owned(), source };
        // The mode of a socket's file is what the mask leaves; changing it later would be late.
        let before = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(before);
        let owner = rustix::process::geteuid().as_raw();
        Ok(Self { listener: bound.map_err(failed)?, path: path.to_owned(), owner })
    }

    fn is_welcome(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == 0 || peer.uid() == self.owner => true,
            Ok(peer) => {
                tracing::warn!(uid = peer.uid(), "refused a control connection of another user");
                false
            }
            Err(error) => {
                tracing::warn!(%error, "cannot tell who opened a control connection");
                false
            }
        }
    }
}

impl Listener for PrivateListener {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            // Waits out a lack of descriptors by itself.
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if self.is_welcome(&stream) {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Drop for PrivateListener {
    fn drop(&mut self) {
        // Somebody else may have removed it; then it is gone as it should be.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes a socket that nobody listens on. Never removes anything but a socket.
fn remove_stale(path: &Path) -> Result<(), ServerError> {
    let failed = |source| ServerError::Bind { path: path.to_owned(), source };
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(ServerError::NotASocket(path.to_owned()));
    }
    match BlockingStream::connect(path) {
        Ok(_) => Err(ServerError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}
