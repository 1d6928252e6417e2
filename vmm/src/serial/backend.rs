//! The console's other end: opens it, and reads and writes it without ever blocking.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::{SerialError, SerialTarget};

/// Most bytes of one write: what a pipe that polls writable takes without blocking (PIPE_BUF).
pub(super) const CHUNK: usize = 4096;

/// The other end, with its state.
pub(super) enum Backend {
    /// Standard streams, with the terminal's former settings when there is one.
    Stdio { stdin: File, stdout: File, _terminal: Option<RawTerminal>, at_end: bool },
    /// Output only.
    File(File),
    /// A listener, at most one client, and one that has gone but is still being watched.
    Socket {
        listener: UnixListener,
        client: Option<UnixStream>,
        gone: Option<UnixStream>,
        path: PathBuf,
    },
    /// Nothing.
    None,
}

/// Descriptors of a backend and what to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// Readable when there is input.
    pub(super) input: Option<RawFd>,
    /// Writable when output can go on.
    pub(super) output: Option<RawFd>,
    /// Readable when a client wants to connect.
    pub(super) listener: Option<RawFd>,
}

impl Backend {
    /// Opens `target`.
    pub(super) fn open(target: &SerialTarget) -> Result<Self, SerialError> {
        let wrap = |source| SerialError::Open { target: target.clone(), source };
        match target {
            SerialTarget::Stdio => Self::stdio().map_err(wrap),
            SerialTarget::File(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                file.map(Self::File).map_err(wrap)
            }
            SerialTarget::Socket(path) => {
                remove_stale_socket(path)?;
                listen(path).map_err(wrap)
            }
            SerialTarget::None => Ok(Self::None),
        }
    }

    fn stdio() -> io::Result<Self> {
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let terminal = RawTerminal::enter(&stdin);
        Ok(Self::Stdio { stdin, stdout, _terminal: terminal, at_end: false })
    }

    /// What to wait for. A regular file (which epoll refuses) has no sources: it never blocks.
    pub(super) fn sources(&self) -> Sources {
        match self {
            Self::Stdio { stdin, stdout, at_end, .. } => Sources {
                input: (!at_end).then(|| pollable(stdin)).flatten(),
                output: pollable(stdout),
                listener: None,
            },
            Self::Socket { client: Some(client), .. } => {
                let fd = Some(client.as_raw_fd());
                Sources { input: fd, output: fd, listener: None }
            }
            Self::Socket { listener, client: None, .. } => {
                Sources { listener: Some(listener.as_raw_fd()), ..Sources::default() }
            }
            Self::File(_) | Self::None => Sources::default(),
        }
    }

    /// Whether there is anybody to write to.
    pub(super) fn has_reader(&self) -> bool {
        !matches!(self, Self::Socket { client: None, .. })
    }

    /// Takes a waiting client, when there is none yet.
    pub(super) fn accept(&mut self) {
        let Self::Socket { listener, client: client @ None, .. } = self else { return };
        match listener.accept() {
            Ok((stream, _)) => match stream.set_nonblocking(true) {
                Ok(()) => *client = Some(stream),
                Err(error) => tracing::warn!(%error, "serial client refused"),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => tracing::warn!(%error, "serial client lost"),
        }
    }

    /// Reads what is there, up to the length of `buffer`. A client that has gone, or the end of
    /// standard input, is not waited for any more.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let result = match self {
            Self::Stdio { stdin, .. } => stdin.read(buffer),
            Self::Socket { client: Some(client), .. } => client.read(buffer),
            Self::Socket { client: None, .. } | Self::File(_) | Self::None => return 0,
        };
        match result {
            Ok(0) => self.hang_up(),
            Ok(len) => return len,
            Err(error) if is_transient(&error) => {}
            Err(_) => self.hang_up(),
        }
        0
    }

    /// Writes what can be written now; `WouldBlock` when that is nothing.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = match self {
            Self::Stdio { stdout, .. } => write_if_ready(stdout, bytes),
            Self::File(file) => file.write(bytes),
            Self::Socket { client: Some(client), .. } => client.write(bytes),
            Self::Socket { client: None, .. } => Err(io::ErrorKind::WouldBlock.into()),
            Self::None => Ok(bytes.len()),
        };
        match result {
            Err(error) if !is_transient(&error) => {
                self.hang_up();
                // Without a client the bytes are kept for the next; other readers are gone for
                // good, and so are the bytes.
                match self {
                    Self::Socket { .. } => Err(io::ErrorKind::WouldBlock.into()),
                    _ => Ok(bytes.len()),
                }
            }
            other => other,
        }
    }

    /// Closes a client that has gone; only when nobody watches its descriptor any more, since
    /// the event loop forgets descriptors only while they are open.
    pub(super) fn close_gone(&mut self) {
        if let Self::Socket { gone, .. } = self {
            *gone = None;
        }
    }

    fn hang_up(&mut self) {
        match self {
            Self::Stdio { at_end, .. } => *at_end = true,
            Self::Socket { client, gone, .. } => *gone = client.take().or(gone.take()),
            Self::File(_) | Self::None => {}
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Self::Socket { path, .. } = self {
            drop(std::fs::remove_file(path));
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Standard streams are shared with other processes, so they are not made non-blocking.
fn write_if_ready(file: &mut File, bytes: &[u8]) -> io::Result<usize> {
    if !is_writable(file.as_fd()) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    file.write(&bytes[..bytes.len().min(CHUNK)])
}

fn is_writable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&now)), Ok(1))
}

/// The descriptor, unless it is a regular file or /dev/null, which epoll does not take.
fn pollable(file: &File) -> Option<RawFd> {
    let kind = file.metadata().ok()?.file_type();
    let is_null = || {
        std::fs::metadata("/dev/null").ok().zip(file.metadata().ok()).is_some_and(|(null, this)| {
            use std::os::unix::fs::MetadataExt;
            this.rdev() == null.rdev()
        })
    };
    let waits = kind.is_fifo() || kind.is_socket() || kind.is_char_device() && !is_null();
    waits.then(|| file.as_raw_fd())
}

/// Removes the socket of a VMM that died; a live one is left alone.
fn remove_stale_socket(path: &Path) -> Result<(), SerialError> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SerialError::InUse(path.display().to_string())),
        Err(_) => {
            drop(std::fs::remove_file(path));
            Ok(())
        }
    }
}

fn listen(path: &Path) -> io::Result<Backend> {
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(Backend::Socket { listener, client: None, gone: None, path: path.to_owned() })
}

/// A terminal that passes every key on at once and unseen; its settings come back when dropped.
/// Signal keys (Ctrl-C) still go to the VMM, so that a user gets out.
pub(super) struct RawTerminal {
    terminal: File,
    before: Termios,
}

impl RawTerminal {
    fn enter(stdin: &File) -> Option<Self> {
        let before = tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self { terminal: stdin.try_clone().ok()?, before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
