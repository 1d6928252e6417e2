//! Runs in a lab host: starts the command that the build machine ordered, sends its output and
//! its exit status through the control port, and a heartbeat per CPU meanwhile.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::host::control::{Frame, PORT};

/// Exit status that asks `/init` for an interactive shell.
const KEEP: u8 = 10;

/// What to run; `/lab/run.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Offer a shell afterwards.
    pub(crate) keep: bool,
}

#[derive(Clone)]
struct Port {
    file: Arc<Mutex<File>>,
    /// Milliseconds since start at which output was last sent.
    last_output: Arc<AtomicU64>,
    start: Instant,
}

impl Port {
    fn open() -> Result<Self> {
        let path = find_port()?;
        let file = File::options()
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self {
            file: Arc::new(Mutex::new(file)),
            last_output: Arc::default(),
            start: Instant::now(),
        })
    }

    fn send(&self, frame: &Frame) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // The build machine notices silence; there is nobody else to tell.
        let _ = file.write_all(&frame.encode());
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn copy(&self, mut from: impl Read, frame: fn(Vec<u8>) -> Frame) {
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            self.send(&frame(buffer[..count].to_vec()));
            self.last_output.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Waits until a moment passes without output. The end of the pipes is no sign: a service
    /// that the command left running may hold them.
    fn drain(&self) {
        while self.now().saturating_sub(self.last_output.load(Ordering::Relaxed)) < 200 {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Carries out the order in `/lab/run.json`.
pub(crate) fn run() -> Result<ExitCode> {
    let text = fs::read_to_string("/lab/run.json").context("cannot read /lab/run.json")?;
    let order: Order = serde_json::from_str(&text).context("cannot read /lab/run.json")?;
    let port = Port::open()?;
    for cpu in 0..online_cpus()? {
        let port = port.clone();
        thread::spawn(move || beat(cpu, &port));
    }
    port.send(&Frame::Ready);
    port.last_output.store(port.now(), Ordering::Relaxed);
    let status = match command(&order) {
        Ok(mut child) => {
            for (pipe, frame) in [
                (child.stdout.take().map(Pipe::Out), Frame::Stdout as fn(Vec<u8>) -> Frame),
                (child.stderr.take().map(Pipe::Err), Frame::Stderr),
            ] {
                if let Some(pipe) = pipe {
                    let port = port.clone();
                    thread::spawn(move || port.copy(pipe, frame));
                }
            }
            let status = child.wait().context("cannot wait for the command")?;
            port.last_output.store(port.now(), Ordering::Relaxed);
            exit_code(status)
        }
        Err(error) => {
            port.send(&Frame::Stderr(format!("lab: {error:#}\n").into_bytes()));
            127
        }
    };
    port.drain();
    rustix::fs::sync();
    port.send(&Frame::Exit(status));
    Ok(ExitCode::from(if order.keep { KEEP } else { 0 }))
}

/// How many CPUs there are; not all of them may be this process's to use.
fn online_cpus() -> Result<usize> {
    let list = fs::read_to_string("/sys/devices/system/cpu/online").context("cannot count CPUs")?;
    let last = list.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok());
    Ok(last.with_context(|| format!("strange list of CPUs: {list}"))? + 1)
}

enum Pipe {
    Out(std::process::ChildStdout),
    Err(std::process::ChildStderr),
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Out(pipe) => pipe.read(buffer),
            Self::Err(pipe) => pipe.read(buffer),
        }
    }
}

fn command(order: &Order) -> Result<std::process::Child> {
    let Some((program, arguments)) = order.argv.split_first() else { bail!("nothing to run") };
    // The share carries no permission to execute a script without one.
    let mut command = if program == "/lab/script" {
        let copy = Path::new("/run/script");
        fs::copy(program, copy).context("cannot copy the script")?;
        fs::set_permissions(copy, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let has_interpreter = fs::read(copy)?.starts_with(b"#!");
        if has_interpreter {
            Command::new(copy)
        } else {
            let mut bash = Command::new("bash");
            bash.arg(copy);
            bash
        }
    } else {
        Command::new(program)
    };
    command
        .args(arguments)
        .current_dir("/root")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))
}

/// The exit status of a process, 128 and more when a signal ended it.
pub(crate) fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Reports once a second, from one CPU, that its timer works.
fn beat(cpu: usize, port: &Port) {
    let mut only = CpuSet::new();
    only.set(cpu);
    let _ = sched_setaffinity(None, &only);
    // Ahead of the load that it watches.
    let _ = rustix::process::nice(-20);
    let mut count = 0;
    loop {
        port.send(&Frame::Beat { cpu: u32::try_from(cpu).unwrap_or(u32::MAX), count });
        count = count.wrapping_add(1);
        thread::sleep(Duration::from_secs(1));
    }
}

fn find_port() -> Result<PathBuf> {
    let folder = Path::new("/sys/class/virtio-ports");
    for entry in fs::read_dir(folder).context("there is no virtio-serial port")? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    bail!("there is no virtio-serial port {PORT}: is this a lab host?")
}
