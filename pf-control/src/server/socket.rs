//! The listening socket: only its owner may use it, and only one daemon has it.
//!
//! A lock file beside the socket says who has it, so that the socket itself need only appear when
//! the daemon is ready: whoever can connect gets an answer.

use super::ServeError;
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::process::umask;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// The right to listen at a path; it ends with the process, however that ends.
pub(super) struct Claim {
    path: PathBuf,
    _lock: File,
}

impl Claim {
    /// Takes the path, unless another daemon has it or something else is there.
    pub(super) fn take(path: &Path) -> Result<Self, ServeError> {
        let error = |source| ServeError::Socket { socket: path.to_owned(), source };
        if let Ok(found) = fs::symlink_metadata(path)
            && !found.file_type().is_socket()
        {
            // Not ours to remove.
            return Err(error(io::ErrorKind::AlreadyExists.into()));
        }
        let lock = File::create(path.with_extension("lock")).map_err(error)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(Errno::WOULDBLOCK) => Err(ServeError::SocketInUse { socket: path.to_owned() }),
            Err(errno) => Err(error(errno.into())),
        }
    }

    /// Listens with mode 0600. A socket that a dead daemon left is replaced.
    pub(super) fn listen(&self) -> Result<UnixListener, ServeError> {
        let error = |source| ServeError::Socket { socket: self.path.clone(), source };
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(error(source)),
            _ => {}
        }
        // The mode must be right from the first moment. No other thread makes files meanwhile but
        // the store's, which nobody else may read.
        let former = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let listener = UnixListener::bind(&self.path);
        umask(former);
        listener.map_err(error)
    }

    /// Removes the socket at the daemon's end.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "the socket was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn only_the_owner_may_connect_and_a_second_daemon_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let claim = Claim::take(&path).unwrap();
        let _listener = claim.listen().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Claim::take(&path), Err(ServeError::SocketInUse { .. })));
        drop(claim);
        // The socket is still there, as after a crash.
        Claim::take(&path).unwrap().listen().unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Claim::take(&path), Err(ServeError::Socket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_missing_directory_is_reported() {
        let error = Claim::take(Path::new("/nowhere/s")).err().unwrap();
        assert!(error.to_string().contains("directory that exists"), "{error}");
    }
}
