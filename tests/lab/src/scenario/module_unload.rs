//! `rmmod` of the shell under traffic, emulated and on a VF, is clean and gives the device back to
//! the stock driver; loading it again takes the device again.

use super::Context;
use super::guest::{Guest, GuestOptions};
use super::pool;
use super::traffic::Traffic;
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

pub(crate) fn run(context: &Context) -> Result<()> {
    let mut guest = Guest::launch(GuestOptions::new(context).named("rmmod"))?;
    guest.expect_traffic()?;
    let configure = format!(
        "ip link set eth0 up && (ip addr show eth0 | grep -q 10.77 || ip addr add {}/24 dev eth0)",
        guest.options.address()
    );
    for on_vf in [false, true] {
        if on_vf {
            guest.attach()?;
            let driver = guest.exec("ethtool -i eth0")?;
            ensure!(driver.contains("igbvf"), "ethtool -i does not name the plugin: {driver}");
        }
        let traffic = Traffic::start(&guest)?;
        guest.exec_within("rmmod npa_shell", Duration::from_secs(30)).context("rmmod")?;
        drop(traffic);
        guest.expect_alive()?;
        pool::expect_all_free()?;
        let log = guest.exec("dmesg | grep -E 'BUG|WARNING|Oops|refcount|leak' || true")?;
        ensure!(log.trim().is_empty(), "the guest's kernel complains: {log}");

        guest.exec("killall stream; modprobe virtio_net; sleep 1; true")?;
        guest.exec(&configure).context("the stock driver's interface")?;
        let driver = guest.exec("ethtool -i eth0 | sed -n 's/^driver: //p'")?;
        ensure!(driver.trim() == "virtio_net", "after rmmod the driver is {driver}");
        guest.expect_traffic().context("on the stock driver")?;

        guest
            .exec("insmod /lib/modules/npa_shell.ko 2>/dev/null || modprobe npa_shell; sleep 1")?;
        guest.exec(&configure).context("the shell's interface")?;
        guest.expect_traffic().context("after loading the shell again")?;
    }
    guest.attach()?;
    guest.expect_traffic()?;
    guest.detach()?;
    pool::expect_all_free()
}
