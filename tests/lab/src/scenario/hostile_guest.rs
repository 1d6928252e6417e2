//! A guest that writes rubbish to every NPA register and window offset harms only itself: vmm
//! lives, answers, and the VF is back in the pool.

use super::Context;
use super::guest::{Guest, GuestOptions};
use super::pool;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

pub(crate) fn run(context: &Context) -> Result<()> {
    // With the stock driver, so that the NIC is not the attacker's victim: it must work all along.
    let mut options = GuestOptions::new(context).named("hostile");
    options.shell = false;
    let mut guest = Guest::launch(options)?;
    guest.exec("hostile --duration 5 --seed 1")?;
    guest.expect_alive()?;
    guest.expect_traffic()?;
    // Attaches in the middle of an attack may fail in any way but must come back.
    guest.exec("(hostile --duration 12 --seed 2 >/tmp/hostile.json 2>&1) </dev/null &")?;
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        let start = Instant::now();
        guest.ctl(&["attach", "net0"])?;
        ensure!(start.elapsed() < Duration::from_secs(10), "attach took {:?}", start.elapsed());
        guest.status()?;
        guest.ctl(&["detach", "net0"])?;
        guest.expect_alive()?;
    }
    std::thread::sleep(Duration::from_secs(6));
    guest.expect_alive()?;
    guest.ctl(&["detach", "net0"])?;
    guest.expect_traffic()?;

    // The same with the shell loaded: it may lose its VF, not the hypervisor.
    drop(guest);
    pool::expect_all_free()?;
    let mut options = GuestOptions::new(context).named("hostile-shell");
    // Else Debian's kernel keeps a BAR that a driver holds from its own root user.
    options.cmdline = "iomem=relaxed".to_owned();
    let mut guest = Guest::launch(options)?;
    guest.attach()?;
    guest.exec("hostile --duration 4 --seed 3 --registers-only")?;
    guest.expect_alive()?;
    guest.status()?;
    guest.ctl(&["detach", "net0"])?;
    guest.expect_alive()?;
    drop(guest);
    pool::expect_all_free()
}
