//! Moves that fail or are ended on the way: the VM stays where it is, on its VF, and its traffic
//! does not notice. A hung guest and a host without pf-control do not keep a VM from moving.

use super::Context;
use super::guest::{Guest, GuestOptions};
use super::host::Host;
use super::migration::{Meeting, expect_vf};
use super::pool;
use super::traffic::Traffic;
use anyhow::{Context as _, Result, ensure};
use std::process::Output;
use std::time::{Duration, Instant};

/// So slow that a pass takes several seconds.
const SLOW: &str = "20M";

pub(crate) fn run(context: &Context) -> Result<()> {
    Host::up()?;
    let mut guest = Guest::launch(GuestOptions::new(context).named("faults"))?;
    guest.expect_traffic()?;
    guest.attach()?;
    let traffic = Traffic::start(&guest)?;

    // Nobody there.
    let error = guest.ctl_refused(&["migrate", "unix:/run/npa/nobody.sock"])?;
    ensure!(error.contains("--incoming"), "nobody there is told as: {error}");
    expect_vf(&guest).context("after a move to nobody")?;

    // The destination dies.
    let meeting = Meeting::arrange(&guest, "dies")?;
    let moving = Moving::start(&guest, &meeting)?;
    moving.wait_for(&guest, "copying")?;
    meeting.guest.kill()?;
    let error = moving.refused()?;
    ensure!(error.contains("closed the connection"), "a dead destination is told as: {error}");
    expect_vf(&guest).context("after the destination's death")?;

    // The operator ends it.
    let mut meeting = Meeting::arrange(&guest, "cancelled")?;
    let moving = Moving::start(&guest, &meeting)?;
    moving.wait_for(&guest, "copying")?;
    let busy = guest.ctl_refused(&["pause"])?;
    ensure!(busy.contains("being moved"), "a pause meanwhile is told as: {busy}");
    guest.ctl_ok(&["migrate-cancel"])?;
    let error = moving.refused()?;
    ensure!(error.contains("cancelled"), "a cancelled move is told as: {error}");
    ensure!(!meeting.guest.wait(Duration::from_secs(15))?, "the destination did not notice");
    ensure!(meeting.guest.log_tail().contains("cancelled"), "the destination was not told why");
    expect_vf(&guest).context("after a cancelled move")?;
    let idle = guest.ctl_refused(&["migrate-cancel"])?;
    ensure!(idle.contains("nothing to cancel"), "nothing to cancel is told as: {idle}");

    // The source's pf-control is away, so the VF cannot be given back.
    let meeting = Meeting::arrange(&guest, "daemonless")?;
    pool::kill_daemon_on(Host::First)?;
    let error = guest.ctl_refused(&["migrate", &meeting.url])?;
    ensure!(error.contains("VF could not be given back"), "no pf-control is told as: {error}");
    drop(meeting);
    pool::restart_daemon()?;
    expect_vf(&guest).context("with pf-control away")?;

    // And all that time:
    std::thread::sleep(Duration::from_millis(300));
    traffic.stop(&guest)?.expect_clean().context("traffic during moves that failed")?;

    // A guest that does not help, to a host whose pf-control has died.
    guest.ctl_ok(&["pause"])?;
    let meeting = Meeting::arrange(&guest, "hung")?;
    pool::kill_daemon_on(Host::Second)?;
    guest.ctl_ok(&["migrate", &meeting.url])?;
    ensure!(guest.wait(Duration::from_secs(10))?, "the source failed:\n{}", guest.log_tail());
    drop(guest);
    pool::expect_all_free()?;
    let moved = meeting.guest;
    ensure!(moved.status()?["state"] == "paused", "a paused VM runs after a move");
    moved.ctl_ok(&["resume"])?;
    moved.expect_traffic().context("a hung guest that was moved")?;
    moved.expect_mode("emulated")?;
    Host::up()?;
    moved.attach()?;
    moved.expect_traffic()?;

    // The source dies: nothing of the VM is left anywhere.
    let mut meeting = Meeting::arrange(&moved, "orphan")?;
    let moving = Moving::start(&moved, &meeting)?;
    moving.wait_for(&moved, "copying")?;
    moved.kill()?;
    drop(moving);
    ensure!(!meeting.guest.wait(Duration::from_secs(15))?, "a VM without its source goes on");
    let log = meeting.guest.log_tail();
    ensure!(log.contains("closed the connection"), "a dead source is told as: {log}");
    pool::expect_all_free_on(Host::Second)?;
    pool::expect_all_free()
}

/// A move under way.
struct Moving(std::process::Child);

impl Moving {
    fn start(guest: &Guest, meeting: &Meeting) -> Result<Self> {
        let child = guest
            .ctl_command(&["migrate", &meeting.url, "--bandwidth", SLOW])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .context("cannot start vmm ctl")?;
        Ok(Self(child))
    }

    /// Waits until the move is in `phase` and under way there.
    fn wait_for(&self, guest: &Guest, phase: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let view = guest.migration()?;
            let progress = &view["progress"];
            if progress["phase"] == phase && progress["done_bytes"].as_u64().unwrap_or(0) > 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "no move comes to {phase}: {view}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end, which must be an error, and returns that.
    fn refused(self) -> Result<String> {
        let Output { status, stderr, .. } = self.0.wait_with_output()?;
        ensure!(!status.success(), "a move that should have failed did not");
        Ok(String::from_utf8_lossy(&stderr).into_owned())
    }
}
