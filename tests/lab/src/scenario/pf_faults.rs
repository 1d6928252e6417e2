//! What happens to a PF while a VM is on one of its VFs: another MTU, which resets the card, and the
//! loss of its link. The VM goes on, on whichever path, and nothing is left over.

use super::guest::{Guest, GuestOptions};
use super::host::Host;
use super::{Context, pool};
use anyhow::{Context as _, Result, ensure};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How long a VM may be without traffic after the PF is back. The card takes some seconds to come up.
const RECOVERY: Duration = Duration::from_secs(40);
/// How long the link is away.
const AWAY: Duration = Duration::from_secs(3);

pub(crate) fn run(context: &Context) -> Result<()> {
    let mut guest = Guest::launch(GuestOptions::new(context).named("pf-faults"))?;
    for fault in [Fault::Reset, Fault::LinkLoss, Fault::Mtu] {
        on_vf(&guest).with_context(|| format!("before {fault:?}"))?;
        fault.strike()?;
        recovers(&mut guest).with_context(|| format!("after {fault:?}"))?;
        let status = guest.net_status()?;
        println!("after {fault:?}: {} and {}", status["mode"], status["failure"]);
    }
    on_vf(&guest).context("at the end")?;
    guest.detach()?;
    guest.expect_traffic()?;
    drop(guest);
    pool::expect_all_free()
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The driver resets the card twice in a row.
    Reset,
    /// The PF is taken down for a while.
    LinkLoss,
    /// The PF has a smaller MTU for a while.
    Mtu,
}

impl Fault {
    fn strike(self) -> Result<()> {
        match self {
            Self::Reset => Host::First.reset_pf(),
            Self::LinkLoss => {
                link(&["down"])?;
                thread::sleep(AWAY);
                link(&["up"])
            }
            Self::Mtu => {
                link(&["mtu", "1400"])?;
                thread::sleep(AWAY);
                link(&["mtu", "1500"])
            }
        }
    }
}

fn link(change: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    let status = command.args(["link", "set", Host::First.pf()]).args(change).status();
    ensure!(status.context("cannot run ip")?.success(), "ip link set {change:?} failed");
    Ok(())
}

/// Puts the guest on a VF, unless it is there by itself.
fn on_vf(guest: &Guest) -> Result<()> {
    let deadline = Instant::now() + RECOVERY;
    loop {
        if guest.net_status()?["mode"] == "vf" {
            return guest.expect_traffic();
        }
        // One that is on its way there by itself refuses.
        match guest.attach() {
            Ok(()) => return guest.expect_traffic(),
            Err(error) => ensure!(Instant::now() < deadline, "no VF is to be had: {error:#}"),
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// Waits until the guest's traffic flows, on either path.
fn recovers(guest: &mut Guest) -> Result<()> {
    let deadline = Instant::now() + RECOVERY;
    while let Err(error) = guest.expect_traffic() {
        guest.expect_alive()?;
        ensure!(Instant::now() < deadline, "no traffic any more: {error:#}");
    }
    Ok(())
}
