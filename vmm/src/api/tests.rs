//! The interface over a real socket, in front of a fake VM.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use axum::http::Method;
use serde_json::Value;

use super::*;
use crate::virtio::PathCounters;

struct FakeMachine {
    state: Mutex<VmState>,
}

impl FakeMachine {
    fn set(&self, state: VmState) -> Result<(), ApiError> {
        let mut now = self.state.lock().unwrap();
        if *now == VmState::Stopped {
            return Err(ApiError::new(ErrorCode::WrongState, "the VM has ended"));
        }
        *now = state;
        Ok(())
    }
}

impl Machine for FakeMachine {
    fn status(&self) -> VmStatus {
        VmStatus {
            state: *self.state.lock().unwrap(),
            vcpus: 2,
            memory_mib: 512,
            uptime_ms: 1,
            exits: ExitCounts { kvm: Some(5), userspace: 3, io: 1, mmio: 2, other: 0 },
            devices: Vec::new(),
        }
    }

    fn pause(&self) -> Result<(), ApiError> {
        self.set(VmState::Paused)
    }

    fn resume(&self) -> Result<(), ApiError> {
        self.set(VmState::Running)
    }

    fn shutdown(&self) -> Result<(), ApiError> {
        self.set(VmState::Stopped)
    }

    fn migrate(&self, request: MigrateRequest) -> Result<Report, ApiError> {
        if request.to.starts_with("unix:") {
            return Ok(Report { to: request.to, downtime_ms: 12.5, ..Report::default() });
        }
        Err(ApiError::new(ErrorCode::Peer, "cannot reach it").hint("look there"))
    }

    fn snapshot(&self, request: SnapshotRequest) -> Result<Report, ApiError> {
        Ok(Report { to: request.folder, ..Report::default() })
    }

    fn migration(&self) -> MigrationView {
        MigrationView { last_error: Some("cancelled".to_owned()), ..MigrationView::default() }
    }

    fn cancel_migration(&self) -> Result<(), ApiError> {
        Err(ApiError::new(ErrorCode::WrongState, "there is nothing to cancel"))
    }
}

/// A device whose attach waits until the test lets it go on.
struct FakeDevice {
    entered: Sender<()>,
    go: Mutex<Receiver<Result<SwitchReport, ApiError>>>,
}

impl Accelerated for FakeDevice {
    fn id(&self) -> &str {
        "net0"
    }

    fn status(&self) -> DeviceStatus {
        DeviceStatus::emulated("net0", "net", PathCounters::default())
    }

    fn fall_back(&self) -> Result<FellBack, ApiError> {
        Ok(FellBack { had_vf: false, logged: true })
    }

    fn marks_writes(&self) -> bool {
        true
    }

    fn log_began(&self) {}

    fn take_up(&self) -> Result<bool, ApiError> {
        Ok(false)
    }

    fn let_be(&self) {}

    fn attach(&self) -> Result<SwitchReport, ApiError> {
        self.entered.send(()).unwrap();
        self.go.lock().unwrap().recv().unwrap()
    }

    fn attach_when_free(&self) -> Result<(), ApiError> {
        Ok(())
    }

    fn detach(&self) -> Result<SwitchReport, ApiError> {
        Err(ApiError::new(ErrorCode::NoShell, "the guest runs no shell").hint("load npa_shell"))
    }
}

struct Setup {
    _server: Server,
    client: Client,
    path: PathBuf,
    entered: Receiver<()>,
    go: Sender<Result<SwitchReport, ApiError>>,
    directory: tempfile::TempDir,
}

fn services() -> (Services, Receiver<()>, Sender<Result<SwitchReport, ApiError>>) {
    let (entered_send, entered) = channel();
    let (go, go_receive) = channel();
    let device = FakeDevice { entered: entered_send, go: Mutex::new(go_receive) };
    let machine = FakeMachine { state: Mutex::new(VmState::Running) };
    (Services { machine: Arc::new(machine), devices: vec![Arc::new(device)] }, entered, go)
}

fn setup() -> Setup {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api");
    let (services, entered, go) = services();
    let server = Server::start(&path, services).unwrap();
    let client = Client::new(&path).unwrap();
    Setup { _server: server, client, path, entered, go, directory }
}

fn report() -> SwitchReport {
    SwitchReport {
        kind: "attach".into(),
        began_ms: 1,
        total_ms: 2.5,
        steps: vec![StepTime { name: "acquire".into(), ms: 1.5 }],
        failure: None,
    }
}

#[test]
fn status_shows_the_vm_and_its_devices() {
    let status = setup().client.status().unwrap();
    assert_eq!((status.state, status.vcpus, status.exits.kvm), (VmState::Running, 2, Some(5)));
    assert_eq!(status.devices.len(), 1);
    assert_eq!((status.devices[0].id.as_str(), status.devices[0].mode), ("net0", Mode::Emulated));
}

#[test]
fn pause_resume_shutdown() {
    let setup = setup();
    setup.client.pause().unwrap();
    assert_eq!(setup.client.status().unwrap().state, VmState::Paused);
    setup.client.resume().unwrap();
    assert_eq!(setup.client.status().unwrap().state, VmState::Running);
    setup.client.shutdown().unwrap();
    let error = setup.client.pause().unwrap_err().to_string();
    assert_eq!(error, "the VM has ended");
}

#[test]
fn attach_blocks_and_status_does_not() {
    let setup = setup();
    let path = setup.path.clone();
    let attach = std::thread::spawn(move || Client::new(&path).unwrap().attach("net0"));
    setup.entered.recv().unwrap();
    // The attach is under way and holds nobody up.
    setup.client.status().unwrap();
    setup.go.send(Ok(report())).unwrap();
    assert_eq!(attach.join().unwrap().unwrap(), report());
}

#[test]
fn refusals_have_code_message_and_hint() {
    let setup = setup();
    let (status, body) = setup.client.raw(Method::POST, "/v1/devices/net0/detach").unwrap();
    assert_eq!(status.as_u16(), 409);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["code"], "no-shell");
    assert_eq!(body["error"]["message"], "the guest runs no shell");
    assert_eq!(body["error"]["hint"], "load npa_shell");

    let error = setup.client.attach("net7").unwrap_err().to_string();
    assert_eq!(error, "there is no device `net7`; this VM has: net0");
    let (status, _) = setup.client.raw(Method::GET, "/v1/nothing").unwrap();
    assert_eq!(status.as_u16(), 404);
    assert!(matches!(setup.client.attach("a b"), Err(ClientError::Name(_))));
}

#[test]
fn metrics_and_description_are_served() {
    let setup = setup();
    assert!(setup.client.metrics().unwrap().contains("\nvmm_running 1\n"));
    let (status, body) = setup.client.raw(Method::GET, "/openapi.json").unwrap();
    assert_eq!(status.as_u16(), 200);
    assert_eq!(body, openapi_json());
}

#[test]
fn the_description_in_the_tree_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(path, openapi_json()).unwrap();
    }
    let file = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        file == openapi_json(),
        "vmm/openapi.json differs from the code; run `UPDATE_OPENAPI=1 cargo test -p vmm openapi`"
    );
}

#[test]
fn the_socket_is_private_and_goes_with_the_server() {
    let setup = setup();
    let mode = std::fs::metadata(&setup.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let Setup { _server: server, path, .. } = setup;
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let setup = setup();
    let second = Server::start(&setup.path, services().0).err().unwrap();
    assert!(matches!(second, ServerError::InUse(_)), "{second}");

    let stale = setup.directory.path().join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    let server = Server::start(&stale, services().0).unwrap();
    Client::new(&stale).unwrap().status().unwrap();
    drop(server);

    let file = setup.directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let error = Server::start(&file, services().0).err().unwrap();
    assert!(matches!(error, ServerError::NotASocket(_)), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");

    let nowhere = setup.directory.path().join("no/such/api");
    let error = Server::start(&nowhere, services().0).err().unwrap();
    assert!(error.to_string().contains("directory must exist"), "{error}");
}

#[test]
fn nobody_there_is_said_so() {
    let client = Client::new(std::path::Path::new("/no/such/socket")).unwrap();
    let error = client.status().unwrap_err().to_string();
    assert!(error.contains("cannot reach a VM at /no/such/socket"), "{error}");
}

#[test]
fn moves_and_saves_are_asked_for_with_a_body() {
    let setup = setup();
    let to = |to: &str| MigrateRequest { to: to.to_owned(), ..MigrateRequest::default() };
    let report = setup.client.migrate(&to("unix:/run/there")).unwrap();
    assert_eq!((report.to.as_str(), report.downtime_ms), ("unix:/run/there", 12.5));
    let ClientError::Refused(error) = setup.client.migrate(&to("tcp:there:1")).unwrap_err() else {
        panic!("not refused");
    };
    assert_eq!((error.code, error.hint.as_deref()), (ErrorCode::Peer, Some("look there")));
    let folder = SnapshotRequest { folder: "/snapshot".to_owned(), end: true };
    assert_eq!(setup.client.snapshot(&folder).unwrap().to, "/snapshot");
    assert_eq!(setup.client.migration().unwrap().last_error.as_deref(), Some("cancelled"));
    assert!(setup.client.cancel_migration().is_err());
    let (status, body) = setup.client.raw(Method::POST, "/v1/vm/migrate").unwrap();
    assert_eq!(status, 400, "{body:?}");
}
