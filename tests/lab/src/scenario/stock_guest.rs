//! A guest without the shell works with its stock driver, attach says why it cannot be, and it moves like
//! any other, announcing itself where it comes to.

use super::guest::{Guest, GuestOptions};
use super::host::Host;
use super::migration::move_over;
use super::{Context, outside, pool};
use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};

/// How long a guest may take to announce itself.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(context: &Context) -> Result<()> {
    let mut options = GuestOptions::new(context).named("stock");
    options.shell = false;
    let mut guest = Guest::launch(options)?;
    guest.expect_traffic()?;
    let driver = guest.exec("ethtool -i eth0 | sed -n 's/^driver: //p'")?;
    ensure!(driver.trim() == "virtio_net", "the stock guest's driver is {driver}");

    let error = guest.ctl_refused(&["attach", "net0"])?;
    ensure!(error.contains("shell"), "the error does not name the shell: {error}");
    guest.expect_traffic()?;
    guest.expect_alive()?;

    Host::up()?;
    // Nothing but the guest's own announcement puts this right: the VMM's is no ARP.
    let address = guest.options.address();
    let wrong = ["neigh", "replace", &address, "lladdr", "02:00:00:00:00:99", "nud", "stale"];
    neighbours(&[&wrong[..], &["dev", "eth1"]].concat())?;
    let (guest, _) = move_over(guest, "stock-moved", &[])?;
    let deadline = Instant::now() + PATIENCE;
    while !neighbours(&["neigh", "show", &address])?.contains(&guest.options.mac()) {
        ensure!(Instant::now() < deadline, "the guest did not announce itself");
        std::thread::sleep(Duration::from_millis(50));
    }
    guest.expect_traffic()?;
    drop(guest);
    pool::expect_all_free()?;
    pool::expect_all_free_on(Host::Second)
}

/// `ip` in the outside world.
fn neighbours(arguments: &[&str]) -> Result<String> {
    let output = outside::command(&["ip"]).args(arguments).output().context("cannot run ip")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
