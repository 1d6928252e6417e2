//! The accelerated device as the control interface sees it. Translates; decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use npa_abi::Class;
use pf_control::client::ClientError;

use super::core::State;
use super::device::Acceleration;
use super::history::{self, SwitchKind, SwitchRecord};
use super::outcome::{SwitchError, SwitchFailure};
use super::switch::{Phase, SwitchAction};
use crate::api::{
    Accelerated, ApiError, DeviceStatus, ErrorCode, FellBack, Mode, PluginInfo, StepSummary,
    StepTime, SwitchCounts, SwitchReport,
};
use crate::virtio::EmulatedPath;

/// An accelerated device with what the interface shows of its emulated half.
pub struct AcceleratedDevice {
    acceleration: Acceleration,
    path: Arc<dyn EmulatedPath>,
    exits: Arc<AtomicU64>,
}

impl AcceleratedDevice {
    /// `exits` counts the guest's accesses to the device that reached the VMM.
    pub fn new(
        acceleration: Acceleration,
        path: Arc<dyn EmulatedPath>,
        exits: Arc<AtomicU64>,
    ) -> Self {
        Self { acceleration, path, exits }
    }

    fn report(&self, kind: SwitchKind) -> SwitchReport {
        let state = self.acceleration.core.lock();
        // The switch that was just waited for; another may have ended since.
        let record = state.history.records().rev().find(|record| record.kind == kind);
        record.map_or_else(
            || SwitchReport {
                kind: kind.to_string(),
                began_ms: 0,
                total_ms: 0.0,
                steps: Vec::new(),
                failure: None,
            },
            report,
        )
    }
}

impl Accelerated for AcceleratedDevice {
    fn id(&self) -> &str {
        self.acceleration.id()
    }

    fn status(&self) -> DeviceStatus {
        let core = &self.acceleration.core;
        let class = match Class::from_code(core.class) {
            Some(Class::Net) => "net",
            Some(Class::Crypto) => "crypto",
            None => "unknown",
        };
        let mut status = DeviceStatus::emulated(&core.id, class, self.path.counters());
        status.exits = self.exits.load(Ordering::Relaxed);
        fill(&mut status, &core.lock_counted());
        status
    }

    fn marks_writes(&self) -> bool {
        self.acceleration.marks_writes()
    }

    fn log_began(&self) {
        self.acceleration.log_began();
    }

    fn fall_back(&self) -> Result<FellBack, ApiError> {
        self.acceleration.fall_back().map_err(|error| api_error(&error))
    }

    fn take_up(&self) -> Result<bool, ApiError> {
        self.acceleration.take_up().map_err(|error| api_error(&error))
    }

    fn let_be(&self) {
        self.acceleration.let_be();
    }

    fn attach(&self) -> Result<SwitchReport, ApiError> {
        self.acceleration.attach().map_err(|error| api_error(&error))?;
        Ok(self.report(SwitchKind::Attach))
    }

    fn attach_when_free(&self) -> Result<(), ApiError> {
        self.acceleration.attach_when_free().map_err(|error| api_error(&error))
    }

    fn detach(&self) -> Result<SwitchReport, ApiError> {
        self.acceleration.detach().map_err(|error| api_error(&error))?;
        Ok(self.report(SwitchKind::Detach))
    }
}

/// Adds what the switch knows.
fn fill(status: &mut DeviceStatus, state: &State) {
    let phase = state.switch.phase();
    status.mode = match phase {
        Phase::Granted | Phase::Active | Phase::Draining | Phase::Returning => Mode::Vf,
        _ => Mode::Emulated,
    };
    status.state = match phase {
        Phase::Unregistered => phase.name(),
        _ => phase.view().state.name(),
    }
    .to_owned();
    status.plugin = state.plugin.clone().map(|(name, version)| PluginInfo { name, version });
    status.waits_for_vf = state.wants_vf && phase != Phase::Active;
    status.vf = state.vf.map(|vf| vf.to_string());
    status.last_switch = state.history.records().next_back().map(report);
    status.steps = state.history.summary().iter().map(summary).collect();
    let (attach, detach, failed) = state.history.counts();
    status.switches = SwitchCounts { attach, detach, failed };
    // A VF has counters of its own only while one is there, but what was carried stays told.
    status.vf_path = Some(state.vf_traffic.into());
    let pending = "a VF waits until pf-control takes it back; start pf-control";
    status.last_error = match state.release_pending {
        true => Some(pending.to_owned()),
        false => state.last_failure.as_ref().map(ToString::to_string),
    };
}

fn milliseconds(us: u64) -> f64 {
    us as f64 / 1e3
}

fn report(record: &SwitchRecord) -> SwitchReport {
    SwitchReport {
        kind: record.kind.to_string(),
        began_ms: record.began_ms,
        total_ms: milliseconds(record.total_us),
        steps: record
            .steps
            .iter()
            .map(|step| StepTime { name: step.step.to_owned(), ms: milliseconds(step.us) })
            .collect(),
        failure: record.failure.clone(),
    }
}

fn summary(step: &history::StepSummary) -> StepSummary {
    StepSummary {
        kind: step.kind.to_string(),
        name: step.step.to_owned(),
        count: step.count as u64,
        median_ms: milliseconds(step.median_us),
        worst_ms: milliseconds(step.worst_us),
    }
}

fn api_error(error: &SwitchError) -> ApiError {
    let code = match error {
        SwitchError::NotRegistered => ErrorCode::NoShell,
        SwitchError::AlreadyAttached | SwitchError::NotAttached => ErrorCode::WrongState,
        SwitchError::Busy | SwitchError::Reserved | SwitchError::GuestNotClean => ErrorCode::Busy,
        SwitchError::PoolAway(ClientError::TimedOut { .. }) | SwitchError::TimedOut(_) => {
            ErrorCode::Deadline
        }
        SwitchError::PoolAway(_) => ErrorCode::NoVf,
        SwitchError::AttachFailed(failure) | SwitchError::Forced(failure) => failure_code(failure),
    };
    ApiError::from_chain(code, error)
}

fn failure_code(failure: &SwitchFailure) -> ErrorCode {
    match failure {
        SwitchFailure::Deadline { .. } => ErrorCode::Deadline,
        SwitchFailure::Guest { .. } | SwitchFailure::GuestReset => ErrorCode::Guest,
        SwitchFailure::Vf(_) => ErrorCode::NoVf,
        SwitchFailure::Step { action, .. } => match action {
            SwitchAction::Acquire
            | SwitchAction::OpenVf
            | SwitchAction::InitVf
            | SwitchAction::PfInit
            | SwitchAction::PfActivate
            | SwitchAction::PfQuiesce => ErrorCode::NoVf,
            SwitchAction::LoadPlugin => ErrorCode::Plugin,
            _ => ErrorCode::Internal,
        },
    }
}
