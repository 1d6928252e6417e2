use std::os::unix::net::UnixStream;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn pair() -> (Channel, Channel) {
    let (a, b) = UnixStream::pair().unwrap();
    let other = std::thread::spawn(move || Channel::open(Box::new(b)).unwrap());
    let channel = Channel::open(Box::new(a)).unwrap();
    (channel, other.join().unwrap())
}

/// What one end writes when it sends `bodies`.
fn recorded(bodies: &[&[u8]]) -> Vec<u8> {
    let (mut channel, mut other) = pair();
    // What is written into the pair is read off raw at the other end.
    for body in bodies {
        channel.send(Kind::State, &[body]).unwrap();
    }
    drop(channel);
    let mut bytes = Vec::new();
    other.stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A channel on which `bytes` arrive, and then nothing more.
fn arriving(bytes: &[u8]) -> Channel {
    let (mut channel, other) = pair();
    channel.stream.write_all(bytes).unwrap();
    other
}

/// How many messages are in `bytes`, and what ends them.
fn until_the_end(bytes: &[u8]) -> (usize, ChannelError) {
    let mut channel = arriving(bytes);
    for count in 0.. {
        if let Err(error) = channel.receive() {
            return (count, error);
        }
    }
    unreachable!("messages without end");
}

#[test]
fn messages_come_out_as_they_went_in() {
    let (mut a, mut b) = pair();
    a.send(Kind::Pages, &[b"he", b"llo"]).unwrap();
    b.send(Kind::Ready, &[]).unwrap();
    a.send(Kind::Go, &[]).unwrap();
    assert_eq!(b.receive().unwrap(), (Kind::Pages, &b"hello"[..]));
    assert_eq!(b.receive().unwrap(), (Kind::Go, &b""[..]));
    assert_eq!(a.receive().unwrap(), (Kind::Ready, &b""[..]));
    assert_eq!(a.bytes_sent(), 37);
}

#[test]
fn every_flipped_bit_and_every_cut_is_seen() {
    let bytes = recorded(&[b"one", b"two"]);
    for at in 0..bytes.len() {
        let error = until_the_end(&bytes[..at]).1;
        assert!(matches!(error, ChannelError::Closed), "{error}");
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let (whole, error) = until_the_end(&damaged);
            assert!(whole < 2, "byte {at}, bit {bit}: {error}");
        }
    }
}

#[test]
fn messages_left_out_or_repeated_are_seen() {
    let bytes = recorded(&[b"one", b"two"]);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    assert!(matches!(until_the_end(second).1, ChannelError::OutOfStep { number: 0 }));
    assert!(matches!(
        until_the_end(&[first, first].concat()).1,
        ChannelError::OutOfStep { number: 1 }
    ));
}

#[test]
fn other_versions_and_other_programs_are_told_apart() {
    let open = |bytes: &[u8]| {
        let (stream, mut other) = UnixStream::pair().unwrap();
        other.write_all(bytes).unwrap();
        let opened = Channel::open(Box::new(stream));
        drop(other);
        opened.err().unwrap()
    };
    let error = open(b"npamove\0\x09\0");
    assert!(error.to_string().contains("version 9"), "{error}");
    assert!(matches!(open(b"HTTP/1.1 400"), ChannelError::NotVmm));
}

#[test]
fn a_silent_peer_is_not_a_dead_one() {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let error = Channel::open(Box::new(a)).err().unwrap();
    assert!(matches!(error, ChannelError::Silent) && !error.proves_death());
    drop(b);
    let (mut a, b) = pair();
    drop(b);
    assert!(a.receive().err().unwrap().proves_death());
}

proptest! {
    #[test]
    fn any_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(arriving(&bytes).receive().is_err());
    }
}

/// A connection that came to its end was closed by the other process or its kernel; a reset may be
/// the work of anybody between.
#[test]
fn only_an_end_proves_death() {
    let of = |kind: io::ErrorKind| ChannelError::from(io::Error::from(kind));
    assert!(of(io::ErrorKind::UnexpectedEof).proves_death());
    for kind in [
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::TimedOut,
        io::ErrorKind::HostUnreachable,
    ] {
        assert!(!of(kind).proves_death(), "{kind:?}");
    }
}
