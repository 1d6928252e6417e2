//! Processes: which one has a file open, whether one still is the one it was.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, pidfd_open, prlimit};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A procfs tree.
#[derive(Debug, Clone)]
pub struct ProcessTable {
    root: PathBuf,
}

impl Default for ProcessTable {
    fn default() -> Self {
        Self::at("/proc")
    }
}

impl ProcessTable {
    /// The tree mounted at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A process that has `file` open. Those that end while we look, and those whose descriptors
    /// we may not see, do not count.
    pub fn holder(&self, file: &Path) -> Option<u32> {
        fs::read_dir(&self.root)
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .find(|pid| self.has_open(*pid, file))
    }

    fn has_open(&self, pid: u32, file: &Path) -> bool {
        let Ok(descriptors) = fs::read_dir(self.root.join(pid.to_string()).join("fd")) else {
            return false;
        };
        descriptors
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .any(|target| target == file)
    }

    /// When a process started, in clock ticks since boot: with its number it names the process
    /// for good (proc_pid_stat(5), field 22).
    pub fn start_time(&self, pid: u32) -> Option<u64> {
        self.stat_field(pid, 22)
    }

    /// Whether a process is on its way out: killed, and closing what it has open, which for a VF
    /// takes as long as its reset (field 9, the kernel's `PF_EXITING`).
    pub fn is_ending(&self, pid: u32) -> bool {
        const PF_EXITING: u64 = 0x4;
        self.stat_field(pid, 9).is_none_or(|flags| flags & PF_EXITING != 0)
    }

    /// A numeric field of proc_pid_stat(5), which counts from 1.
    fn stat_field(&self, pid: u32, field: usize) -> Option<u64> {
        let stat = fs::read_to_string(self.root.join(pid.to_string()).join("stat")).ok()?;
        // The second field, the command's name, may hold spaces and parentheses.
        let (_, fields) = stat.rsplit_once(')')?;
        fields.split_ascii_whitespace().nth(field.checked_sub(3)?)?.parse().ok()
    }
}

/// A descriptor that becomes readable when the process ends; `None` when it has ended.
pub(crate) fn watch(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(pid.try_into().ok()?)?;
    let descriptor = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
    (!has_ended(&descriptor)).then_some(descriptor)
}

/// Locked memory that a VMM may need beside its guest's RAM, in bytes.
const BESIDE_RAM: u64 = 64 << 20;

/// Lets a process lock `memory` bytes and a little more, which is what DMA to guest RAM counts as.
/// Never lowers its limit, and never goes beyond the host's memory.
///
/// # Errors
/// It has ended, or this process may not (`CAP_SYS_RESOURCE`).
pub(crate) fn allow_locked_memory(pid: u32, memory: u64) -> io::Result<()> {
    let host = rustix::system::sysinfo();
    let most = u64::from(host.mem_unit).saturating_mul(host.totalram as u64);
    let wanted = memory.min(most).saturating_add(BESIDE_RAM);
    let pid = pid.try_into().ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    // The kernel has no call that reads alone for another process; its limit file has.
    let present = fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero()))?;
    let limit = |column: usize| {
        let line = present.lines().find_map(|line| line.strip_prefix("Max locked memory"));
        let word = line.and_then(|line| line.split_ascii_whitespace().nth(column));
        // `unlimited` is no number, and more than any.
        word.map_or(Some(0), |word| word.parse().ok())
    };
    let raised = |column| limit(column).map(|limit: u64| limit.max(wanted));
    let (current, maximum) = (raised(0), raised(1));
    prlimit(Some(pid), Resource::Memlock, Rlimit { current, maximum })?;
    Ok(())
}

/// Whether the process behind a descriptor of [`watch`] has ended.
pub(crate) fn has_ended(descriptor: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(descriptor, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio, id};

    #[test]
    fn our_own_open_file_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(ProcessTable::default().holder(file.path()), Some(id()));
        assert_eq!(ProcessTable::default().holder(Path::new("/nowhere")), None);
    }

    #[test]
    fn a_process_is_told_from_its_successor_by_its_start() {
        let table = ProcessTable::default();
        assert!(table.start_time(id()).is_some());
        assert_eq!(table.start_time(u32::MAX), None);
    }

    #[test]
    fn the_end_of_a_process_is_seen() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let watched = watch(child.id()).unwrap();
        assert!(!has_ended(&watched));
        assert!(!ProcessTable::default().is_ending(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ProcessTable::default().is_ending(child.id()));
        assert!(has_ended(&watched));
    }
}
