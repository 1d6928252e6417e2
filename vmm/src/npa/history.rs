//! How long each step of the last switches took. Keeps numbers only.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, SystemTime};

/// How many switches are remembered.
pub const HISTORY_LENGTH: usize = 128;

/// What a switch was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchKind {
    /// To the VF.
    Attach,
    /// Back, with the guest's help.
    Detach,
    /// Back, without.
    Revoke,
}

impl fmt::Display for SwitchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::Revoke => "revoke",
        })
    }
}

/// A step and how long it took.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// An action of the host (`pf-activate`) or a half of the guest (`guest-load`).
    pub step: &'static str,
    /// Microseconds.
    pub us: u64,
}

/// One switch.
#[derive(Clone, Debug, PartialEq)]
pub struct SwitchRecord {
    /// What for.
    pub kind: SwitchKind,
    /// Which offer it was about; for an attach that failed before its offer, the one before.
    pub generation: u32,
    /// When it began, in milliseconds since 1970.
    pub began_ms: u64,
    /// How long all of it took, in microseconds.
    pub total_us: u64,
    /// Its steps, in the order in which they ended.
    pub steps: Vec<StepTime>,
    /// Why it did not end where it should, if it did not.
    pub failure: Option<String>,
}

/// Median and worst of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSummary {
    /// What kind of switch.
    pub kind: SwitchKind,
    /// The step, or `total`.
    pub step: &'static str,
    /// How often it was done.
    pub count: usize,
    /// Median in microseconds.
    pub median_us: u64,
    /// Longest in microseconds.
    pub worst_us: u64,
}

/// The last switches of one device, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    records: VecDeque<SwitchRecord>,
    open: Option<SwitchRecord>,
    attaches: u64,
    detaches: u64,
    revokes: u64,
}

/// Name of a whole switch among the steps.
const TOTAL: &str = "total";

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

impl History {
    /// A switch begins.
    pub fn begin(&mut self, kind: SwitchKind, generation: u32) {
        let began_ms = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX));
        let steps = Vec::new();
        self.open =
            Some(SwitchRecord { kind, generation, began_ms, total_us: 0, steps, failure: None });
    }

    /// A step of it ended.
    pub fn step(&mut self, step: &'static str, took: Duration) {
        if let Some(open) = &mut self.open {
            open.steps.push(StepTime { step, us: micros(took) });
        }
    }

    /// It is about this offer.
    pub fn offered(&mut self, generation: u32) {
        if let Some(open) = &mut self.open {
            open.generation = generation;
        }
    }

    /// The switch ended, after `took` altogether.
    pub fn end(&mut self, took: Duration, failure: Option<String>) {
        let Some(mut record) = self.open.take() else { return };
        record.total_us = micros(took);
        record.failure = failure;
        match record.kind {
            _ if record.failure.is_some() => self.revokes += 1,
            SwitchKind::Attach => self.attaches += 1,
            SwitchKind::Detach => self.detaches += 1,
            SwitchKind::Revoke => self.revokes += 1,
        }
        if self.records.len() == HISTORY_LENGTH {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    /// The remembered switches, oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &SwitchRecord> {
        self.records.iter()
    }

    /// Switches since the start: to a VF, back from one, and those that failed or were forced.
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.attaches, self.detaches, self.revokes)
    }

    /// Median and worst of each step of the remembered switches that went well.
    pub fn summary(&self) -> Vec<StepSummary> {
        let mut times: Vec<((SwitchKind, &'static str), Vec<u64>)> = Vec::new();
        let mut add = |key, us| match times.iter_mut().find(|(known, _)| *known == key) {
            Some((_, list)) => list.push(us),
            None => times.push((key, vec![us])),
        };
        for record in self.records.iter().filter(|record| record.failure.is_none()) {
            for step in &record.steps {
                add((record.kind, step.step), step.us);
            }
            add((record.kind, TOTAL), record.total_us);
        }
        times
            .into_iter()
            .map(|((kind, step), mut list)| {
                list.sort_unstable();
                let median_us = list[list.len() / 2];
                let worst_us = list[list.len() - 1];
                StepSummary { kind, step, count: list.len(), median_us, worst_us }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch(history: &mut History, kind: SwitchKind, us: u64, failure: Option<&str>) {
        history.begin(kind, 1);
        history.step("acquire", Duration::from_micros(us));
        history.end(Duration::from_micros(us + 1), failure.map(str::to_owned));
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let mut history = History::default();
        for us in 0..200 {
            switch(&mut history, SwitchKind::Attach, us, None);
        }
        assert_eq!(history.records().count(), HISTORY_LENGTH);
        assert_eq!(history.records().next().unwrap().total_us, 73);
        assert_eq!(history.counts(), (200, 0, 0));
    }

    #[test]
    fn failed_switches_do_not_count_as_times() {
        let mut history = History::default();
        for us in [3, 1, 2] {
            switch(&mut history, SwitchKind::Detach, us, None);
        }
        switch(&mut history, SwitchKind::Detach, 1000, Some("deadline"));
        let summary = history.summary();
        assert_eq!(summary.len(), 2);
        assert_eq!((summary[0].step, summary[0].median_us, summary[0].worst_us), ("acquire", 2, 3));
        assert_eq!((summary[1].step, summary[1].count), ("total", 3));
        assert_eq!(history.counts(), (0, 3, 1));
    }

    #[test]
    fn steps_outside_a_switch_are_dropped() {
        let mut history = History::default();
        history.step("notify", Duration::ZERO);
        history.end(Duration::ZERO, None);
        assert!(history.summary().is_empty());
    }
}
