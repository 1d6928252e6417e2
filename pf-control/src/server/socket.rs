//! The listening socket: only its owner and a group may use it, and only one daemon has it.
//!
//! A lock file beside the socket says who has it, so that the socket itself need only appear when
//! the daemon is ready: whoever can connect gets an answer.

use super::ServeError;
use nix::unistd::Group;
use rustix::fs::{FlockOperation, Mode, chmod, chown, flock};
use rustix::io::Errno;
use rustix::process::{Gid, umask};
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

    /// Listens with mode 0600, or 0660 for the members of `group`. A socket that a dead daemon left
    /// is replaced.
    pub(super) fn listen(&self, group: Option<&str>) -> Result<UnixListener, ServeError> {
        let group = group.map(group_of).transpose()?;
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
        let listener = listener.map_err(error)?;
        if let Some(group) = group {
            // The group first, so that no other one is let in for a moment.
            let given = chown(&self.path, None, Some(group))
                .and_then(|()| chmod(&self.path, Mode::from_raw_mode(0o660)));
            given.map_err(|errno| error(errno.into()))?;
        }
        Ok(listener)
    }

    /// Removes the socket at the daemon's end.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "the socket was not removed");
        }
    }
}

fn group_of(name: &str) -> Result<Gid, ServeError> {
    let unknown = |source: Option<io::Error>| ServeError::Group { group: name.to_owned(), source };
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(Gid::from_raw(group.gid.as_raw())),
        Ok(None) => Err(unknown(None)),
        Err(errno) => Err(unknown(Some(errno.into()))),
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
        let _listener = claim.listen(None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Claim::take(&path), Err(ServeError::SocketInUse { .. })));
        drop(claim);
        // The socket is still there, as after a crash.
        Claim::take(&path).unwrap().listen(None).unwrap();
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

    #[tokio::test]
    async fn members_of_the_group_may_connect_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let claim = Claim::take(&path).unwrap();
        let own = nix::unistd::getegid();
        let own = Group::from_gid(own).unwrap().map(|group| group.name).unwrap();
        let _listener = claim.listen(Some(&own)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let error = claim.listen(Some("no such group")).unwrap_err();
        assert!(error.to_string().contains("no such group"), "{error}");
    }
}
