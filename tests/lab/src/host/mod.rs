//! Boots a lab host under QEMU, runs one command in it, streams its output and returns how it
//! ended. Repeats a run only when the lab host itself was lost (see [`watchdog`]).

pub(crate) mod accelerator;
pub(crate) mod cards;
pub(crate) mod control;
mod qemu;
mod qmp;
mod run_folder;
mod terminal;
pub(crate) mod watchdog;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::agent::Order;
use crate::setup::Setup;
use accelerator::{Accelerator, Wish};
use cards::{Cards, Seat};
use control::Frame;
use run_folder::RunFolder;
use watchdog::{End, Event, Limits, Watchdog};

/// How often a lost lab host is replaced before the run counts as failed.
const RESTARTS: u32 = 3;

/// CPUs of a lab host: one for its kernel and the outside world, one for a guest's virtual CPU,
/// one for what that guest's VMM does.
const CPUS: u32 = 3;

/// The machine that a lab host is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct HostOptions {
    /// How the lab host's CPU is emulated
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) accel: Wish,
    /// RAM of the lab host in MiB
    #[arg(long, default_value_t = 4096)]
    pub(crate) memory: u32,
    /// CPUs of the lab host; emulated ones run guests on all but the first
    #[arg(long, default_value_t = CPUS, value_parser = clap::value_parser!(u32).range(2..=64))]
    pub(crate) cpus: u32,
}

/// One command for a lab host.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Program and arguments; `/lab/script` is the script.
    pub(crate) argv: Vec<String>,
    /// A file of this machine that becomes `/lab/script`.
    pub(crate) script: Option<PathBuf>,
    /// The lab host's network cards.
    pub(crate) cards: Cards,
    /// Longest time, from the command's start.
    pub(crate) timeout: Duration,
    /// Where `/out` is on this machine (default: in the run's folder).
    pub(crate) out: Option<PathBuf>,
    /// Open a shell in the lab host after the command.
    pub(crate) keep: bool,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The last run's end.
    pub(crate) end: End,
    /// How many lab hosts were lost before.
    pub(crate) restarts: u32,
    /// The last run's `/out` on this machine.
    pub(crate) out: PathBuf,
    /// From start of the first lab host to the end.
    pub(crate) time: Duration,
}

impl Outcome {
    /// The exit status to pass on.
    pub(crate) fn status(&self) -> u8 {
        match self.end {
            End::Finished(status) => u8::try_from(status).unwrap_or(1),
            End::TimedOut => 124,
            End::Lost(_) | End::Failed(_) => 125,
        }
    }

    /// One line for people when the command did not end by itself.
    pub(crate) fn complaint(&self) -> Option<String> {
        match &self.end {
            End::Finished(_) => None,
            End::TimedOut => Some("the command took longer than its --timeout".into()),
            End::Lost(why) => Some(format!("lab host lost {} times: {why}", self.restarts + 1)),
            End::Failed(why) => Some(why.clone()),
        }
    }
}

/// Runs a job, again when its lab host is lost.
pub(crate) fn run(setup: &Setup, options: &HostOptions, job: &Job) -> Result<Outcome> {
    let start = Instant::now();
    let mut restarts = 0;
    loop {
        let folder = RunFolder::create(setup, job.out.as_deref())?;
        let end = run_once(setup, options, job, &folder)?;
        if !job.keep {
            folder.drop_share();
        }
        if !matches!(end, End::Finished(_)) {
            eprintln!("lab: console: {}", folder.console_log().display());
        }
        match &end {
            End::Lost(why) if restarts < RESTARTS => {
                restarts += 1;
                eprintln!("lab: LAB HOST LOST: {why}");
                eprintln!(
                    "lab: running this again from the start (restart {restarts} of {RESTARTS})"
                );
            }
            _ => {
                let out = folder.out().to_path_buf();
                return Ok(Outcome { end, restarts, out, time: start.elapsed() });
            }
        }
    }
}

/// An interactive lab host on this terminal.
pub(crate) fn shell(setup: &Setup, options: &HostOptions, cards: Cards) -> Result<()> {
    if cards.has_second_machine() {
        bail!("two machines have no shell: `exec --keep` ends with one, in the first");
    }
    let folder = RunFolder::create(setup, None)?;
    let (rows, columns) = terminal::size();
    let cmdline = format!("lab.mode=shell lab.rows={rows} lab.columns={columns}");
    let wire = Wire::new(cards)?;
    let mut host = Host::start(setup, options, &wire, Seat::First, &folder, &cmdline)?;
    eprintln!("lab: starting a lab host; its /out is {}", folder.out().display());
    host.interact()?;
    folder.drop_share();
    Ok(())
}

fn run_once(setup: &Setup, options: &HostOptions, job: &Job, folder: &RunFolder) -> Result<End> {
    let order = Order { argv: job.argv.clone(), keep: job.keep };
    folder.order(&order, job.script.as_deref())?;
    let (rows, columns) = terminal::size();
    let cmdline = format!("lab.mode=exec lab.rows={rows} lab.columns={columns}");
    let wire = Wire::new(job.cards)?;
    // An emulated machine shares this one's CPUs with whatever else runs here: be patient.
    let limits = Limits {
        boot: Duration::from_secs(120),
        beat: Duration::from_secs(30),
        command: job.timeout,
    };
    let mut host = Host::start(setup, options, &wire, Seat::First, folder, &cmdline)?;
    let mut watchdog = Watchdog::new(limits, Instant::now());
    let mut second = match job.cards.has_second_machine() {
        true => Some(SecondMachine::start(setup, options, &wire, limits)?),
        false => None,
    };
    let end = loop {
        let event = host.next_event(PATIENCE);
        if let Some(end) = watchdog.on(event, Instant::now()) {
            break end.clone();
        }
        if let Some(end) = second.as_mut().and_then(SecondMachine::end) {
            break end;
        }
    };
    if job.keep && matches!(end, End::Finished(_)) {
        eprintln!("lab: the command ended; a shell in its lab host follows (exit ends it)");
        host.interact()?;
    }
    if let Some(second) = second {
        second.folder.drop_share();
    }
    Ok(end)
}

/// What the threads that listen to a lab host report.
enum Report {
    Event(Event),
    Output { error: bool, bytes: Vec<u8> },
}

/// How long one look for an event takes.
const PATIENCE: Duration = Duration::from_millis(500);

/// What lab hosts are plugged into.
struct Wire {
    cards: Cards,
    /// Where two machines' wires meet. A socket's path may have 107 bytes only, so not below the
    /// workspace.
    folder: tempfile::TempDir,
}

impl Wire {
    fn new(cards: Cards) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("npa-wire-").tempdir()?;
        Ok(Self { cards, folder })
    }

    fn join(&self) -> PathBuf {
        self.folder.path().join("join")
    }
}

/// The machine beside the one that runs the command: it does what that one asks it to.
struct SecondMachine {
    host: Host,
    watchdog: Watchdog,
    folder: RunFolder,
}

impl SecondMachine {
    fn start(
        setup: &Setup,
        options: &HostOptions,
        wire: &Wire,
        mut limits: Limits,
    ) -> Result<Self> {
        let folder = RunFolder::create(setup, None)?;
        let argv = ["lab", "second-machine"].map(str::to_owned).to_vec();
        folder.order(&Order { argv, keep: false }, None)?;
        // Its command ends with it.
        limits.command = Duration::MAX;
        let host = Host::start(setup, options, wire, Seat::Second, &folder, "lab.mode=exec")?;
        Ok(Self { host, watchdog: Watchdog::new(limits, Instant::now()), folder })
    }

    /// How it ended, and with it the run, if it has.
    fn end(&mut self) -> Option<End> {
        loop {
            let event = self.host.next_event(Duration::from_millis(10));
            let idle = event == Event::Tick;
            match self.watchdog.on(event, Instant::now()) {
                Some(End::Lost(why)) => return Some(End::Lost(format!("second machine: {why}"))),
                Some(end) => return Some(End::Failed(format!("the second machine: {end:?}"))),
                None if idle => return None,
                None => {}
            }
        }
    }
}

/// A running lab host. Dropping it ends it.
struct Host {
    emulator: Child,
    reports: Receiver<Report>,
    console: UnixStream,
    echo: Arc<AtomicBool>,
    /// Holds the sockets.
    _sockets: tempfile::TempDir,
}

impl Host {
    fn start(
        setup: &Setup,
        options: &HostOptions,
        wire: &Wire,
        seat: Seat,
        folder: &RunFolder,
        cmdline: &str,
    ) -> Result<Self> {
        // A socket's path may have 107 bytes only, so not below the workspace.
        let sockets = tempfile::Builder::new().prefix("npa-lab-").tempdir()?;
        let listen = |name: &str| UnixListener::bind(sockets.path().join(name));
        let (console, control, qmp) = (listen("console")?, listen("control")?, listen("qmp")?);
        let accelerator = options.accel.decide();
        if accelerator == Accelerator::Kvm {
            eprintln!("lab: using nested hardware virtualization");
        }
        let (share, console_log, join) = (folder.share(), folder.console_log(), wire.join());
        let machine = qemu::Machine {
            accelerator,
            memory: options.memory,
            cpus: options.cpus,
            kernel: &setup.images.host_kernel,
            initrd: &setup.images.host_initrd,
            cmdline,
            sockets: sockets.path(),
            console_log: &console_log,
            cards: wire.cards,
            seat,
            join: &join,
            shares: vec![
                ("lab", &share, false),
                ("out", folder.out(), true),
                ("workspace", setup.layout.workspace(), false),
            ],
        };
        let log = File::create(folder.qemu_log()).context("cannot create QEMU's log")?;
        let mut emulator = machine
            .command()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start QEMU (by setpriv)")?;
        let (sender, reports) = channel();
        let echo = Arc::new(AtomicBool::new(false));
        let streams = accept_all(&mut emulator, [&console, &control, &qmp]);
        let Some([console, control, mut qmp]) = streams else {
            let _ = emulator.kill();
            let _ = emulator.wait();
            let said = std::fs::read_to_string(folder.qemu_log()).unwrap_or_default();
            bail!("QEMU did not start:\n{said}");
        };
        qmp.write_all(qmp::GREETING)?;
        spawn_console(console.try_clone()?, sender.clone(), Arc::clone(&echo));
        spawn_control(control, sender.clone());
        spawn_qmp(qmp, sender);
        Ok(Self { emulator, reports, console, echo, _sockets: sockets })
    }

    /// Waits for the next event, at most for `patience`; passes output on meanwhile.
    fn next_event(&mut self, patience: Duration) -> Event {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(Report::Event(event)) => return event,
                Ok(Report::Output { error, bytes }) => pass_on(error, &bytes),
                Err(RecvTimeoutError::Timeout) => return Event::Tick,
                Err(RecvTimeoutError::Disconnected) => {
                    return match self.emulator.wait() {
                        Ok(status) => match status.signal() {
                            Some(signal @ (libc::SIGABRT | libc::SIGSEGV)) => {
                                Event::EmulatorCrashed(signal)
                            }
                            _ => Event::EmulatorGone(status.to_string()),
                        },
                        Err(error) => Event::EmulatorGone(error.to_string()),
                    };
                }
            }
        }
    }

    /// Joins the terminal and the console until the machine ends.
    fn interact(&mut self) -> Result<()> {
        self.echo.store(true, Ordering::Relaxed);
        let gone = AtomicBool::new(false);
        let emulator = &mut self.emulator;
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = emulator.wait();
                gone.store(true, Ordering::Relaxed);
            });
            let result =
                self.console.try_clone().context("cannot use the console").and_then(|console| {
                    terminal::type_into(console, || gone.load(Ordering::Relaxed))
                });
            if result.is_err() {
                let _ = self.console.shutdown(std::net::Shutdown::Both);
            }
            result
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

/// Takes QEMU's connection on each socket, or `None` when QEMU ends before.
fn accept_all<const N: usize>(
    emulator: &mut Child,
    listeners: [&UnixListener; N],
) -> Option<[UnixStream; N]> {
    let mut streams = Vec::new();
    for listener in listeners {
        listener.set_nonblocking(true).ok()?;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if emulator.try_wait().ok()?.is_some() {
                        return None;
                    }
                    thread::sleep(Duration::from_millis(5));
                }
                Err(_) => return None,
            }
        };
        stream.set_nonblocking(false).ok()?;
        streams.push(stream);
    }
    streams.try_into().ok()
}

fn spawn_console(stream: UnixStream, reports: Sender<Report>, echo: Arc<AtomicBool>) {
    thread::spawn(move || {
        let mut stream = stream;
        let mut line = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if echo.load(Ordering::Relaxed) {
                pass_on(false, &buffer[..count]);
            }
            for byte in &buffer[..count] {
                if *byte == b'\n' {
                    let text = String::from_utf8_lossy(&line).into_owned();
                    line.clear();
                    if reports.send(Report::Event(Event::Console(text))).is_err() {
                        break;
                    }
                } else {
                    line.push(*byte);
                }
            }
        }
    });
}

fn spawn_control(mut stream: UnixStream, reports: Sender<Report>) {
    thread::spawn(move || {
        let mut decoder = control::Decoder::default();
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            decoder.push(&buffer[..count]);
            loop {
                let report = match decoder.next() {
                    Ok(None) => break,
                    Ok(Some(Frame::Ready)) => Report::Event(Event::Ready),
                    Ok(Some(Frame::Beat { cpu, .. })) => Report::Event(Event::Beat { cpu }),
                    Ok(Some(Frame::Stdout(bytes))) => Report::Output { error: false, bytes },
                    Ok(Some(Frame::Stderr(bytes))) => Report::Output { error: true, bytes },
                    Ok(Some(Frame::Exit(status))) => Report::Event(Event::Exit(status)),
                    Err(damaged) => Report::Event(Event::Damaged(damaged.to_string())),
                };
                let damaged = matches!(report, Report::Event(Event::Damaged(_)));
                if reports.send(report).is_err() || damaged {
                    return;
                }
            }
        }
    });
}

fn spawn_qmp(stream: UnixStream, reports: Sender<Report>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(event) = qmp::parse(&line)
                && reports.send(Report::Event(event)).is_err()
            {
                return;
            }
        }
    });
}

fn pass_on(error: bool, bytes: &[u8]) {
    // A closed output is no reason to lose the run's result.
    let _ = if error {
        std::io::stderr().write_all(bytes).and_then(|()| std::io::stderr().flush())
    } else {
        std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush())
    };
}
