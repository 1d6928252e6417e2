//! A VM on a VF is saved, suspended and restored; what cannot be saved or restored is refused, and
//! costs the VM nothing.

use super::Context;
use super::guest::{Guest, GuestOptions};
use super::migration::expect_vf;
use super::pool;
use super::traffic::Traffic;
use crate::up;
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

pub(crate) fn run(context: &Context) -> Result<()> {
    let folder = Path::new("/run/npa/snapshots");
    up::common_folder(folder)?;
    let options = GuestOptions::new(context).named("saved");
    let mut guest = Guest::launch(options.clone())?;
    guest.expect_traffic()?;
    guest.attach()?;
    guest.exec("echo remembered >/tmp/marker")?;
    let boot = guest.exec("cat /proc/sys/kernel/random/boot_id")?;

    // Under traffic, which waits in the stop and is not lost.
    let traffic = Traffic::start(&guest)?;
    let first = folder.join("first");
    let report = guest.ctl_ok(&["snapshot", &first.to_string_lossy()])?;
    ensure!(report.contains("stopped for"), "no report of the snapshot: {report}");
    expect_vf(&guest).context("after a snapshot")?;
    traffic.stop(&guest)?.expect_clean().context("a snapshot under traffic")?;
    let again = guest.ctl_refused(&["snapshot", &first.to_string_lossy()])?;
    ensure!(again.contains("exists already"), "a snapshot over a snapshot: {again}");

    // A disk with no room for it.
    SmallDisk::mount()?.expect_too_small(&guest, "suspend")?;
    expect_vf(&guest).context("after a snapshot that failed")?;
    guest.expect_traffic()?;

    // Suspended and resumed.
    let second = folder.join("second");
    guest.ctl_ok(&["suspend", &second.to_string_lossy()])?;
    ensure!(guest.wait(Duration::from_secs(10))?, "a suspended VM's vmm failed");
    drop(guest);
    pool::expect_all_free()?;
    let mut guest = restored(&options, "resumed", &second, &boot)?;
    expect_vf(&guest).context("after a suspend")?;
    guest.expect_traffic()?;
    // A guest that was restored can do all that it could before.
    guest.detach()?;
    guest.attach()?;
    guest.expect_traffic()?;
    guest.ctl_ok(&["shutdown"])?;
    guest.wait(Duration::from_secs(10))?;
    drop(guest);

    // The older one as well; the guest is back in its past.
    let guest = restored(&options, "older", &first, &boot)?;
    guest.expect_traffic()?;
    drop(guest);

    let mut unlike = options.clone().named("unlike");
    unlike.cpus = 2;
    refused(unlike, &first, "2 vCPUs, not 1")?;
    let state = first.join("state");
    let mut bytes = std::fs::read(&state)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&state, bytes)?;
    refused(options.named("damaged"), &first, "checksum")?;
    pool::expect_all_free()
}

/// Launches a guest from a snapshot and sees that it is the same guest.
fn restored(options: &GuestOptions, name: &str, folder: &Path, boot: &str) -> Result<Guest> {
    let mut options = options.clone().named(name);
    options.extra = vec!["--restore".to_owned(), folder.display().to_string()];
    let guest = Guest::launch(options)?;
    let now = guest.exec("cat /proc/sys/kernel/random/boot_id /tmp/marker")?;
    ensure!(now == format!("{boot}remembered\n"), "another guest than the saved one: {now}");
    Ok(guest)
}

fn refused(mut options: GuestOptions, folder: &Path, why: &str) -> Result<()> {
    options.extra = vec!["--restore".to_owned(), folder.display().to_string()];
    let mut guest = Guest::launch_only(options)?;
    ensure!(!guest.wait(Duration::from_secs(10))?, "a snapshot that does not fit was restored");
    let log = guest.log_tail();
    ensure!(log.contains(why), "`{why}` is not among what vmm says:\n{log}");
    Ok(())
}

/// A disk that has no room for a guest's memory.
pub(super) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(super) fn mount() -> Result<Self> {
        let folder = PathBuf::from("/run/npa/small");
        std::fs::create_dir_all(&folder)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8M", "none"])
            .arg(&folder)
            .status()
            .context("cannot run mount")?;
        ensure!(mounted.success(), "no small disk");
        Ok(Self(folder))
    }

    /// `vmm ctl` with `command` fails for want of room, and leaves nothing. Answers what it says.
    pub(super) fn expect_too_small(&self, guest: &Guest, command: &str) -> Result<String> {
        let text = guest.ctl_refused(&[command, &self.0.join("full").to_string_lossy()])?;
        ensure!(text.to_lowercase().contains("no space left"), "a full disk is told as: {text}");
        ensure!(std::fs::read_dir(&self.0)?.count() == 0, "a partial snapshot is left");
        Ok(text)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
