use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::*;
use crate::vm::hypervisor::fake::FakeHypervisor;

fn console(target: &SerialTarget) -> Result<Console, SerialError> {
    let router = IrqRouter::new(Arc::new(FakeHypervisor::default()));
    Console::new(target, &router, &EventLoop::spawn("test").unwrap())
}

fn guest_writes(console: &Console, text: &[u8]) {
    console.uart.write(0, text);
}

/// Reads as a guest that polls the line status register.
fn guest_reads(console: &Console, len: usize) -> Vec<u8> {
    let end = Instant::now() + Duration::from_secs(10);
    let mut text = Vec::new();
    while text.len() < len && Instant::now() < end {
        let mut byte = [0];
        console.uart.read(5, &mut byte);
        if byte[0] & 1 != 0 {
            console.uart.read(0, &mut byte);
            text.push(byte[0]);
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    text
}

fn socket() -> (tempfile::TempDir, SerialTarget, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console");
    (folder, SerialTarget::Socket(path.clone()), path)
}

fn read_exact(client: &mut UnixStream, len: usize) -> Vec<u8> {
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut text = vec![0; len];
    client.read_exact(&mut text).unwrap();
    text
}

#[test]
fn output_goes_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let console = console(&SerialTarget::File(path.clone())).unwrap();
    guest_writes(&console, b"hello\n");
    drop(console);
    assert_eq!(std::fs::read(path).unwrap(), b"hello\n");
}

#[test]
fn a_client_sees_what_was_written_before_it_came() {
    let (_folder, target, path) = socket();
    let console = console(&target).unwrap();
    guest_writes(&console, b"early ");
    let mut client = UnixStream::connect(&path).unwrap();
    assert_eq!(read_exact(&mut client, 6), b"early ");
    guest_writes(&console, b"late");
    assert_eq!(read_exact(&mut client, 4), b"late");
}

#[test]
fn clients_come_and_go() {
    let (_folder, target, path) = socket();
    let console = console(&target).unwrap();
    for round in 0..3_u8 {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(&[b'a' + round]).unwrap();
        assert_eq!(guest_reads(&console, 1), [b'a' + round]);
        guest_writes(&console, &[b'A' + round]);
        assert_eq!(read_exact(&mut client, 1), [b'A' + round]);
    }
}

#[test]
fn a_second_client_waits_for_its_turn() {
    let (_folder, target, path) = socket();
    let console = console(&target).unwrap();
    let first = UnixStream::connect(&path).unwrap();
    let mut second = UnixStream::connect(&path).unwrap();
    second.write_all(b"2").unwrap();
    drop(first);
    assert_eq!(guest_reads(&console, 1), b"2");
}

#[test]
fn more_input_than_the_guest_takes_at_once_is_not_lost() {
    let (_folder, target, path) = socket();
    let console = console(&target).unwrap();
    let text: Vec<u8> = (0..1000).map(|n| n as u8).collect();
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(&text).unwrap();
    assert_eq!(guest_reads(&console, text.len()), text);
}

#[test]
fn a_guest_never_waits_for_a_client_that_does_not_read() {
    let (_folder, target, path) = socket();
    let console = console(&target).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    let start = Instant::now();
    for _ in 0..200 {
        guest_writes(&console, &[b'x'; 8192]);
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    client.set_nonblocking(true).unwrap();
    let mut buffer = [0; 1024];
    assert!((&client).read(&mut buffer).is_ok_and(|len| len > 0));
}

#[test]
fn the_socket_is_private_and_goes_with_the_console() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, target, path) = socket();
    let console = console(&target).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(console);
    let error = std::fs::metadata(&path).err().map(|error| error.kind());
    assert_eq!(error, Some(ErrorKind::NotFound));
}

#[test]
fn a_stale_socket_is_replaced_a_live_one_is_not() {
    let (_folder, target, path) = socket();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let first = console(&target).unwrap();
    assert!(matches!(console(&target), Err(SerialError::InUse(_))));
    drop(first);
}

#[test]
fn what_cannot_be_opened_is_named() {
    let error = console(&SerialTarget::File("/no/such/folder/log".into())).err().unwrap();
    assert!(error.to_string().contains("file:/no/such/folder/log"), "{error}");
}
