//! What the hosts hold while no VM runs: open files and memory of the pf-controls, processes, taps,
//! memory of the lab host. Taken before and after, it shows what leaks.

use super::host::Host;
use super::pool;
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::fs;
use std::path::Path;

/// Memory that a daemon's allocator may keep, in KiB.
const DAEMON_SLACK: u64 = 2 << 10;
/// Memory that the lab host's kernel and its files in RAM may keep (logs, slabs), in KiB.
const HOST_SLACK: u64 = 64 << 10;

/// Of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Daemon {
    open_files: usize,
    resident_kib: u64,
    taps: Vec<String>,
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Footprint {
    first: Daemon,
    second: Daemon,
    vmms: usize,
    available_kib: u64,
}

impl Footprint {
    /// Of now. What the page cache holds counts as available.
    pub(super) fn take() -> Result<Self> {
        rustix::fs::sync();
        Ok(Self {
            first: daemon(Host::First)?,
            second: daemon(Host::Second)?,
            vmms: vmms()?,
            available_kib: field(Path::new("/proc/meminfo"), "MemAvailable:")?,
        })
    }

    /// What is there now and was not in `self`, in words; empty if nothing is.
    pub(super) fn leaks(&self, now: &Self) -> Vec<String> {
        let mut leaks = Vec::new();
        for (host, was, is) in
            [("first", &self.first, &now.first), ("second", &self.second, &now.second)]
        {
            if is.open_files > was.open_files {
                let (was, is) = (was.open_files, is.open_files);
                leaks.push(format!("pf-control of the {host} host: {was} open files became {is}"));
            }
            if is.resident_kib > was.resident_kib + DAEMON_SLACK {
                let (was, is) = (was.resident_kib, is.resident_kib);
                leaks.push(format!("pf-control of the {host} host: {was} KiB became {is}"));
            }
            if is.taps != was.taps {
                leaks.push(format!("the {host} host: {:?} became {:?}", was.taps, is.taps));
            }
        }
        if now.vmms > self.vmms {
            leaks.push(format!("{} vmm processes are left", now.vmms - self.vmms));
        }
        if now.available_kib + HOST_SLACK < self.available_kib {
            let lost = self.available_kib - now.available_kib;
            leaks.push(format!("{lost} KiB of the lab host's memory"));
        }
        leaks
    }
}

fn daemon(host: Host) -> Result<Daemon> {
    let pid = pool::daemon(&host.pf_control())?;
    let process = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    let files = fs::read_dir(process.join("fd")).context("cannot count open files")?;
    let links = host
        .command("ls")
        .arg("/sys/class/net")
        .output()
        .context("cannot list network interfaces")?;
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    let taps = links.split_whitespace().filter(|name| name.starts_with("tap"));
    Ok(Daemon {
        open_files: files.count(),
        resident_kib: field(&process.join("status"), "VmRSS:")?,
        taps: taps.map(str::to_owned).collect(),
    })
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
        let daemon = Daemon { open_files: 9, resident_kib: 5_000, taps: vec!["tap0".to_owned()] };
        let before =
            Footprint { first: daemon.clone(), second: daemon, vmms: 0, available_kib: 3_000_000 };
        let mut after = before.clone();
        assert!(before.leaks(&after).is_empty());
        after.first.resident_kib += DAEMON_SLACK;
        after.available_kib -= HOST_SLACK;
        assert!(before.leaks(&after).is_empty());
        after.first.resident_kib += 1;
        after.available_kib -= 1;
        after.second.open_files += 1;
        after.second.taps.clear();
        after.vmms = 1;
        assert_eq!(before.leaks(&after).len(), 5, "{:?}", before.leaks(&after));
    }
}
