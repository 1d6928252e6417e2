//! What an operator in a hurry does: a kernel, tap, disk or directory that is not there, or that this
//! user may not use. `vmm run` ends at once with an error that names the thing.

use super::Context;
use super::guest::GuestOptions;
use anyhow::{Context as _, Result, ensure};
use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The flag to change, its bad value, and a word that the error must hold.
const CASES: [(&str, &str, &str); 7] = [
    ("--kernel", "/nonexistent/vmlinuz", "/nonexistent/vmlinuz"),
    ("--kernel", "/proc/version", "kernel"),
    ("--initrd", "/nonexistent/initrd", "/nonexistent/initrd"),
    ("--net", "id=net0,tap=nosuchtap,mac=52:54:00:00:00:01", "nosuchtap"),
    ("--net", "id=net0,tap=tap0,mac=rubbish", "mac"),
    ("--plugins", "/nonexistent/plugins", "/nonexistent/plugins"),
    ("--memory", "1", "memory"),
];

/// Users and groups of the lab host: the owner of the taps, and nobody in particular.
const VMM: u32 = 990;
const NOBODY: u32 = 65534;

pub(crate) fn run(context: &Context) -> Result<()> {
    for (flag, value, word) in CASES {
        let command = as_user(VMM, arguments(context, &[(flag, value)])?);
        expect_refusal(command, word).with_context(|| format!("{flag} {value}"))?;
    }
    let mut root = Command::new("vmm");
    root.args(arguments(context, &[])?);
    expect_refusal(root, "does not run as root").context("as root")?;
    without_rights(context)
}

fn as_user(user: u32, arguments: Vec<OsString>) -> Command {
    let mut command = Command::new("vmm");
    // Without root's groups as well.
    command.args(arguments).uid(user).gid(user);
    command
}

/// The arguments of a good command line with some values changed.
fn arguments(context: &Context, changes: &[(&str, &str)]) -> Result<Vec<OsString>> {
    let mut arguments = GuestOptions::new(context).named("bad-start").arguments();
    for (flag, value) in changes {
        let at = arguments.iter().position(|argument| argument == flag).context("no such flag")?;
        arguments[at + 1] = value.into();
    }
    Ok(arguments)
}

/// Fails unless `command` ends soon, without success, with an error that holds `word`.
fn expect_refusal(mut command: Command, word: &str) -> Result<()> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            anyhow::bail!("vmm runs all the same");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "vmm succeeds");
    ensure!(!error.contains("panicked"), "vmm panics: {error}");
    ensure!(error.to_lowercase().contains(word), "the error has no word of {word:?}: {error}");
    Ok(())
}

/// Users who may not use pf-control, a tap, or KVM; and one without pf-control, whose guest runs all
/// the same.
fn without_rights(context: &Context) -> Result<()> {
    let folder = Path::new("/run/bad-start");
    std::fs::create_dir_all(folder)?;
    chown(folder, Some(VMM), Some(VMM))?;
    let socket = folder.join("api");
    let path = socket.to_string_lossy().into_owned();
    let changes = [("--serial", "stdio"), ("--api-socket", path.as_str())];
    let with_daemon = arguments(context, &changes)?;
    let mut alone = with_daemon.clone();
    let at = alone.iter().position(|word| word == "--pf-control").context("no --pf-control")?;
    alone.drain(at..at + 2);

    expect_refusal(
        as_user(NOBODY, with_daemon.clone()),
        "no permission to use /run/npa/pf-control",
    )
    .context("another's daemon")?;
    expect_refusal(as_user(NOBODY, alone.clone()), "no permission to use tap")
        .context("another's tap")?;
    let mut member = Command::new("setpriv");
    let [user, group] = [NOBODY, VMM].map(|id| id.to_string());
    member.args(["--reuid", &user, "--regid", &group, "--clear-groups", "vmm"]).args(&with_daemon);
    expect_refusal(member, "no permission to use tap").context("another's tap, by the daemon")?;
    let kvm = |mode| std::fs::set_permissions("/dev/kvm", Permissions::from_mode(mode));
    kvm(0o600)?;
    let refused =
        expect_refusal(as_user(VMM, with_daemon), "/dev/kvm").context("KVM for root only");
    kvm(0o666)?;
    refused?;

    let mut guest = as_user(VMM, alone)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let refused = attach_is_refused(&path);
    guest.kill()?;
    guest.wait()?;
    refused.context("a VF without the daemon")
}

/// Attaches, which nobody could serve.
fn attach_is_refused(socket: &str) -> Result<()> {
    let ctl = |arguments: &[&str]| {
        Command::new("vmm").args(["ctl", "--api-socket", socket]).args(arguments).output()
    };
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let attach = ctl(&["attach", "net0"])?;
        let error = String::from_utf8_lossy(&attach.stderr).into_owned();
        ensure!(!attach.status.success(), "attach succeeds without rights");
        if error.contains("--pf-control") {
            break;
        }
        ensure!(Instant::now() < deadline, "the error has no word of --pf-control: {error}");
        std::thread::sleep(Duration::from_millis(500));
    }
    let status = ctl(&["status", "--json"])?;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
    ensure!(status["devices"][0]["mode"] == "emulated", "the guest is not on its NIC: {status}");
    Ok(())
}
