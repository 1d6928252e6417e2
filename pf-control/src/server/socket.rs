//! The listening socket: only its owner may use it, and only one daemon has it.

use super::ServeError;
use rustix::fs::Mode;
use rustix::process::umask;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use tokio::net::UnixListener;

/// Listens at `path` with mode 0600. A socket that a dead daemon left is replaced.
pub(super) fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    let error = |source| ServeError::Socket { socket: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if UnixStream::connect(path).is_ok() {
                return Err(ServeError::SocketInUse { socket: path.to_owned() });
            }
            fs::remove_file(path).map_err(error)?;
        }
        // Not ours to remove.
        Ok(_) => return Err(error(io::ErrorKind::AlreadyExists.into())),
        Err(_) => {}
    }
    // The mode must be right from the first moment. No other thread makes files yet.
    let former = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let listener = UnixListener::bind(path);
    umask(former);
    listener.map_err(error)
}

/// Removes the socket at the daemon's end.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(%error, "the socket was not removed");
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
        let listener = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(listen(&path), Err(ServeError::SocketInUse { .. })));
        drop(listener);
        listen(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(listen(&path), Err(ServeError::Socket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
