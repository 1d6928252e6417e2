//! What hosts hold while no VM runs: open files and memory of the pf-controls, processes, taps,
//! memory. Taken before and after, it shows what leaks.

use super::host::Host;
use super::pool;
use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Memory that a daemon's allocator may keep, in KiB.
const DAEMON_SLACK: u64 = 2 << 10;
/// Memory that a host's kernel and its files in RAM may keep (logs, slabs), in KiB.
const HOST_SLACK: u64 = 64 << 10;

/// Of one host. Processes and memory are those of its machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Footprint {
    /// pf-control's.
    open_files: usize,
    /// pf-control's.
    resident_kib: u64,
    taps: Vec<String>,
    vmms: usize,
    /// What the page cache holds counts as available.
    available_kib: u64,
}

impl Footprint {
    /// Of `host` now.
    pub(super) fn of(host: Host) -> Result<Self> {
        let output = host
            .command("lab")
            .arg("footprint")
            .arg(host.pf_control())
            .output()
            .context("cannot run lab footprint")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "no footprint of {host:?}: {}", said.trim());
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Of the host that this runs on, whose pf-control listens at `socket`.
    fn here(socket: &Path) -> Result<Self> {
        rustix::fs::sync();
        let pid = pool::daemon(socket)?;
        let process = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
        let files = fs::read_dir(process.join("fd")).context("cannot count open files")?;
        let links = fs::read_dir("/sys/class/net").context("cannot list network interfaces")?;
        let links = links.filter_map(|link| link.ok()?.file_name().into_string().ok());
        let mut taps: Vec<_> = links.filter(|name| name.starts_with("tap")).collect();
        taps.sort();
        Ok(Self {
            open_files: files.count(),
            resident_kib: field(&process.join("status"), "VmRSS:")?,
            taps,
            vmms: vmms()?,
            available_kib: field(Path::new("/proc/meminfo"), "MemAvailable:")?,
        })
    }

    /// What is there now and was not in `self`, in words; empty if nothing is.
    pub(super) fn leaks(&self, now: &Self) -> Vec<String> {
        let mut leaks = Vec::new();
        let mut grew = |what: &str, was: u64, is: u64, slack: u64| {
            if is > was + slack {
                leaks.push(format!("{what}: {was} became {is}"));
            }
        };
        grew("open files of pf-control", self.open_files as u64, now.open_files as u64, 0);
        grew("KiB of pf-control", self.resident_kib, now.resident_kib, DAEMON_SLACK);
        grew("vmm processes", self.vmms as u64, now.vmms as u64, 0);
        let lost = self.available_kib.saturating_sub(now.available_kib);
        grew("KiB of memory less", 0, lost, HOST_SLACK);
        if now.taps != self.taps {
            leaks.push(format!("taps: {:?} became {:?}", self.taps, now.taps));
        }
        leaks
    }
}

/// Prints the footprint of the host that this runs on.
pub(super) fn print(socket: &Path) -> Result<()> {
    println!("{}", serde_json::to_string(&Footprint::here(socket)?)?);
    Ok(())
}

/// How many programs of ours run VMs.
fn vmms() -> Result<usize> {
    let is_vmm =
        |path: &Path| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "vmm");
    let entries = fs::read_dir("/proc")?.filter_map(Result::ok);
    Ok(entries.filter(|entry| is_vmm(&entry.path())).count())
}

/// A figure of a file in `/proc`, in KiB.
fn field(path: &Path, name: &str) -> Result<u64> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    number.with_context(|| format!("no {name} in {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grew_beyond_its_slack_leaks() {
        let before = Footprint {
            open_files: 9,
            resident_kib: 5_000,
            taps: vec!["tap0".to_owned()],
            vmms: 0,
            available_kib: 3_000_000,
        };
        let mut after = before.clone();
        assert!(before.leaks(&after).is_empty());
        after.resident_kib += DAEMON_SLACK;
        after.available_kib -= HOST_SLACK;
        assert!(before.leaks(&after).is_empty());
        after.resident_kib += 1;
        after.available_kib -= 1;
        after.open_files += 1;
        after.taps.clear();
        after.vmms = 1;
        assert_eq!(before.leaks(&after).len(), 5, "{:?}", before.leaks(&after));
    }
}
