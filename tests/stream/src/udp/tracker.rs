//! What became of each frame of the incoming stream.

use serde::Serialize;
use std::time::{Duration, Instant};

/// Sequence numbers at or above this are damage, not data: 64 Mi frames, hours of stream.
const SEQUENCE_MAX: u64 = 64 << 20;

/// Most particulars of one kind that are told.
const RUNS_MAX: usize = 32;

/// Follows the incoming sequence.
pub(super) struct Tracker {
    start: Instant,
    seen: Vec<u64>,
    highest: Option<u64>,
    received: u64,
    duplicated: u64,
    reordered: u64,
    late: Vec<(u64, u64)>,
    foreign: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    longest_gap: Duration,
    longest_gap_at: Duration,
    peer_sent: Option<u64>,
    bin: Duration,
    timeline: Vec<u32>,
}

/// The verdict on the incoming stream.
#[derive(Serialize, Debug)]
pub(super) struct Summary {
    /// Frames received, duplicates left out.
    received: u64,
    /// What the peer says that it sent; absent when its FIN never came.
    peer_sent: Option<u64>,
    /// Frames that the peer sent and this end never got. Without the peer's FIN: holes below the
    /// highest number.
    lost: u64,
    /// The first runs of lost frames, as first number and length: with the rate they tell when.
    lost_runs: Vec<(u64, u64)>,
    /// Arrivals of a number already seen.
    duplicated: u64,
    /// First arrivals below a number already seen.
    reordered: u64,
    /// The first of these: number, and how much higher the highest before it was.
    late: Vec<(u64, u64)>,
    /// Datagrams that were not ours or were damaged.
    foreign: u64,
    /// Longest time between two arrivals, in milliseconds.
    longest_gap_ms: f64,
    /// When that gap ended, in seconds from the start.
    longest_gap_at_s: f64,
    /// Width of a timeline bin in milliseconds.
    bin_ms: u64,
    /// Arrivals per bin from the start on.
    timeline: Vec<u32>,
}

impl Tracker {
    pub(super) fn new(bin_ms: u64) -> Self {
        Self {
            start: Instant::now(),
            seen: Vec::new(),
            highest: None,
            received: 0,
            duplicated: 0,
            reordered: 0,
            late: Vec::new(),
            foreign: 0,
            first: None,
            last: None,
            longest_gap: Duration::ZERO,
            longest_gap_at: Duration::ZERO,
            peer_sent: None,
            bin: Duration::from_millis(bin_ms),
            timeline: Vec::new(),
        }
    }

    pub(super) fn data(&mut self, sequence: u64, now: Instant) {
        if sequence >= SEQUENCE_MAX {
            self.foreign += 1;
            return;
        }
        let (word, bit) = ((sequence / 64) as usize, 1u64 << (sequence % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicated += 1;
            return;
        }
        self.seen[word] |= bit;
        self.received += 1;
        match self.highest {
            Some(highest) if sequence < highest => {
                self.reordered += 1;
                if self.late.len() < RUNS_MAX {
                    self.late.push((sequence, highest - sequence));
                }
            }
            _ => self.highest = Some(sequence),
        }
        if let Some(last) = self.last {
            let gap = now.saturating_duration_since(last);
            if gap > self.longest_gap {
                self.longest_gap = gap;
                self.longest_gap_at = now.saturating_duration_since(self.start);
            }
        }
        self.first.get_or_insert(now);
        self.last = Some(now);
        if !self.bin.is_zero() {
            let since = now.saturating_duration_since(self.start);
            let bin = (since.as_nanos() / self.bin.as_nanos()) as usize;
            if bin >= self.timeline.len() {
                self.timeline.resize(bin + 1, 0);
            }
            self.timeline[bin] += 1;
        }
    }

    pub(super) fn finished(&mut self, sent: u64) {
        self.peer_sent = Some(sent);
    }

    pub(super) fn foreign(&mut self) {
        self.foreign += 1;
    }

    fn lost_runs(&self, expected: u64) -> Vec<(u64, u64)> {
        let seen = |sequence: u64| {
            self.seen
                .get((sequence / 64) as usize)
                .is_some_and(|word| word & (1 << (sequence % 64)) != 0)
        };
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for sequence in (0..expected.min(SEQUENCE_MAX)).filter(|sequence| !seen(*sequence)) {
            if let Some((first, length)) = runs.last_mut()
                && *first + *length == sequence
            {
                *length += 1;
            } else if runs.len() < RUNS_MAX {
                runs.push((sequence, 1));
            } else {
                break;
            }
        }
        runs
    }

    pub(super) fn summary(self) -> Summary {
        let expected = self.peer_sent.unwrap_or(self.highest.map_or(0, |highest| highest + 1));
        Summary {
            received: self.received,
            peer_sent: self.peer_sent,
            lost: expected.saturating_sub(self.received),
            lost_runs: self.lost_runs(expected),
            duplicated: self.duplicated,
            reordered: self.reordered,
            late: self.late,
            foreign: self.foreign,
            longest_gap_ms: self.longest_gap.as_secs_f64() * 1e3,
            longest_gap_at_s: self.longest_gap_at.as_secs_f64(),
            bin_ms: self.bin.as_millis() as u64,
            timeline: self.timeline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(sequences: &[u64], fin: Option<u64>) -> Summary {
        let mut tracker = Tracker::new(0);
        for sequence in sequences {
            tracker.data(*sequence, Instant::now());
        }
        if let Some(sent) = fin {
            tracker.finished(sent);
        }
        tracker.summary()
    }

    #[test]
    fn clean_stream() {
        let summary = feed(&[0, 1, 2, 3], Some(4));
        assert_eq!((summary.lost, summary.duplicated, summary.reordered), (0, 0, 0));
    }

    #[test]
    fn loss_at_the_end_counts() {
        assert_eq!(feed(&[0, 1], Some(4)).lost, 2);
        assert_eq!(feed(&[0, 1, 4, 70], Some(72)).lost_runs, [(2, 2), (5, 65), (71, 1)]);
        assert_eq!(feed(&[0, 3], None).lost, 2);
        assert_eq!(feed(&[], Some(3)).lost, 3);
    }

    #[test]
    fn late_arrival_is_reordered_not_lost() {
        let summary = feed(&[0, 2, 1, 3], Some(4));
        assert_eq!((summary.lost, summary.duplicated, summary.reordered), (0, 0, 1));
        assert_eq!(summary.late.len(), 1);
    }

    #[test]
    fn duplicate_is_counted_once_per_copy() {
        let summary = feed(&[0, 1, 1, 1, 2], Some(3));
        assert_eq!((summary.lost, summary.duplicated, summary.reordered), (0, 2, 0));
    }

    #[test]
    fn absurd_number_takes_no_memory() {
        let summary = feed(&[u64::MAX, SEQUENCE_MAX], None);
        assert_eq!((summary.foreign, summary.received), (2, 0));
    }

    #[test]
    fn gap_and_timeline() {
        let mut tracker = Tracker::new(10);
        let start = Instant::now();
        tracker.data(0, start);
        tracker.data(1, start + Duration::from_millis(55));
        let summary = tracker.summary();
        assert!((54.0..56.0).contains(&summary.longest_gap_ms), "{summary:?}");
        assert_eq!(summary.timeline.iter().sum::<u32>(), 2);
        assert!(summary.timeline.len() >= 6);
    }
}
