//! The statistics that `ethtool -S` shows: names and values in one order.

use shell_core::net::{PathStats, Stats};

use crate::switch_times::SwitchTimes;

/// Name of one statistic and where its value is.
type Entry = (&'static str, fn(&Stats, &SwitchTimes) -> u64);

macro_rules! path_entries {
    ($path:ident, $($field:ident),*) => {
        [$((concat!(stringify!($path), "_", stringify!($field)), {
            |stats, _| { let path: &PathStats = &stats.$path; path.$field }
        })),*]
    };
}

const EMULATED: [Entry; 6] =
    path_entries!(emulated, rx_frames, rx_bytes, rx_errors, tx_frames, tx_bytes, tx_bursts);

const VF: [Entry; 6] =
    path_entries!(vf, rx_frames, rx_bytes, rx_errors, tx_frames, tx_bytes, tx_bursts);

const SHELL: [Entry; 15] = [
    ("rx_group_duplicates", |stats, _| stats.rx_group_duplicates),
    ("rx_own_echoes", |stats, _| stats.rx_own_echoes),
    ("rx_closed", |stats, _| stats.rx_closed),
    ("rx_no_buffer", |stats, _| stats.rx_no_buffer),
    ("tx_resubmitted", |stats, _| stats.tx_resubmitted),
    ("tx_given_up", |stats, _| stats.tx_given_up),
    ("tx_stops", |stats, _| stats.tx_stops),
    ("announcements", |stats, _| stats.announcements),
    ("polls", |stats, _| stats.polls),
    ("switches_to_vf", |stats, _| stats.switches_to_vf),
    ("switches_back", |stats, _| stats.switches_back),
    ("revokes", |stats, _| stats.revokes),
    ("plugin_faults", |stats, _| stats.plugin_faults),
    ("last_attach_us", |_, times| times.last_attach_us()),
    ("last_detach_us", |_, times| times.last_detach_us()),
];

/// Number of statistics.
pub const COUNT: usize = EMULATED.len() + VF.len() + SHELL.len();

fn entries() -> impl Iterator<Item = &'static Entry> {
    EMULATED.iter().chain(&VF).chain(&SHELL)
}

/// Name of statistic `index`, at most 31 bytes; empty if there is none.
pub fn name(index: usize) -> &'static str {
    entries().nth(index).map_or("", |entry| entry.0)
}

/// Writes the values, in the order of the names, as far as `values` goes.
pub fn write(stats: &Stats, times: &SwitchTimes, values: &mut [u64]) {
    for (value, (_, read)) in values.iter_mut().zip(entries()) {
        *value = read(stats, times);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_distinct_and_fit_ethtool() {
        let names: BTreeSet<&str> = (0..COUNT).map(name).collect();
        assert_eq!(names.len(), COUNT);
        assert!(names.iter().all(|name| !name.is_empty() && name.len() < 32));
        assert_eq!(name(COUNT), "");
    }

    #[test]
    fn values_stand_where_their_names_do() {
        let mut stats = Stats::default();
        stats.vf.tx_frames = 7;
        stats.revokes = 3;
        let mut values = [0; COUNT];
        write(&stats, &SwitchTimes::default(), &mut values);
        let at = |wanted: &str| (0..COUNT).find(|&index| name(index) == wanted).map(|i| values[i]);
        assert_eq!(at("vf_tx_frames"), Some(7));
        assert_eq!(at("revokes"), Some(3));
        assert_eq!(values.iter().filter(|value| **value != 0).count(), 2);
    }
}
