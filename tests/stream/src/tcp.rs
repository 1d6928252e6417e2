//! A TCP transfer both ways at once whose every byte is checked against what it must be.

use crate::pace::Pace;
use crate::stop;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Bytes written at a time.
const CHUNK: usize = 8 << 10;

#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Local address to accept one connection on.
    #[arg(long)]
    bind: SocketAddr,
    /// Megabits per second to send.
    #[arg(long, default_value_t = 10.0)]
    mbit: f64,
}

#[derive(Args)]
pub(crate) struct ConnectArgs {
    /// Where `stream tcp-serve` listens.
    #[arg(long)]
    peer: SocketAddr,
    /// Megabits per second to send.
    #[arg(long, default_value_t = 10.0)]
    mbit: f64,
    /// Seconds to send; without it, until SIGTERM.
    #[arg(long)]
    duration: Option<f64>,
}

/// What one end saw of the transfer.
#[derive(Serialize)]
pub(crate) struct Report {
    /// Bytes sent.
    sent_bytes: u64,
    /// Bytes received.
    received_bytes: u64,
    /// Every received byte was the right one and the connection ended in order.
    content_ok: bool,
    /// What went wrong, if anything.
    error: Option<String>,
}

pub(crate) fn serve(args: &ServeArgs) -> Result<Report> {
    let listener =
        TcpListener::bind(args.bind).with_context(|| format!("cannot bind {}", args.bind))?;
    let (connection, _) = listener.accept().context("cannot accept")?;
    transfer(&connection, args.mbit, None, true)
}

pub(crate) fn connect(args: &ConnectArgs) -> Result<Report> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let connection = loop {
        match TcpStream::connect_timeout(&args.peer, Duration::from_secs(5)) {
            Ok(connection) => break connection,
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot connect to {}", args.peer));
            }
        }
    };
    transfer(&connection, args.mbit, args.duration, false)
}

/// Sends and receives until this side is told to stop (or, for a follower, the peer has ended).
fn transfer(
    connection: &TcpStream,
    mbit: f64,
    duration: Option<f64>,
    follow: bool,
) -> Result<Report> {
    if !(mbit > 0.0 && mbit <= 1e5) {
        bail!("--mbit must be between 0 and 100000");
    }
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    connection.set_write_timeout(Some(Duration::from_secs(30)))?;
    let peer_ended = std::sync::atomic::AtomicBool::new(false);
    let (sent, received) = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let result = receive(connection);
            peer_ended.store(true, std::sync::atomic::Ordering::Release);
            result
        });
        let start = Instant::now();
        let ended = || {
            stop::requested()
                || duration.is_some_and(|seconds| start.elapsed().as_secs_f64() >= seconds)
                || (follow && peer_ended.load(std::sync::atomic::Ordering::Acquire))
        };
        let sent = send(connection, mbit, ended);
        connection.shutdown(Shutdown::Write).ok();
        (sent, receiver.join())
    });
    let mut report = Report { sent_bytes: 0, received_bytes: 0, content_ok: false, error: None };
    let mut errors = Vec::new();
    match sent {
        Ok(bytes) => report.sent_bytes = bytes,
        Err(error) => errors.push(format!("send: {error:#}")),
    }
    match received {
        Ok(Ok(bytes)) => report.received_bytes = bytes,
        Ok(Err(error)) => errors.push(format!("receive: {error:#}")),
        Err(_) => errors.push("receiver panicked".to_owned()),
    }
    report.content_ok = errors.is_empty();
    report.error = (!errors.is_empty()).then(|| errors.join("; "));
    Ok(report)
}

fn send(mut connection: &TcpStream, mbit: f64, ended: impl Fn() -> bool) -> Result<u64> {
    let mut pace = Pace::new(mbit * 1e6 / 8.0 / CHUNK as f64);
    let mut chunk = vec![0u8; CHUNK];
    let mut offset = 0u64;
    while !ended() {
        for _ in 0..pace.due() {
            fill(&mut chunk, offset);
            connection.write_all(&chunk).context("connection broke")?;
            offset += CHUNK as u64;
            if ended() {
                break;
            }
        }
        pace.sleep();
    }
    Ok(offset)
}

fn receive(mut connection: &TcpStream) -> Result<u64> {
    let mut buffer = vec![0u8; 64 << 10];
    let mut expected = vec![0u8; 64 << 10];
    let mut offset = 0u64;
    loop {
        let length = connection.read(&mut buffer).context("connection broke")?;
        if length == 0 {
            return Ok(offset);
        }
        fill(&mut expected[..length], offset);
        if let Some(at) = buffer[..length].iter().zip(&expected).position(|(a, b)| a != b) {
            bail!("wrong byte at offset {}", offset + at as u64);
        }
        offset += length as u64;
    }
}

/// The content: a function of the offset alone (the splitmix64 finaliser over each 8-byte word's
/// number), so that a piece lost, doubled or moved shows.
fn fill(bytes: &mut [u8], offset: u64) {
    let mut word = offset / 8;
    let mut skip = (offset % 8) as usize;
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut z = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let source = &z.to_le_bytes()[skip..];
        let length = source.len().min(rest.len());
        let (head, tail) = rest.split_at_mut(length);
        head.copy_from_slice(&source[..length]);
        rest = tail;
        word += 1;
        skip = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_depends_on_the_offset_only() {
        let mut whole = [0u8; 100];
        fill(&mut whole, 5);
        for split in 1..100 {
            let mut parts = [0u8; 100];
            fill(&mut parts[..split], 5);
            fill(&mut parts[split..], 5 + split as u64);
            assert_eq!(whole, parts);
        }
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn whole_transfer_is_checked_both_ways() {
        let (client, server) = pair();
        let (a, b) = std::thread::scope(|scope| {
            let server = scope.spawn(|| transfer(&server, 50.0, None, true).unwrap());
            let a = transfer(&client, 50.0, Some(0.3), false).unwrap();
            (a, server.join().unwrap())
        });
        assert!(a.content_ok && b.content_ok, "{:?} {:?}", a.error, b.error);
        assert_eq!((a.sent_bytes, b.sent_bytes), (b.received_bytes, a.received_bytes));
        assert!(a.sent_bytes > 0 && b.sent_bytes > 0);
    }

    #[test]
    fn damage_is_found() {
        let (mut client, server) = pair();
        let mut bytes = vec![0u8; 1000];
        fill(&mut bytes, 0);
        bytes[700] ^= 1;
        client.write_all(&bytes).unwrap();
        drop(client);
        let error = receive(&server).unwrap_err();
        assert_eq!(error.to_string(), "wrong byte at offset 700");
    }
}
