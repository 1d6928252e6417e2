//! Commands from one lab-host machine to another that shares nothing with it but the wire: `lab
//! second-machine` makes its machine the second host and then runs what `lab there PROGRAM` on the
//! first one asks it to. A request is one line with a JSON list of words; what comes back are the
//! frames of the control port. A connection that ends takes its program with it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::agent;
use crate::host::control::{Decoder, Frame};
use crate::up;

/// Where the second machine takes commands.
const PORT: u16 = 700;

/// How long it may take to boot, beside another machine that does.
const BOOT: Duration = Duration::from_secs(120);

/// Makes this machine the second host and serves commands, for ever.
pub(crate) fn serve() -> Result<ExitCode> {
    let status = Command::new("lab").args(["up", "--second-machine"]).status()?;
    ensure!(status.success(), "the second host was not made");
    let listener = TcpListener::bind((up::SECOND_ADDRESS, PORT)).context("cannot take commands")?;
    println!("taking commands");
    for stream in listener.incoming() {
        let stream = stream.context("cannot take a command")?;
        thread::spawn(move || {
            if let Err(error) = answer(&stream) {
                eprintln!("lab: {error:#}");
            }
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs one program for the other machine.
fn answer(stream: &TcpStream) -> Result<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let words: Vec<String> = serde_json::from_str(&line).context("not a list of words")?;
    let Some((program, arguments)) = words.split_first() else { bail!("no program") };
    let sender = Arc::new(Mutex::new(stream.try_clone()?));
    let send = move |frame: Frame| {
        let mut stream = sender.lock().unwrap_or_else(PoisonError::into_inner);
        // A peer that is gone is noticed below.
        let _ = stream.write_all(&frame.encode());
    };
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            send(Frame::Stderr(format!("lab: cannot run {program}: {error}\n").into_bytes()));
            send(Frame::Exit(127));
            return Ok(());
        }
    };
    // By a descriptor, since a number may soon be another process's.
    let process = rustix::process::pidfd_open(
        rustix::process::Pid::from_child(&child),
        rustix::process::PidfdFlags::empty(),
    )?;
    let mut watched = stream.try_clone()?;
    thread::spawn(move || {
        while let Ok(1..) = watched.read(&mut [0; 64]) {}
        // It has ended, if it was not the peer that closed the connection.
        let _ = rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL);
    });
    let (out, err) = (child.stdout.take(), child.stderr.take());
    // What it printed comes before its status.
    thread::scope(|scope| {
        if let Some(out) = out {
            scope.spawn(|| copy(out, &send, Frame::Stdout));
        }
        if let Some(err) = err {
            scope.spawn(|| copy(err, &send, Frame::Stderr));
        }
    });
    send(Frame::Exit(agent::exit_code(child.wait()?)));
    // The peer may have closed it.
    let _ = stream.shutdown(std::net::Shutdown::Both);
    Ok(())
}

fn copy(mut from: impl Read, send: &impl Fn(Frame), frame: fn(Vec<u8>) -> Frame) {
    let mut buffer = [0; 65536];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        send(frame(buffer[..count].to_vec()));
    }
}

/// Runs a program on the second machine, as if it ran here.
pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    let mut stream = connect()?;
    let mut request = serde_json::to_string(words)?;
    request.push('\n');
    stream.write_all(request.as_bytes()).context("cannot ask the second machine")?;
    let mut decoder = Decoder::default();
    let mut buffer = [0; 65536];
    loop {
        let count = stream.read(&mut buffer).context("the second machine is gone")?;
        if count == 0 {
            bail!("the second machine closed the connection without a status");
        }
        decoder.push(&buffer[..count]);
        while let Some(frame) = decoder.next()? {
            match frame {
                Frame::Stdout(bytes) => std::io::stdout().write_all(&bytes)?,
                Frame::Stderr(bytes) => std::io::stderr().write_all(&bytes)?,
                Frame::Exit(status) => {
                    std::io::stdout().flush()?;
                    return Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)));
                }
                Frame::Ready | Frame::Beat { .. } => {}
            }
        }
    }
}

fn connect() -> Result<TcpStream> {
    let deadline = Instant::now() + BOOT;
    loop {
        match TcpStream::connect((up::SECOND_ADDRESS, PORT)) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > deadline => {
                return Err(error).context(
                    "no second machine: `--cards two-machines` of `cargo lab exec` makes one",
                );
            }
            Err(_) => thread::sleep(Duration::from_millis(200)),
        }
    }
}
