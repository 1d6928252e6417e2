//! Waiting until a card's driver has taken in what the card had received: what it holds for an
//! address must have gone through the switch before that address's entry moves.
//!
//! A card gives no sign of that. What is sure is this: its driver works in softirqs, on the CPUs
//! that take its interrupts, before those CPUs go on with ordinary threads. So this visits them with
//! one. A CPU that is late, because the host itself is overcommitted or virtual, makes the visit
//! late as well, where a fixed wait would be over too early.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

/// How long a card may hold an interrupt back; twice the longest interval of the drivers in use.
const MODERATION: Duration = Duration::from_millis(2);
/// Visits to each CPU: the second finds what the first left to a kernel thread.
const VISITS: u32 = 3;
/// Pause between visits.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until the driver of `interface` has passed on what it had received before the call.
pub(super) fn settle(interface: &str) {
    let cpus = interrupt_cpus(Path::new("/"), interface);
    thread::sleep(MODERATION);
    for _ in 0..VISITS {
        for &cpu in &cpus {
            visit(cpu);
        }
        thread::sleep(PAUSE);
    }
}

/// Runs a thread on `cpu`. A CPU that is gone has nothing to visit.
fn visit(cpu: usize) {
    let visitor = thread::spawn(move || {
        let mut set = CpuSet::new();
        if cpu < CpuSet::MAX_CPU {
            set.set(cpu);
            // Returns on that CPU.
            sched_setaffinity(None, &set).ok();
        }
    });
    visitor.join().ok();
}

/// The CPUs that the interrupts of `interface` go to, by the files below `root`.
fn interrupt_cpus(root: &Path, interface: &str) -> Vec<usize> {
    let folder = root.join("sys/class/net").join(interface).join("device/msi_irqs");
    let mut cpus: Vec<usize> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let irq = root.join("proc/irq").join(entry.file_name());
            fs::read_to_string(irq.join("effective_affinity_list")).ok()
        })
        .flat_map(|list| parse_list(&list))
        .collect();
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

/// A kernel list of CPUs, as `0-2,5`.
fn parse_list(list: &str) -> Vec<usize> {
    list.trim()
        .split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
        })
        .flat_map(|range| range.take(CpuSet::MAX_CPU))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(parse_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse_list("3"), [3]);
        assert!(parse_list("").is_empty() && parse_list("x-1,-").is_empty());
        assert!(parse_list("0-18446744073709551615").len() <= CpuSet::MAX_CPU);
    }

    #[test]
    fn the_cpus_of_a_card_s_interrupts() {
        let root = tempfile::tempdir().unwrap();
        for (irq, cpus) in [("24", "1"), ("25", "0"), ("26", "1")] {
            let folder = root.path().join("sys/class/net/eth0/device/msi_irqs");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(irq), "msix").unwrap();
            let irq = root.path().join("proc/irq").join(irq);
            fs::create_dir_all(&irq).unwrap();
            fs::write(irq.join("effective_affinity_list"), cpus).unwrap();
        }
        assert_eq!(interrupt_cpus(root.path(), "eth0"), [0, 1]);
        assert!(interrupt_cpus(root.path(), "eth1").is_empty());
    }

    #[test]
    fn visits_end_also_on_cpus_that_are_not_there() {
        visit(0);
        visit(CpuSet::MAX_CPU - 1);
        visit(usize::MAX);
    }
}
