//! A guest without the shell works with its stock driver, and attach says why it cannot be.

use super::Context;
use super::guest::{Guest, GuestOptions};
use super::pool;
use anyhow::{Result, ensure};

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
    pool::expect_all_free()
}
