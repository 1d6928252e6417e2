//! What pf-control says of its VFs, and the daemon itself.

use super::host::Host;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The VFs in the pool, as `pf-control list --json` prints them.
pub(crate) fn vfs() -> Result<Vec<Value>> {
    vfs_on(Host::First)
}

fn vfs_on(host: Host) -> Result<Vec<Value>> {
    let output = host
        .nearby("pf-control")
        .args(["list", "--json", "--socket"])
        .arg(host.pf_control())
        .output()
        .context("cannot run pf-control list")?;
    ensure!(
        output.status.success(),
        "pf-control list failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let value: Value = serde_json::from_slice(&output.stdout)?;
    let entries = value.as_array().or_else(|| value["vfs"].as_array()).cloned();
    entries.with_context(|| format!("pf-control list printed no VFs: {value}"))
}

/// Addresses of the VFs that somebody holds.
pub(crate) fn held() -> Result<Vec<String>> {
    held_on(Host::First)
}

/// The same, of a host's daemon.
pub(crate) fn held_on(host: Host) -> Result<Vec<String>> {
    Ok(vfs_on(host)?
        .iter()
        .filter(|vf| vf["state"] != "free")
        .filter_map(|vf| vf["vf"].as_str().map(str::to_owned))
        .collect())
}

/// Waits until every VF is free again.
pub(crate) fn expect_all_free() -> Result<()> {
    expect_all_free_on(Host::First)
}

/// The same, of a host's daemon.
pub(crate) fn expect_all_free_on(host: Host) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let held = held_on(host)?;
        if held.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "VFs still held: {held:?}: {:?}", vfs_on(host)?);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The process id of the daemon behind `socket`.
pub(super) fn daemon(socket: &Path) -> Result<rustix::process::Pid> {
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0);
        let program = words.next().unwrap_or_default();
        let serves = program.ends_with(b"pf-control") && words.next() == Some(b"serve");
        if serves && words.any(|word| word == socket.as_os_str().as_encoded_bytes()) {
            let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            if let Some(pid) = number.and_then(rustix::process::Pid::from_raw) {
                return Ok(pid);
            }
        }
    }
    anyhow::bail!("no pf-control daemon runs")
}

/// Whether the first host's daemon runs.
pub(super) fn runs() -> bool {
    daemon(&Host::First.pf_control()).is_ok()
}

/// A daemon that does nothing, as long as this lives.
pub(super) struct HeldDaemon(rustix::process::Pid);

impl HeldDaemon {
    /// Holds a host's daemon; not on another machine.
    pub(super) fn of(host: Host) -> Result<Self> {
        let pid = daemon(&host.pf_control())?;
        rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
        Ok(Self(pid))
    }
}

impl Drop for HeldDaemon {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::CONT);
    }
}

/// Kills the daemon with SIGKILL and waits until it is gone.
pub(crate) fn kill_daemon() -> Result<()> {
    kill_daemon_on(Host::First)
}

/// The same, of a host's daemon; not on another machine.
pub(crate) fn kill_daemon_on(host: Host) -> Result<()> {
    let socket = &host.pf_control();
    let pid = daemon(socket)?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while daemon(socket).is_ok_and(|now| now == pid) {
        ensure!(Instant::now() < deadline, "pf-control does not die");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Starts the daemon again, as `lab up` does.
pub(crate) fn restart_daemon() -> Result<()> {
    start_daemon(&[])
}

/// The same, to die at a point.
pub(super) fn start_mortal_daemon(point: &str) -> Result<()> {
    start_daemon(&["--pf-control-dies-at", point])
}

/// The same, to know the card by a description.
pub(super) fn restart_daemon_with_description() -> Result<()> {
    start_daemon(&["--describe-card"])
}

/// The same, with a policy for each port.
pub(super) fn restart_daemon_with_strict_ports() -> Result<()> {
    start_daemon(&["--strict-ports"])
}

/// What the daemon has logged.
pub(super) fn daemon_log() -> Result<String> {
    let path = Host::First.pf_control().with_extension("log");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn start_daemon(arguments: &[&str]) -> Result<()> {
    let mut up = Command::new("lab");
    up.arg("up").args(arguments).stdout(std::process::Stdio::null());
    let status = up.status().context("cannot run lab up")?;
    ensure!(
        status.success() && Host::First.pf_control().exists(),
        "pf-control did not start again"
    );
    Ok(())
}

/// The names of all points at which the daemon can be told to die.
pub(super) fn fault_points() -> Result<Vec<String>> {
    let text = call(&["fault-points"])?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The lines of `pf-control list` that tell who waits for a VF.
pub(super) fn waiting() -> Result<Vec<String>> {
    let text = list()?;
    let waits = |line: &&str| line.starts_with("waits for a VF");
    Ok(text.lines().filter(waits).map(str::to_owned).collect())
}

/// What `pf-control list` prints.
pub(super) fn list() -> Result<String> {
    call_daemon(&["list"])
}

/// What `pf-control scan` finds.
pub(super) fn scan() -> Result<Vec<Value>> {
    Ok(serde_json::from_str(&call(&["scan", "--json"])?)?)
}

/// What `pf-control show` prints.
pub(super) fn show(arguments: &[&str]) -> Result<String> {
    call_daemon(&[&["show"], arguments].concat())
}

/// Puts the PF into maintenance and waits until it is empty.
pub(super) fn drain(pf: &str) -> Result<()> {
    call_daemon(&["drain", pf, "--timeout", "20"]).map(drop)
}

/// Ends the PF's maintenance.
pub(super) fn enable(pf: &str) -> Result<()> {
    call_daemon(&["enable", pf]).map(drop)
}

fn call_daemon(arguments: &[&str]) -> Result<String> {
    let socket = Host::First.pf_control();
    let socket = socket.to_str().context("the socket's path is not text")?;
    call(&[arguments, &["--socket", socket]].concat())
}

fn call(arguments: &[&str]) -> Result<String> {
    let output =
        Command::new("pf-control").args(arguments).output().context("cannot run pf-control")?;
    ensure!(
        output.status.success(),
        "pf-control {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}
