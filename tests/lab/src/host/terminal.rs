//! Joins this terminal and a lab host's console, for interactive use.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use rustix::termios::{self, OptionalActions, Termios};

/// The terminal's settings, put back when this is dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn new() -> Result<Self> {
        let stdin = io::stdin();
        let before =
            termios::tcgetattr(&stdin).context("standard input is no terminal, and has to be")?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw)
            .context("cannot change the terminal's settings")?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing to be done if the terminal has gone.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Rows and columns of this terminal.
pub(crate) fn size() -> (u16, u16) {
    termios::tcgetwinsize(io::stdout())
        .ok()
        .map(|size| (size.ws_row, size.ws_col))
        // Some terminals do not know.
        .filter(|(rows, columns)| *rows > 0 && *columns > 0)
        .unwrap_or((24, 80))
}

/// Sends every key to `console` until it is closed. What the console shows is printed by whoever
/// reads it (`raw` line ends come from there).
pub(crate) fn type_into(mut console: UnixStream, ended: impl Fn() -> bool) -> Result<()> {
    let _raw = Raw::new()?;
    let stdin = io::stdin();
    let mut buffer = [0; 1024];
    while !ended() {
        let mut ready = [rustix::event::PollFd::new(&stdin, rustix::event::PollFlags::IN)];
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        if rustix::event::poll(&mut ready, Some(&wait)).unwrap_or(0) == 0 {
            continue;
        }
        let count = stdin.lock().read(&mut buffer)?;
        if count == 0 || console.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    Ok(())
}
