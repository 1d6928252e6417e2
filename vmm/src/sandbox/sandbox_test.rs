//! The sandbox, from inside: each test starts itself once more as a process of its own, which confines
//! itself and tries what it is not to do.

use std::fs::{self, File};
use std::net::ToSocketAddrs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use super::report::EXIT_STATUS;
use super::{Role, SandboxMode, confine, enter};
use crate::config::{Configuration, Settings};
use crate::serial::SerialTarget;

/// Says to a process that it is the one to be confined, and where its files are.
const INSIDE: &str = "NPA_SANDBOX_TEST_FOLDER";
/// Ends a process that nothing has stopped.
const UNSCATHED: i32 = 77;

/// Runs the test `name` once more, as a process that does `inside` on a thread called `culprit`.
fn confined(name: &str, mode: SandboxMode, inside: fn(&Path)) -> Output {
    if let Some(folder) = std::env::var_os(INSIDE) {
        let folder = Path::new(&folder).to_owned();
        let culprit = std::thread::Builder::new().name("culprit".to_owned()).spawn(move || {
            confine(&configuration(&folder, mode)).unwrap();
            inside(&folder);
            std::process::exit(UNSCATHED);
        });
        culprit.unwrap().join().unwrap();
        std::process::exit(1);
    }
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("snapshots")).unwrap();
    for file in ["kernel", "secret"] {
        fs::write(folder.path().join(file), "x").unwrap();
    }
    let program = std::env::current_exe().unwrap();
    let test = format!("sandbox::sandbox_test::{name}");
    let mut command = Command::new(program);
    command.args(["--exact", &test, "--nocapture", "--test-threads=1"]).env(INSIDE, folder.path());
    command.output().unwrap()
}

fn configuration(folder: &Path, sandbox: SandboxMode) -> Configuration {
    Settings {
        kernel: Some(folder.join("kernel")),
        snapshots: Some(folder.join("snapshots")),
        serial: Some(SerialTarget::File(folder.join("serial.log"))),
        sandbox: Some(sandbox),
        ..Settings::default()
    }
    .resolve()
    .unwrap()
}

/// Fails unless the process was ended for `call`, and said so.
fn expect_report(output: &Output, call: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EXIT_STATUS), "{said}");
    assert!(said.contains(&format!("thread `culprit` made the system call `{call}`")), "{said}");
}

fn expect_unscathed(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(UNSCATHED), "{said}");
}

#[test]
fn a_device_opens_no_socket() {
    let output = confined("a_device_opens_no_socket", SandboxMode::On, |_| {
        enter(Role::Device);
        drop(std::net::UdpSocket::bind("127.0.0.1:0"));
    });
    expect_report(&output, "socket");
}

#[test]
fn a_vcpu_opens_no_file() {
    let output = confined("a_vcpu_opens_no_file", SandboxMode::On, |folder| {
        enter(Role::Vcpu);
        drop(File::open(folder.join("kernel")));
    });
    expect_report(&output, "openat");
}

#[test]
fn who_switches_data_paths_serves_nobody() {
    let output = confined("who_switches_data_paths_serves_nobody", SandboxMode::On, |folder| {
        enter(Role::Control);
        drop(UnixListener::bind(folder.join("snapshots/socket")));
    });
    expect_report(&output, "bind");
}

#[test]
fn nobody_starts_a_program() {
    let output = confined("nobody_starts_a_program", SandboxMode::On, |_| {
        enter(Role::Operator);
        let error = std::os::unix::process::CommandExt::exec(&mut Command::new("/bin/true"));
        panic!("{error}");
    });
    // What comes first when a program is started: its signals are set to their defaults.
    expect_report(&output, "rt_sigaction");
}

#[test]
fn no_memory_becomes_code() {
    let output = confined("no_memory_becomes_code", SandboxMode::On, |folder| {
        enter(Role::Operator);
        drop(map_code(&File::open(folder.join("kernel")).unwrap()));
    });
    expect_report(&output, "mmap");
}

fn map_code(file: &File) -> Result<(), vm_memory::mmap::MmapRegionError> {
    let offset = vm_memory::FileOffset::new(file.try_clone().unwrap(), 0);
    let protection = libc::PROT_READ | libc::PROT_EXEC;
    vm_memory::MmapRegion::<()>::build(Some(offset), 1, protection, libc::MAP_PRIVATE).map(drop)
}

#[test]
fn a_thread_that_is_started_is_no_freer() {
    let output = confined("a_thread_that_is_started_is_no_freer", SandboxMode::On, |_| {
        enter(Role::Control);
        let child = std::thread::Builder::new().name("culprit".to_owned()).spawn(|| {
            enter(Role::Operator);
            drop(std::net::UdpSocket::bind("127.0.0.1:0"));
        });
        drop(child.unwrap().join());
    });
    // A thread under a filter may not put itself under another.
    expect_report(&output, "prctl");
}

#[test]
fn what_is_only_logged_is_carried_out() {
    let output = confined("what_is_only_logged_is_carried_out", SandboxMode::Log, |_| {
        enter(Role::Vcpu);
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    });
    expect_unscathed(&output);
}

#[test]
fn only_named_files_are_there() {
    let output = confined("only_named_files_are_there", SandboxMode::On, |folder| {
        enter(Role::Operator);
        assert!(File::open(folder.join("kernel")).is_ok());
        for secret in [&folder.join("secret"), Path::new("/etc/passwd")] {
            let error = File::open(secret).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{secret:?}");
        }
        let kernel = File::options().append(true).open(folder.join("kernel"));
        assert!(kernel.is_err(), "the kernel is read only");
        fs::create_dir(folder.join("snapshots/a")).unwrap();
        fs::write(folder.join("snapshots/a/ram"), "x").unwrap();
        fs::rename(folder.join("snapshots/a"), folder.join("snapshots/b")).unwrap();
        fs::remove_dir_all(folder.join("snapshots/b")).unwrap();
        assert!(fs::write(folder.join("elsewhere"), "x").is_err());
    });
    expect_unscathed(&output);
}

#[test]
fn names_of_hosts_are_looked_up_and_unknown_ones_are_an_error() {
    let name = "names_of_hosts_are_looked_up_and_unknown_ones_are_an_error";
    let output = confined(name, SandboxMode::On, |_| {
        enter(Role::Operator);
        assert!(("localhost", 4000).to_socket_addrs().unwrap().next().is_some());
        assert!(("no-such-host.invalid", 4000).to_socket_addrs().is_err());
    });
    expect_unscathed(&output);
}

#[test]
fn a_console_file_is_there_and_its_folder_is_not() {
    let output =
        confined("a_console_file_is_there_and_its_folder_is_not", SandboxMode::On, |folder| {
            let serial = folder.join("serial.log");
            assert!(File::options().append(true).open(&serial).is_ok());
            assert!(File::create(folder.join("other.log")).is_err());
            assert!(File::options().append(true).open(folder.join("secret")).is_err());
        });
    expect_unscathed(&output);
}

#[test]
fn all_rights_are_given_up() {
    let output = confined("all_rights_are_given_up", SandboxMode::On, |_| {
        let status = fs::read_to_string("/proc/self/task/self/status")
            .or_else(|_| fs::read_to_string("/proc/thread-self/status"))
            .unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').trim().to_owned()
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), 0, "{set}");
        }
        assert_eq!(field("NoNewPrivs"), "1");
    });
    expect_unscathed(&output);
}
