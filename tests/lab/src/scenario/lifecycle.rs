//! A guest's life: SMP, disk, entropy, pause and resume, reboot, poweroff.

use super::Context;
use super::guest::{Guest, GuestOptions};
use super::pool;
use anyhow::{Context as _, Result, ensure};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(crate) fn run(context: &Context) -> Result<()> {
    let disk = PathBuf::from("/run/npa/disk.raw");
    std::fs::write(&disk, vec![0x5a; 8 << 20])?;
    // VMs are of another user.
    std::fs::set_permissions(&disk, PermissionsExt::from_mode(0o666))?;
    let mut options = GuestOptions::new(context).named("lifecycle");
    options.cpus = 2;
    options.disks.push(disk.clone());
    let mut guest = Guest::launch(options)?;

    let cpus = guest.exec("nproc")?;
    ensure!(cpus.trim() == "2", "the guest sees {cpus} CPUs");
    guest.exec(
        "modprobe virtio_blk; sleep 0.5; dd if=/dev/vda bs=1M count=8 | cmp -n 8388608 - /dev/vda",
    )?;
    guest.exec("printf changed | dd of=/dev/vda bs=512 seek=3 conv=fsync")?;
    let written = std::fs::read(&disk)?;
    ensure!(&written[1536..1543] == b"changed", "the guest's write is not in the disk image");
    guest.exec("modprobe virtio_rng; dd if=/dev/hwrng of=/dev/null bs=64 count=4")?;

    guest.ctl_ok(&["pause"])?;
    ensure!(
        guest.try_exec("true", Duration::from_secs(3))?.status.code() != Some(0),
        "a paused guest answers"
    );
    guest.ctl_ok(&["resume"])?;
    guest.expect_traffic()?;
    let metrics = guest.ctl_ok(&["metrics"])?;
    ensure!(metrics.contains("# TYPE"), "metrics are not Prometheus text: {metrics}");

    // A reboot on the VF: the VF goes back, the guest comes up emulated.
    guest.attach()?;
    let boot = guest.exec("cat /proc/sys/kernel/random/boot_id")?;
    guest
        .try_exec("(sleep 0.5; reboot -f) </dev/null >/dev/null 2>&1 &", Duration::from_secs(10))?;
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        std::thread::sleep(Duration::from_secs(2));
        guest.expect_alive().context("reboot")?;
        let now = guest.exec_within("cat /proc/sys/kernel/random/boot_id", Duration::from_secs(20));
        if now.is_ok_and(|now| now != boot) {
            break;
        }
        ensure!(Instant::now() < deadline, "the guest did not come up again");
    }
    pool::expect_all_free()?;
    guest.expect_traffic().context("after the reboot")?;
    guest.attach().context("attach after the reboot")?;
    guest.expect_traffic()?;

    // Poweroff on the VF ends vmm with success.
    guest.try_exec(
        "(sleep 0.5; poweroff -f) </dev/null >/dev/null 2>&1 &",
        Duration::from_secs(10),
    )?;
    let clean = guest.wait(Duration::from_secs(60)).context("poweroff")?;
    ensure!(clean, "vmm ended with an error on poweroff:\n{}", guest.log_tail());
    pool::expect_all_free()
}
