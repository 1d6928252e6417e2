//! vmm killed with SIGKILL while attached: the next VM gets that VF, without a reboot.

use super::Context;
use super::guest::{Guest, GuestOptions};
use super::pool;
use anyhow::{Result, ensure};

pub(crate) fn run(context: &Context) -> Result<()> {
    let mut seen = Vec::new();
    // Once more than there are VFs, so that each has been orphaned and given again.
    for round in 0..=pool::vfs()?.len() {
        let guest = Guest::launch(GuestOptions::new(context).named(&format!("killed-{round}")))?;
        guest.expect_traffic()?;
        guest.attach()?;
        guest.expect_traffic()?;
        let held = pool::held()?;
        ensure!(held.len() == 1, "one VF should be held: {held:?}");
        seen.extend(held);
        guest.kill()?;
        pool::expect_all_free()?;
    }
    let mut distinct = seen.clone();
    distinct.sort();
    distinct.dedup();
    ensure!(distinct.len() < seen.len(), "no orphaned VF was given again: {seen:?}");
    Ok(())
}
