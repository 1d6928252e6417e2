//! One way, as fast as the path takes it: for frames per second and exits per frame.

use crate::stop;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

#[derive(Args)]
pub(crate) struct FloodArgs {
    /// Where `stream sink` listens.
    #[arg(long)]
    peer: SocketAddr,
    /// Payload bytes per datagram, 1 to 1472.
    #[arg(long, default_value_t = 22)]
    size: usize,
    /// Seconds to send.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
}

#[derive(Args)]
pub(crate) struct SinkArgs {
    /// Local address.
    #[arg(long)]
    bind: SocketAddr,
    /// Seconds to listen; without it, until SIGTERM.
    #[arg(long)]
    duration: Option<f64>,
}

/// What was sent or received.
#[derive(Serialize)]
pub(crate) struct Report {
    frames: u64,
    bytes: u64,
    /// From the first to the last datagram.
    seconds: f64,
    frames_per_s: f64,
}

impl Report {
    fn new(frames: u64, bytes: u64, span: Duration) -> Self {
        let seconds = span.as_secs_f64();
        let frames_per_s = if seconds > 0.0 { frames as f64 / seconds } else { 0.0 };
        Self { frames, bytes, seconds, frames_per_s }
    }
}

pub(crate) fn flood(args: &FloodArgs) -> Result<Report> {
    if !(1..=1472).contains(&args.size) {
        bail!("--size must be between 1 and 1472 bytes");
    }
    let local = if args.peer.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).context("cannot bind")?;
    socket.connect(args.peer).with_context(|| format!("cannot reach {}", args.peer))?;
    let payload = vec![0x5au8; args.size];
    let start = Instant::now();
    let limit = Duration::from_secs_f64(args.duration);
    let mut frames = 0u64;
    // The clock and the flag are looked at now and then only: they cost as much as a send.
    while start.elapsed() < limit && !stop::requested() {
        for _ in 0..64 {
            frames += u64::from(socket.send(&payload).is_ok());
        }
    }
    Ok(Report::new(frames, frames * args.size as u64, start.elapsed()))
}

pub(crate) fn sink(args: &SinkArgs) -> Result<Report> {
    let socket =
        UdpSocket::bind(args.bind).with_context(|| format!("cannot bind {}", args.bind))?;
    crate::socket::enlarge_receive_buffer(&socket);
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let begin = Instant::now();
    let over = || {
        stop::requested()
            || args.duration.is_some_and(|seconds| begin.elapsed().as_secs_f64() >= seconds)
    };
    let mut buffer = [0u8; 2048];
    let (mut frames, mut bytes) = (0u64, 0u64);
    let mut first = None;
    let mut last = begin;
    loop {
        if let Ok(length) = socket.recv(&mut buffer) {
            frames += 1;
            bytes += length as u64;
            if frames % 64 == 1 {
                last = Instant::now();
                first.get_or_insert(last);
            }
            if frames % 64 != 0 {
                continue;
            }
        }
        if over() {
            let span = first.map_or(Duration::ZERO, |first| last.duration_since(first));
            return Ok(Report::new(frames, bytes, span));
        }
    }
}
