//! The client against a socket that is absent, silent, dying, or answers.

use super::*;
use crate::ops::OpError;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;

/// Serves one connection with `answer`, after reading the request.
fn serve(answer: &'static str) -> (tempfile::TempDir, Client) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    });
    (dir, Client::new(socket))
}

fn lease() -> LeaseId {
    LeaseId("0000:01:10.0".parse().unwrap())
}

#[test]
fn absent_daemon_is_not_running() {
    let dir = tempfile::tempdir().unwrap();
    let error = Client::new(dir.path().join("none")).ping().unwrap_err();
    assert!(matches!(error, ClientError::NotRunning { .. }), "{error}");
    assert!(error.to_string().contains("pf-control serve"));
}

#[test]
fn abandoned_socket_is_not_running() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(matches!(Client::new(socket).ping(), Err(ClientError::NotRunning { .. })));
}

#[test]
fn silent_daemon_times_out() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let _listener = UnixListener::bind(&socket).unwrap();
    let client = Client::new(socket).with_deadline(Duration::from_millis(50));
    assert!(matches!(client.quiesce(lease()), Err(ClientError::TimedOut { .. })));
}

#[test]
fn daemon_that_hangs_up_has_died() {
    let (_dir, client) = serve("");
    assert!(matches!(client.quiesce(lease()), Err(ClientError::Died { .. })));
}

#[test]
fn a_reply_is_read() {
    let (_dir, client) = serve("HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"reply\":\"done\"}");
    client.release(lease()).unwrap();
}

#[test]
fn a_full_pool_is_told_from_other_refusals() {
    let (_dir, client) = serve(
        "HTTP/1.1 409 Conflict\r\ncontent-length: 43\r\n\r\n\
         {\"error\":\"no-vf-free\",\"total\":2,\"held\":2}  ",
    );
    let request = AcquireRequest {
        vm: "a".into(),
        device: "net0".into(),
        class: DeviceClass::Net,
        mtu: 1500,
        queues: 1,
        profile: None,
        wait: false,
    };
    let error = client.acquire(request).unwrap_err();
    assert!(
        matches!(error, ClientError::NoVfFree(OpError::NoVfFree { total: 2, held: 2 })),
        "{error}"
    );
}

#[test]
fn an_answer_of_something_else_is_a_protocol_error() {
    let (_dir, client) = serve("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    assert!(matches!(client.list(), Err(ClientError::Protocol { .. })));
}

fn follow(answer: &'static str) -> Result<(), ClientError> {
    let (_dir, client) = serve(answer);
    client.follow(|_| ControlFlow::<()>::Continue(()))
}

#[test]
fn a_stream_that_makes_no_sense_is_an_error() {
    let error = follow("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{]\n").unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    let error = follow("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n\n\n\n").unwrap_err();
    assert!(matches!(error, ClientError::Died { .. }), "{error}");
    let error = follow("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. } | ClientError::Died { .. }), "{error}");
}

#[test]
fn a_stream_that_falls_silent_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let _listener = UnixListener::bind(&socket).unwrap();
    let client = Client::new(socket).with_deadline(Duration::from_millis(50));
    let error = client.follow(|_| ControlFlow::<()>::Continue(())).unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
}
