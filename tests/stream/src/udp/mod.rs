//! The two-way datagram stream: one thread sends at a constant rate, one receives and tracks.
//!
//! Beginning and end are agreed on, so that "lost" is exact: no side sends before it has heard the
//! other, and each announces how many it sent (FIN) until the other has answered (FIN-ACK). A side
//! started with `--follow` ends when its peer does.

mod tracker;
mod wire;

use crate::pace::Pace;
use crate::stop;
use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use serde::Serialize;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tracker::{Summary, Tracker};
use wire::Message;

/// How long FINs are repeated before the peer counts as gone.
const FIN_PATIENCE: Duration = Duration::from_secs(15);

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Local address, for example 0.0.0.0:7000.
    #[arg(long)]
    bind: SocketAddr,
    /// The other end.
    #[arg(long)]
    peer: SocketAddr,
    /// Frames per second to send.
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    /// Payload bytes per frame, 32 to 1472.
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// Seconds to send; without it, until SIGTERM, or until the peer ends with --follow.
    #[arg(long)]
    duration: Option<f64>,
    /// End when the peer ends.
    #[arg(long)]
    follow: bool,
    /// Width of a timeline bin in milliseconds; 0 leaves the timeline out.
    #[arg(long, default_value_t = 50)]
    bin_ms: u64,
}

/// What one end saw.
#[derive(Serialize)]
pub(crate) struct Report {
    /// Frames that this end sent.
    sent: u64,
    /// Unix time in seconds at which this end began.
    started_at: f64,
    /// What this end received.
    #[serde(flatten)]
    received: Summary,
}

#[derive(Default)]
struct Shared {
    peer_heard: AtomicBool,
    sent: AtomicU64,
    peer_finished: AtomicBool,
    fin_acked: AtomicBool,
    sender_done: AtomicBool,
}

pub(crate) fn run(args: &Args) -> Result<Report> {
    if !(wire::HEADER..=1472).contains(&args.size) {
        bail!("--size must be between {} and 1472 bytes", wire::HEADER);
    }
    if !(args.rate > 0.0 && args.rate <= 1e6) {
        bail!("--rate must be between 0 and 1000000 frames per second");
    }
    let socket =
        UdpSocket::bind(args.bind).with_context(|| format!("cannot bind {}", args.bind))?;
    crate::socket::enlarge_receive_buffer(&socket);
    socket.connect(args.peer).with_context(|| format!("cannot reach {}", args.peer))?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;

    let started_at = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64());
    let shared = Shared::default();
    let received = std::thread::scope(|scope| {
        scope.spawn(|| send(args, &socket, &shared));
        receive(args, &socket, &shared)
    })?;
    Ok(Report { sent: shared.sent.load(Ordering::Relaxed), started_at, received })
}

/// Sends data at the rate, then FINs until they are answered.
fn send(args: &Args, socket: &UdpSocket, shared: &Shared) {
    let mut frame = vec![0u8; args.size];
    let begun = Instant::now();
    let mut next = 0u64;
    let ended = || {
        stop::requested()
            || args.duration.is_some_and(|seconds| begun.elapsed().as_secs_f64() >= seconds)
            || (args.follow && shared.peer_finished.load(Ordering::Acquire))
    };
    while !shared.peer_heard.load(Ordering::Acquire) && !ended() {
        Message::Hello.write(&mut frame);
        socket.send(&frame).ok();
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut pace = Pace::new(args.rate);
    while !ended() {
        for _ in 0..pace.due() {
            Message::Data { sequence: next }.write(&mut frame);
            // A refused frame (full queue) was never on the wire: try the same number again.
            while socket.send(&frame).is_err() && !ended() {
                std::thread::sleep(Duration::from_micros(200));
            }
            next += 1;
        }
        shared.sent.store(next, Ordering::Relaxed);
        pace.sleep();
    }
    shared.sent.store(next, Ordering::Relaxed);
    let fin_start = Instant::now();
    while !shared.fin_acked.load(Ordering::Acquire) && fin_start.elapsed() < FIN_PATIENCE {
        Message::Fin { sent: next }.write(&mut frame);
        socket.send(&frame).ok();
        std::thread::sleep(Duration::from_millis(50));
    }
    shared.sender_done.store(true, Ordering::Release);
}

/// Receives until both sides are done, with a second of grace for stragglers.
fn receive(args: &Args, socket: &UdpSocket, shared: &Shared) -> Result<Summary> {
    let mut tracker = Tracker::new(args.bin_ms);
    let mut buffer = [0u8; 2048];
    let mut reply = vec![0u8; wire::HEADER];
    let mut quiet_since = Instant::now();
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                quiet_since = Instant::now();
                let message = Message::read(&buffer[..length]);
                shared.peer_heard.fetch_or(message.is_some(), Ordering::Release);
                match message {
                    Some(Message::Data { sequence }) => tracker.data(sequence, Instant::now()),
                    Some(Message::Fin { sent }) => {
                        tracker.finished(sent);
                        shared.peer_finished.store(true, Ordering::Release);
                        Message::FinAck.write(&mut reply);
                        socket.send(&reply).ok();
                    }
                    Some(Message::FinAck) => shared.fin_acked.store(true, Ordering::Release),
                    Some(Message::Hello) => {
                        Message::HelloAck.write(&mut reply);
                        socket.send(&reply).ok();
                    }
                    Some(Message::HelloAck) => {}
                    None => tracker.foreign(),
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock
                        | std::io::ErrorKind::TimedOut
                        | std::io::ErrorKind::Interrupted
                        | std::io::ErrorKind::ConnectionRefused
                ) => {}
            Err(error) => return Err(error).context("cannot receive"),
        }
        let over = shared.sender_done.load(Ordering::Acquire);
        if over && quiet_since.elapsed() > Duration::from_secs(1) {
            return Ok(tracker.summary());
        }
    }
}
