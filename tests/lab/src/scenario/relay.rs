//! A man in the middle of a migration: carries the stream between the two ends message by message,
//! stops before a chosen one until it is told to go on, and then passes it, damages it, or lets nothing
//! more through. So a fault can be made exactly at a phase. It knows the frame of the messages and
//! their kinds (docs/migration.md) and looks into none.

use anyhow::{Context as _, Result, ensure};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Magic and version, which each end sends first.
const PREAMBLE: usize = 10;
/// Kind, length, number, checksum.
const HEADER: usize = 16;
/// Longer than any message.
const LONGEST: usize = 128 << 20;

/// Which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The destination has greeted; memory is not sent yet.
    Greeting,
    /// A part of memory.
    Pages,
    /// The first pass over memory ends.
    RoundEnd,
    /// All of memory is there; the VM is held.
    Final,
    /// Its state.
    State,
    /// The VM is the destination's.
    Go,
    /// The destination runs it.
    Running,
    /// No more frames come to the source.
    End,
}

impl Message {
    const fn kind(self) -> u8 {
        match self {
            Self::Greeting => 1,
            Self::Pages => 2,
            Self::RoundEnd => 4,
            Self::Final => 7,
            Self::State => 8,
            Self::Go => 11,
            Self::Running => 12,
            Self::End => 13,
        }
    }

    const fn is_from_destination(self) -> bool {
        matches!(self, Self::Greeting | Self::Running)
    }
}

/// What becomes of the message, and of what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// It goes on.
    Pass,
    /// Both connections are closed instead.
    Cut,
    /// Half of it goes on, then both connections are closed.
    Truncate,
    /// One bit of it is flipped.
    Flip,
    /// Nothing goes on any more, either way, and no connection is closed.
    Silence,
}

/// What is done to the stream as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// The version that each end hears the other speak.
    pub(super) version: Option<u16>,
    /// Bytes per second from the source at most.
    pub(super) pace: Option<u64>,
}

/// See the module.
pub(super) struct Relay {
    path: PathBuf,
    reached: Receiver<()>,
    /// Gone when nothing is ordered any more.
    deed: Option<Sender<Deed>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Relay {
    /// Waits at `front` for a source and leads it to the destination behind `back`.
    pub(super) fn open(
        front: &Path,
        back: PathBuf,
        at: Option<Message>,
        manner: Manner,
    ) -> Result<Self> {
        // A former relay's.
        let _ = std::fs::remove_file(front);
        let listener = UnixListener::bind(front)
            .with_context(|| format!("cannot listen at {}", front.display()))?;
        // VMs are of another user.
        std::fs::set_permissions(front, PermissionsExt::from_mode(0o666))?;
        let (told, reached) = channel();
        let (deed, orders) = channel();
        let over = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let (source, _) = listener.accept()?;
            let destination = UnixStream::connect(back)?;
            let silent = Arc::new(AtomicBool::new(false));
            let gate = at.map(|message| (message, told, orders));
            let (forth, back) = match gate {
                Some(gate) if gate.0.is_from_destination() => (None, Some(gate)),
                gate => (gate, None),
            };
            let way = |from: &UnixStream, to: &UnixStream, gate, manner| -> io::Result<Way> {
                let (from, to) = (from.try_clone()?, to.try_clone()?);
                let (silent, over) = (Arc::clone(&silent), Arc::clone(&shared));
                Ok(Way { from, to, gate, manner, silent, over })
            };
            let forth = way(&source, &destination, forth, manner)?;
            let back = way(&destination, &source, back, Manner { pace: None, ..manner })?;
            let backwards = std::thread::spawn(move || back.carry());
            forth.carry();
            let _ = backwards.join();
            Ok(())
        });
        let path = front.to_owned();
        Ok(Self { path, reached, deed: Some(deed), over, thread: Some(thread) })
    }

    /// Where a source is to go.
    pub(super) fn url(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    /// Waits until the chosen message is here.
    pub(super) fn wait(&self, limit: Duration) -> Result<()> {
        self.reached.recv_timeout(limit).context("the move does not come so far")
    }

    /// Goes on.
    pub(super) fn go_on(&self, deed: Deed) -> Result<()> {
        let sent = self.deed.as_ref().is_some_and(|orders| orders.send(deed).is_ok());
        ensure!(sent, "the relay has ended");
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // What it holds is let go, if nobody has said what is to become of it.
        self.deed = None;
        // A source that never came.
        drop(UnixStream::connect(&self.path));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

type Gate = (Message, Sender<()>, Receiver<Deed>);

/// One direction.
struct Way {
    from: UnixStream,
    to: UnixStream,
    gate: Option<Gate>,
    manner: Manner,
    silent: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

impl Way {
    /// Carries until one end is gone, and tells the other; but not if silence was ordered.
    fn carry(mut self) {
        let _ = self.from.set_read_timeout(Some(Duration::from_millis(50)));
        let ended = self.messages();
        while self.silent.load(Ordering::Acquire) && !self.over.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(ended);
        for stream in [&self.from, &self.to] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn messages(&mut self) -> io::Result<()> {
        let mut preamble = [0; PREAMBLE];
        self.fill(&mut preamble)?;
        if let Some(version) = self.manner.version {
            preamble[8..].copy_from_slice(&version.to_le_bytes());
        }
        self.to.write_all(&preamble)?;
        loop {
            let mut message = vec![0; HEADER];
            self.fill(&mut message)?;
            let length = u32::from_le_bytes([message[4], message[5], message[6], message[7]]);
            if length as usize > LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            message.resize(HEADER + length as usize, 0);
            self.fill(&mut message[HEADER..])?;
            let chosen = self.gate.take_if(|(chosen, ..)| chosen.kind() == message[0]);
            if let Some((_, told, orders)) = chosen {
                let _ = told.send(());
                match orders.recv().unwrap_or(Deed::Cut) {
                    Deed::Pass => {}
                    Deed::Cut => return Ok(()),
                    Deed::Truncate => {
                        return self.to.write_all(&message[..message.len() / 2]);
                    }
                    Deed::Flip => {
                        let last = message.len() - 1;
                        message[last] ^= 0x10;
                    }
                    Deed::Silence => {
                        self.silent.store(true, Ordering::Release);
                        return Ok(());
                    }
                }
            }
            if self.silent.load(Ordering::Acquire) {
                return Ok(());
            }
            self.to.write_all(&message)?;
            if let Some(pace) = self.manner.pace {
                let seconds = message.len() as f64 / pace as f64;
                std::thread::sleep(Duration::from_secs_f64(seconds));
            }
        }
    }

    /// Reads exactly so much, however long that takes.
    fn fill(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.over.load(Ordering::Acquire) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match self.from.read(bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => bytes = &mut bytes[count..],
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
