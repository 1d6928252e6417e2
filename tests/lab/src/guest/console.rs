//! A guest's serial console: waits for the guest to come up, sends a command, collects the
//! answer. One command at a time per console; callers in other processes wait for their turn.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use super::framing::{self, Collector, Reply};

/// For the VMM to open the console's socket.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two attempts to get an answer from a guest that is not up yet.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// For the guest to say that a command arrived; longer than a busy emulated guest needs.
const ACK_TIMEOUT: Duration = Duration::from_secs(20);
/// For the answer to come through the line after the command's own time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a damaged message is sent again.
const ATTEMPTS: u32 = 5;

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its exit status; 137 when it was killed because its time was over.
    pub(crate) status: u8,
    /// What it printed on standard output.
    pub(crate) stdout: Vec<u8>,
    /// What it printed on standard error.
    pub(crate) stderr: Vec<u8>,
}

/// An open console.
pub(crate) struct Console {
    stream: UnixStream,
    pending: Vec<u8>,
    /// The last lines that were not for us, to explain a failure.
    heard: Vec<String>,
    /// Keeps other processes off the console.
    _turn: File,
}

impl Console {
    /// Connects and waits until the guest answers.
    ///
    /// # Errors
    /// When there is no such socket, or no answer within `patience`.
    pub(crate) fn open(socket: &Path, patience: Duration) -> Result<Self> {
        let turn = take_turn(socket)?;
        let deadline = Instant::now() + patience;
        let connect_until = Instant::now() + patience.min(CONNECT_TIMEOUT);
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > connect_until => {
                    return Err(error).with_context(|| {
                        format!("no serial console at {}: does the VM run?", socket.display())
                    });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let mut console = Self { stream, pending: Vec::new(), heard: Vec::new(), _turn: turn };
        console.wait_until_up(deadline)?;
        Ok(console)
    }

    fn wait_until_up(&mut self, deadline: Instant) -> Result<()> {
        let nonce = unique().to_string();
        while Instant::now() < deadline {
            self.send(&framing::ping(&nonce))?;
            let attempt = (Instant::now() + PING_INTERVAL).min(deadline);
            while let Some(reply) = self.reply(attempt)? {
                match reply {
                    Reply::Pong(answer) if answer == nonce => return Ok(()),
                    // It has just started and may have missed the ping.
                    Reply::Ready => break,
                    _ => {}
                }
            }
        }
        bail!("the guest does not answer on its console; it said last:\n{}", self.last_words())
    }

    /// Runs a line in the guest's shell.
    ///
    /// # Errors
    /// When no whole answer comes: the guest hangs, or the line is damaged again and again.
    pub(crate) fn run(&mut self, command: &str, timeout: Duration) -> Result<Answer> {
        let id = unique();
        let request = framing::request(id, timeout.as_secs().max(1), command);
        for _ in 0..ATTEMPTS {
            self.send(&request)?;
            if !self.acknowledged(id)? {
                continue;
            }
            if let Some(answer) = self.answer(id, Instant::now() + timeout + ANSWER_TIMEOUT)? {
                return Ok(answer);
            }
        }
        bail!("no whole answer from the guest to `{command}`; it said last:\n{}", self.last_words())
    }

    /// Whether the command arrived. A repeated question is answered without an acknowledgement.
    fn acknowledged(&mut self, id: u64) -> Result<bool> {
        let deadline = Instant::now() + ACK_TIMEOUT;
        while let Some(reply) = self.reply(deadline)? {
            match reply {
                Reply::Ack(answer) if answer == id => return Ok(true),
                Reply::Nak(answer) if answer == id => return Ok(false),
                Reply::Piece { id: answer, .. } | Reply::End { id: answer, .. } if answer == id => {
                    self.put_back(&reply);
                    return Ok(true);
                }
                _ => {}
            }
        }
        Ok(false)
    }

    fn answer(&mut self, id: u64, deadline: Instant) -> Result<Option<Answer>> {
        let mut collector = Collector::default();
        while let Some(reply) = self.reply(deadline)? {
            match reply {
                Reply::Piece { id: answer, error, number, text } if answer == id => {
                    collector.add(error, number, text);
                }
                Reply::End { id: answer, status, sums } if answer == id => {
                    return Ok(collector.finish(&sums).map(|[stdout, stderr]| Answer {
                        status,
                        stdout,
                        stderr,
                    }));
                }
                Reply::Ready => bail!("the guest's console started again: did the guest reboot?"),
                _ => {}
            }
        }
        bail!("no answer from the guest within the command's time; it hangs or is paused")
    }

    fn put_back(&mut self, reply: &Reply) {
        let line = match reply {
            Reply::Piece { id, error, number, text } => {
                format!("@npa {} {id} {number} {text}\n", if *error { "err" } else { "out" })
            }
            Reply::End { id, status, sums: [out, err] } => {
                format!("@npa end {id} {status} {out} {err}\n")
            }
            Reply::Ready | Reply::Pong(_) | Reply::Ack(_) | Reply::Nak(_) => return,
        };
        self.pending.splice(0..0, line.into_bytes());
    }

    /// The next line for us, or `None` at the deadline.
    fn reply(&mut self, deadline: Instant) -> Result<Option<Reply>> {
        loop {
            while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if let Some(reply) = framing::parse(&line) {
                    return Ok(Some(reply));
                }
                self.remember(line);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the serial console was closed: the VM has ended"),
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot read the serial console"),
            }
        }
    }

    fn send(&mut self, text: &str) -> Result<()> {
        self.stream.write_all(text.as_bytes()).context("cannot write to the serial console")
    }

    fn remember(&mut self, line: String) {
        const LINES: usize = 20;
        if line.is_empty() {
            return;
        }
        if self.heard.len() == LINES {
            self.heard.remove(0);
        }
        self.heard.push(line);
    }

    fn last_words(&self) -> String {
        if self.heard.is_empty() { "(nothing)".to_owned() } else { self.heard.join("\n") }
    }
}

/// Waits until no other process uses the console.
fn take_turn(socket: &Path) -> Result<File> {
    let mut name = socket.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive)
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// A number that no earlier request to this guest had.
fn unique() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_micros() as u64
}
