//! A guest that stops running delays nothing past its deadline: forced revoke, VF back in the
//! pool, VM still controllable, and its traffic goes on once it runs again.

use super::Context;
use super::guest::{Guest, GuestOptions};
use super::pool;
use super::traffic::Traffic;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// More than all of the VMM's deadlines together.
const LIMIT: Duration = Duration::from_secs(12);

pub(crate) fn run(context: &Context) -> Result<()> {
    let mut guest = Guest::launch(GuestOptions::new(context).named("hung"))?;
    guest.expect_traffic()?;

    // Hangs in a detach, under traffic.
    guest.attach()?;
    let traffic = Traffic::start(&guest)?;
    guest.ctl_ok(&["pause"])?;
    let start = Instant::now();
    let detach = guest.ctl(&["detach", "net0"])?;
    ensure!(start.elapsed() < LIMIT, "detach took {:?} with a paused guest", start.elapsed());
    let said = String::from_utf8_lossy(&detach.stderr).into_owned()
        + &String::from_utf8_lossy(&detach.stdout);
    ensure!(said.contains("revoke"), "detach does not tell of the forced revoke: {said}");
    pool::expect_all_free()?;
    guest.expect_mode("emulated")?;
    guest.ctl_ok(&["resume"])?;
    guest.expect_traffic()?;
    let report = traffic.stop(&guest)?;
    // While the guest stood still its queues ran over: loss is its own. Its order is not.
    ensure!(report.reordered() == 0, "reordered by the revoke: {}", report.particulars());
    report.expect_tcp_intact()?;

    // Never answers an offer.
    guest.ctl_ok(&["pause"])?;
    let start = Instant::now();
    guest.ctl_refused(&["attach", "net0"])?;
    ensure!(start.elapsed() < LIMIT, "attach took {:?} with a paused guest", start.elapsed());
    pool::expect_all_free()?;
    guest.ctl_ok(&["resume"])?;
    guest.expect_traffic()?;

    // And is as good as before.
    retry_attach(&guest)?;
    guest.expect_traffic()?;
    guest.detach()?;
    guest.expect_traffic()?;
    guest.expect_alive()?;
    pool::expect_all_free()
}

/// The guest cleans up at its own pace after a revoke; until then attach says so.
pub(super) fn retry_attach(guest: &Guest) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match guest.attach() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
