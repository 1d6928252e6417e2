//! How far a move is, for whoever watches, and what it was like, for whoever asks afterwards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::MigrationError;

/// One pass over memory while the guest ran.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RoundReport {
    /// Milliseconds that it took.
    pub ms: f64,
    /// Pages with content that were copied.
    pub pages: u64,
    /// Pages of zeroes, which cost next to nothing.
    pub zero_pages: u64,
    /// Pages written meanwhile.
    pub dirty_pages: u64,
}

/// The stop, split by its steps, all in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StopReport {
    /// Holding vCPUs and devices.
    pub hold_ms: f64,
    /// Copying the last pages.
    pub memory_ms: f64,
    /// Comparing memory at both ends, where that was asked for.
    pub verify_ms: f64,
    /// Saving the state and sending it.
    pub state_ms: f64,
    /// Waiting until the other end has it in place.
    pub restore_ms: f64,
    /// From *go* until the VM ran there.
    pub start_ms: f64,
}

/// What a move, or a snapshot, was like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Where to.
    pub to: String,
    /// Milliseconds from the request to the end of the stop.
    pub total_ms: f64,
    /// Milliseconds that devices which had a VF worked without it before the stop.
    pub brownout_ms: f64,
    /// Milliseconds that memory was copied while the guest ran.
    pub precopy_ms: f64,
    /// Milliseconds that the VM ran nowhere.
    pub downtime_ms: f64,
    /// The same, by step.
    pub stop: StopReport,
    /// Passes over memory.
    pub rounds: Vec<RoundReport>,
    /// Pages copied in the stop.
    pub last_pages: u64,
    /// Bytes that were sent or written.
    pub bytes: u64,
    /// Frames that came to this end in and after the stop, and were handed over.
    pub handed_over: u64,
    /// Frames for the VM that both ends know to be lost, from the beginning of the move to the end of the
    /// hand-over: there was no room for them. Absent where a host does not count them, and of a snapshot.
    pub frames_lost: Option<u64>,
    /// Whether memory was compared, and was equal.
    pub verified: bool,
}

/// How far a move is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProgressView {
    /// What is being done; empty when nothing is.
    pub phase: String,
    /// Where to.
    pub to: String,
    /// The pass over memory, from 1.
    pub round: u32,
    /// Bytes of this pass.
    pub round_bytes: u64,
    /// Bytes of this pass that are dealt with.
    pub done_bytes: u64,
    /// Bytes per second that were carried in all passes; 0 before there is a figure.
    pub bytes_per_s: u64,
    /// Milliseconds until the stop, if the guest writes no more; absent before there is a figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_ms: Option<u64>,
    /// Milliseconds since it began.
    pub elapsed_ms: u64,
}

/// Shared by whoever moves a VM and whoever watches or cancels.
#[derive(Default)]
pub struct Progress {
    view: Mutex<(ProgressView, Option<Instant>)>,
    last: Mutex<Option<Result<Report, String>>>,
    cancelled: AtomicBool,
    can_cancel: AtomicBool,
}

impl Progress {
    // A panic while one of these is held leaves plain data, valid as it is.
    fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it is now.
    pub fn view(&self) -> ProgressView {
        let guard = Self::locked(&self.view);
        let (view, began) = &*guard;
        let elapsed = began.map_or(Duration::ZERO, |began| began.elapsed());
        ProgressView { elapsed_ms: elapsed.as_millis() as u64, ..view.clone() }
    }

    /// How the last one ended, if there was one.
    pub fn last(&self) -> Option<Result<Report, String>> {
        Self::locked(&self.last).clone()
    }

    /// Begins one; there can be one at a time.
    ///
    /// # Errors
    /// [`MigrationError::Busy`].
    pub(super) fn begin(&self, to: String) -> Result<(), MigrationError> {
        let mut guard = Self::locked(&self.view);
        if guard.1.is_some() {
            return Err(MigrationError::Busy);
        }
        *guard = (ProgressView { to, ..ProgressView::default() }, Some(Instant::now()));
        self.cancelled.store(false, Ordering::Release);
        self.can_cancel.store(true, Ordering::Release);
        Ok(())
    }

    /// Ends it.
    pub(super) fn end(&self, outcome: &Result<Report, MigrationError>) {
        *Self::locked(&self.last) = Some(match outcome {
            Ok(report) => Ok(report.clone()),
            Err(error) => Err(crate::api::chain(error)),
        });
        *Self::locked(&self.view) = (ProgressView::default(), None);
    }

    /// Whether one is under way.
    pub fn is_busy(&self) -> bool {
        Self::locked(&self.view).1.is_some()
    }

    pub(super) fn phase(&self, name: &str, can_cancel: bool) {
        self.can_cancel.store(can_cancel, Ordering::Release);
        Self::locked(&self.view).0.phase = name.to_owned();
    }

    pub(super) fn round(&self, round: u32, bytes: u64, rate: Option<f64>) {
        let view = &mut Self::locked(&self.view).0;
        view.round = round;
        view.round_bytes = bytes;
        view.done_bytes = 0;
        view.bytes_per_s = rate.unwrap_or(0.0) as u64;
    }

    pub(super) fn done(&self, bytes: u64, rate: f64) {
        let view = &mut Self::locked(&self.view).0;
        view.done_bytes += bytes;
        if rate > 0.0 {
            let left = view.round_bytes.saturating_sub(view.done_bytes);
            view.bytes_per_s = rate as u64;
            view.eta_ms = Some((left as f64 / rate * 1e3) as u64);
        }
    }

    /// Asks for the end; takes effect at the next page.
    ///
    /// # Errors
    /// [`MigrationError::NothingToCancel`] when nothing is under way, or it is too late.
    pub fn cancel(&self) -> Result<(), MigrationError> {
        if !self.is_busy() || !self.can_cancel.load(Ordering::Acquire) {
            return Err(MigrationError::NothingToCancel);
        }
        self.cancelled.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), MigrationError> {
        match self.cancelled.load(Ordering::Acquire) {
            true => Err(MigrationError::Cancelled),
            false => Ok(()),
        }
    }
}

/// Milliseconds.
pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
