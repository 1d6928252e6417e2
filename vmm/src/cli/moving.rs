//! Moving and saving the VM behind the control interface: one at a time, watched and cancelled by
//! other requests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::api::{ApiError, ErrorCode, MigrateRequest, MigrationView, SnapshotRequest};
use crate::migration::transport::Identity;
use crate::migration::{
    MigrateOptions, MigrationError, MovingDevice, Policy, Progress, Report, migrate, snapshot,
};
use crate::vm::Vm;

/// How long the process stays after its VM has gone, so that whoever asked for it hears of it.
const FAREWELL: Duration = Duration::from_millis(300);

/// What moves and saves a VM.
pub(super) struct Mover {
    vm: Arc<Vm>,
    devices: Vec<MovingDevice>,
    identity: Option<Identity>,
    progress: Progress,
}

impl Mover {
    pub(super) fn new(vm: Arc<Vm>, devices: Vec<MovingDevice>, identity: Option<Identity>) -> Self {
        Self { vm, devices, identity, progress: Progress::default() }
    }

    pub(super) fn devices(&self) -> &[MovingDevice] {
        &self.devices
    }

    /// Whether the VM is being moved or saved.
    pub(super) fn is_busy(&self) -> bool {
        self.progress.is_busy()
    }

    pub(super) fn migrate(&self, request: MigrateRequest) -> Result<Report, ApiError> {
        let to = request.to.parse().map_err(|error| {
            ApiError::from_chain(ErrorCode::BadRequest, &error as &dyn std::error::Error)
        });
        let defaults = Policy::default();
        let options = MigrateOptions {
            to: to?,
            identity: self.identity.clone(),
            policy: Policy {
                downtime_target: request
                    .downtime_target_ms
                    .map_or(defaults.downtime_target, Duration::from_millis),
                timeout: request.timeout_s.map_or(defaults.timeout, Duration::from_secs),
                on_timeout: request.on_timeout.unwrap_or_default(),
                throttle: request.throttle,
            },
            fallback: request.fallback.unwrap_or_default(),
            bandwidth: request.bandwidth,
            verify: request.verify,
        };
        let report = migrate(&self.vm, &self.devices, &options, &self.progress);
        let report = report.map_err(|error| api_error(&error))?;
        self.leave();
        Ok(report)
    }

    pub(super) fn snapshot(&self, request: SnapshotRequest) -> Result<Report, ApiError> {
        let folder = PathBuf::from(request.folder);
        let ends = request.end;
        let report = snapshot::save(&self.vm, &self.devices, &folder, ends, &self.progress);
        let report = report.map_err(|error| api_error(&error))?;
        if ends {
            self.leave();
        }
        Ok(report)
    }

    pub(super) fn cancel(&self) -> Result<(), ApiError> {
        self.progress.cancel().map_err(|error| api_error(&error))
    }

    pub(super) fn view(&self) -> MigrationView {
        let (last, last_error) = match self.progress.last() {
            Some(Ok(report)) => (Some(report), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        let progress = self.progress.is_busy().then(|| self.progress.view());
        MigrationView { progress, last, last_error }
    }

    /// Ends the VM here, once the answer has had its time to go out.
    fn leave(&self) {
        let vm = Arc::clone(&self.vm);
        let farewell = move || {
            std::thread::sleep(FAREWELL);
            vm.hand_over();
        };
        if std::thread::Builder::new().name("farewell".to_owned()).spawn(farewell).is_err() {
            self.vm.hand_over();
        }
    }
}

fn api_error(error: &MigrationError) -> ApiError {
    let code = match error {
        MigrationError::Connect { .. }
        | MigrationError::Listen { .. }
        | MigrationError::Channel { .. }
        | MigrationError::Peer(_)
        | MigrationError::Unexpected { .. } => ErrorCode::Peer,
        MigrationError::Unfit(_) | MigrationError::MemoryDiffers { .. } => ErrorCode::Unfit,
        MigrationError::Cancelled => ErrorCode::Cancelled,
        MigrationError::Busy => ErrorCode::Busy,
        MigrationError::NothingToCancel => ErrorCode::WrongState,
        MigrationError::Exists(_) | MigrationError::Forbidden(_) => ErrorCode::BadRequest,
        MigrationError::NotConverging { .. } | MigrationError::TooSlow { .. } => {
            ErrorCode::Deadline
        }
        MigrationError::Fallback { source, .. } => source.code,
        MigrationError::InDoubt => ErrorCode::InDoubt,
        _ => ErrorCode::Internal,
    };
    ApiError::from_chain(code, error)
}
