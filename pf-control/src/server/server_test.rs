//! The daemon's interface over a real socket, on a fake host, by the client that VMMs use.

use super::listener::FairListener;
use super::{events, http, watch};
use crate::client::{Client, ClientError};
use crate::lease::LeaseState;
use crate::ops::{AcquireRequest, DeviceClass, LeaseId, OpError, Rings, VfEntry};
use crate::pool::fake_host::FakeHost;
use rustix::process::{Resource, getrlimit};
use std::fs::File;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// A daemon that can be stopped.
struct Daemon {
    dir: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    fn start(vfs: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = channel();
        let pool = Arc::new(FakeHost::default().pool(vfs, &dir.path().join("store")));
        let socket = dir.path().join("s");
        let serve = async move {
            let inventory = events::publish(Arc::clone(&pool));
            let doorbell = watch::start(Arc::clone(&pool)).unwrap();
            let listener = tokio::net::UnixListener::bind(socket).unwrap();
            let routes =
                http::routes(http::Daemon { pool, doorbell, inventory, metrics: Arc::default() });
            ready.send(()).unwrap();
            tokio::select! {
                outcome = axum::serve(
                    FairListener::new(listener),
                    routes.into_make_service_with_connect_info::<http::Peer>(),
                ) => outcome.unwrap(),
                _ = stopped => {}
            }
        };
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve);
            runtime.shutdown_background();
        });
        is_ready.recv().unwrap();
        Self { dir, stop: Some(stop), thread: Some(thread) }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// Follows the inventory on a thread.
    fn follow(&self) -> (Receiver<VfEntry>, JoinHandle<Result<(), ClientError>>) {
        let (sender, receiver): (Sender<VfEntry>, _) = channel();
        let client = self.client();
        let follower = thread::spawn(move || {
            client.follow(|entry| match entry.is_none_or(|entry| sender.send(entry).is_ok()) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        });
        (receiver, follower)
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

fn request() -> AcquireRequest {
    AcquireRequest {
        vm: "vm1".into(),
        device: "net0".into(),
        class: DeviceClass::Net,
        mtu: 1500,
        queues: 1,
        profile: None,
        wait: false,
    }
}

/// Waits for an entry of VF `index` for which `condition` holds.
fn until(news: &Receiver<VfEntry>, index: u32, condition: impl Fn(&VfEntry) -> bool) {
    loop {
        let entry = news.recv_timeout(Duration::from_secs(20)).expect("nothing more is told");
        if entry.index == index && condition(&entry) {
            return;
        }
    }
}

#[test]
fn the_group_of_a_vf_goes_to_its_holder_as_an_open_file() {
    let daemon = Daemon::start(2);
    let client = daemon.client();
    let refused = |outcome: Result<_, ClientError>| outcome.map(drop).unwrap_err().to_string();
    let lease = LeaseId("0000:01:10.0".parse().unwrap());
    assert!(refused(client.open_group(lease, 4096)).contains("there is no lease"));
    assert_eq!(client.acquire(request()).unwrap().lease, lease);
    let before = getrlimit(Resource::Memlock).current;
    for _ in 0..2 {
        // The fake's group is /dev/null.
        let group = File::from(client.open_group(lease, 4096).unwrap());
        assert!(group.metadata().unwrap().file_type().is_char_device());
    }
    let after = getrlimit(Resource::Memlock).current;
    assert!(after.is_none_or(|after| before.is_some_and(|before| before <= after)));
    client.init(lease, Rings::default()).unwrap();
    assert!(refused(client.open_group(lease, 4096)).contains("initialised"));
    let another = LeaseId("0000:01:10.2".parse().unwrap());
    assert!(refused(client.open_group(another, 4096)).contains("there is no lease"));
}

#[test]
fn a_tap_that_is_not_there_is_refused_and_a_question_without_upgrade_too() {
    let daemon = Daemon::start(1);
    let error = daemon.client().open_port("npa-no-such").map(drop).unwrap_err();
    assert!(matches!(&error, ClientError::Refused(OpError::Port { .. })), "{error}");
    assert!(error.to_string().contains("there is no interface `npa-no-such`"), "{error}");
    let mut plain = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
    let request = "POST /v1/ports/lo/open HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    plain.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("npa-descriptor"), "{answer}");
}

#[test]
fn whoever_asks_for_files_and_does_not_fetch_them_holds_up_nobody() {
    let daemon = Daemon::start(1);
    let lease = daemon.client().acquire(request()).unwrap().lease;
    let ask = format!(
        "POST /v1/leases/{lease}/open HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n\
         upgrade: npa-descriptor\r\ncontent-type: application/json\r\n\
         content-length: 13\r\n\r\n{{\"memory\": 1}}"
    );
    let silent: Vec<_> = (0..32)
        .map(|_| {
            let mut stream = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
            stream.write_all(ask.as_bytes()).unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).unwrap();
            assert_eq!(&head, b"HTTP/1.1 101");
            stream
        })
        .collect();
    drop(daemon.client().open_group(lease, 1).unwrap());
    drop(silent);
}

#[test]
fn garbage_is_answered_or_closed_and_costs_nothing() {
    let daemon = Daemon::start(1);
    let lease = daemon.client().acquire(request()).unwrap().lease;
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1 << 20));
    let body = |text: &str| {
        let length = text.len();
        format!(
            "POST /v1/ops HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{text}"
        )
    };
    let open = |path: &str, text: &str| {
        body(text)
            .replace("/v1/ops", path)
            .replace("connection: close", "connection: upgrade\r\nupgrade: npa-descriptor")
    };
    for garbage in [
        "\0\u{1}\u{2}\r\n\r\n".to_owned(),
        long,
        body("{"),
        body(&"[".repeat(60 << 10)),
        body(&"x".repeat(1 << 20)),
        body(r#"{"op": "release", "lease": "0000:ff:1f.7"}"#),
        body(r#"{"op": "activate", "lease": "0000:01:10.0", "mac": "zz", "port": "tap0"}"#),
        open("/v1/leases/nonsense/open", r#"{"memory": 1}"#),
        open(&format!("/v1/leases/{lease}/open"), r#"{"memory": -1}"#),
        open("/v1/ports/..%2f..%2fetc/open", ""),
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The daemon may hang up in the middle.
        let _ = stream.write_all(garbage.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let head = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
        assert!(head.is_empty() || head.starts_with("HTTP/1.1 4"), "{head} to {:.80}", garbage);
    }
    assert_eq!(daemon.client().get_info(lease).unwrap().state, LeaseState::Acquired);
}

#[test]
fn a_process_with_too_many_connections_gets_no_more_until_it_closes_some() {
    let daemon = Daemon::start(1);
    let connect = || std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
    let mut flood: Vec<_> = (0..100).map(|_| connect()).collect();
    assert!(matches!(daemon.client().ping(), Err(ClientError::Died { .. })));
    flood.clear();
    // The daemon may take a moment to see it.
    let deadline = Instant::now() + Duration::from_secs(20);
    while daemon.client().ping().is_err() {
        assert!(Instant::now() < deadline, "nobody is let in any more");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn whoever_follows_is_told_how_things_are_and_what_changes() {
    let mut daemon = Daemon::start(2);
    let client = daemon.client();
    let lease = client.acquire(request()).unwrap().lease;
    let (news, follower) = daemon.follow();
    until(&news, 0, |entry| entry.state == LeaseState::Acquired && !entry.maintenance);
    assert_eq!(client.drain("eth0").unwrap().iter().map(|vf| vf.vf).collect::<Vec<_>>(), [lease.0]);
    until(&news, 0, |entry| entry.state == LeaseState::Acquired && entry.maintenance);
    let another = AcquireRequest { device: "net1".into(), ..request() };
    assert!(matches!(client.acquire(another), Err(ClientError::NoVfFree(_))));
    client.release(lease).unwrap();
    until(&news, 0, |entry| entry.state == LeaseState::Free && entry.maintenance);
    assert!(client.enable("eth0").unwrap().is_empty());
    until(&news, 0, |entry| entry.state == LeaseState::Free && !entry.maintenance);
    // The end of the daemon is the end of the stream, not of the follower's patience.
    daemon.stop();
    let error = follower.join().unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Died { .. }), "{error}");
}

#[test]
fn whoever_breaks_off_is_let_go() {
    let daemon = Daemon::start(1);
    let client = daemon.client();
    let mut told = 0;
    let value = client.follow(|entry| {
        told += u32::from(entry.is_some());
        if told == 1 { ControlFlow::Break("enough") } else { ControlFlow::Continue(()) }
    });
    assert_eq!(value.unwrap(), "enough");
    client.ping().unwrap();
}

#[test]
fn a_pf_that_is_not_served_is_refused_with_those_that_are() {
    let daemon = Daemon::start(1);
    let error = daemon.client().drain("eth9").unwrap_err();
    assert!(error.to_string().contains("eth0"), "{error}");
    // A name is one segment of the path, whatever is in it.
    for odd in ["", "../vfs", "eth0/x", "a b", "eth0?x"] {
        assert!(daemon.client().drain(odd).is_err(), "{odd}");
    }
}

#[test]
fn what_is_asked_is_counted() {
    let daemon = Daemon::start(2);
    let client = daemon.client();
    let lease = client.acquire(request()).unwrap().lease;
    client.quiesce(lease).unwrap_err();
    client.drain("eth0").unwrap();
    let text = client.metrics().unwrap();
    for line in [
        r#"pf_control_operations_total{op="acquire",outcome="ok"} 1"#,
        r#"pf_control_operations_total{op="quiesce",outcome="wrong-state"} 1"#,
        r#"pf_control_operation_seconds_count{op="acquire"} 1"#,
        r#"pf_control_vfs{pf="eth0",class="net",state="acquired"} 1"#,
        r#"pf_control_vfs{pf="eth0",class="net",state="free"} 1"#,
        r#"pf_control_vfs{pf="eth0",class="net",state="failed"} 0"#,
        r#"pf_control_maintenance{pf="eth0"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in:\n{text}");
    }
    // A VF that changes its state leaves no value behind.
    client.release(lease).unwrap();
    let text = client.metrics().unwrap();
    assert!(text.contains(r#"state="acquired"} 0"#), "{text}");
}
