//! pf-control dies: an attach is refused with a clear error, a VF in use keeps working, and the
//! restarted daemon takes up what it finds.

use super::Context;
use super::guest::{Guest, GuestOptions};
use super::pool;
use anyhow::{Context as _, Result, ensure};

pub(crate) fn run(context: &Context) -> Result<()> {
    let mut guest = Guest::launch(GuestOptions::new(context).named("daemon-death"))?;
    guest.expect_traffic()?;

    pool::kill_daemon()?;
    let error = guest.ctl_refused(&["attach", "net0"])?;
    ensure!(error.contains("pf-control"), "the error does not name pf-control: {error}");
    guest.expect_traffic()?;
    pool::restart_daemon()?;

    guest.attach()?;
    pool::kill_daemon()?;
    guest.expect_traffic().context("on the VF, with pf-control dead")?;
    let error = guest.ctl_refused(&["detach", "net0"])?;
    ensure!(error.contains("pf-control"), "the error does not name pf-control: {error}");
    guest.expect_mode("vf")?;
    guest.expect_traffic().context("after the refused detach")?;

    pool::restart_daemon()?;
    ensure!(pool::held()?.len() == 1, "the restarted daemon does not know of the VF in use");
    guest.expect_traffic().context("after pf-control's restart")?;
    guest.detach()?;
    guest.expect_traffic()?;
    guest.expect_alive()?;
    pool::expect_all_free()
}
