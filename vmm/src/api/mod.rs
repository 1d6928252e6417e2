//! The control interface of one VM: HTTP with JSON on a Unix socket, described by
//! `vmm/openapi.json`. Sees the VM and its devices through the traits here; knows no device class
//! and holds no state of its own.

mod client;
mod error;
mod handlers;
mod listener;
mod moving;
mod server;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::migration::Report;

pub use client::{Client, ClientError};
pub use error::{ApiError, ErrorCode, chain};
pub use handlers::openapi_json;
pub use moving::{MigrateRequest, MigrationView, SnapshotRequest};
pub use server::{Server, ServerError};
pub use status::{
    DeviceStatus, ExitCounts, Mode, PathStatus, PluginInfo, StepSummary, StepTime, SwitchCounts,
    SwitchReport, VmState, VmStatus,
};

/// The VM as the interface sees it. Calls may block; they come from threads that may.
pub trait Machine: Send + Sync {
    /// Run state, vCPUs and exits; `devices` is left empty.
    fn status(&self) -> VmStatus;

    /// Holds all vCPUs; when this returns none runs guest code.
    ///
    /// # Errors
    /// When the VM has ended.
    fn pause(&self) -> Result<(), ApiError>;

    /// Lets the vCPUs run on.
    ///
    /// # Errors
    /// When the VM has ended.
    fn resume(&self) -> Result<(), ApiError>;

    /// Ends the VM and its process; the guest is not asked.
    ///
    /// # Errors
    /// When the VM has ended already.
    fn shutdown(&self) -> Result<(), ApiError>;

    /// Moves the VM to another host. Returns when it runs there; the VM here then ends.
    ///
    /// # Errors
    /// Why it is still here.
    fn migrate(&self, request: MigrateRequest) -> Result<Report, ApiError>;

    /// Saves the VM to a folder.
    ///
    /// # Errors
    /// Why it was not saved; it goes on.
    fn snapshot(&self, request: SnapshotRequest) -> Result<Report, ApiError>;

    /// What moves and saves are under way or were.
    fn migration(&self) -> MigrationView;

    /// Ends the move or save that is under way; the VM goes on here.
    ///
    /// # Errors
    /// When there is none, or it is too late.
    fn cancel_migration(&self) -> Result<(), ApiError>;
}

/// How a device became emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FellBack {
    /// It was on a VF.
    pub had_vf: bool,
    /// Whatever a VF wrote to guest memory since [`Accelerated::log_began`] is in the log.
    pub logged: bool,
}

/// A device whose data path can be put on a VF and taken back. A device that cannot answers
/// [`Accelerated::attach`] with an error that says why.
pub trait Accelerated: Send + Sync {
    /// The name that users gave it.
    fn id(&self) -> &str;

    /// What it does now and has done.
    fn status(&self) -> DeviceStatus;

    /// Puts the data path on a VF. Blocks until that is done or undone, within the deadlines of
    /// the steps.
    ///
    /// # Errors
    /// Why it stays emulated.
    fn attach(&self) -> Result<SwitchReport, ApiError>;

    /// Puts the data path on a VF as soon as it can have one, and does not wait for that.
    ///
    /// # Errors
    /// It is on one, or can never be.
    fn attach_when_free(&self) -> Result<(), ApiError>;

    /// Takes the data path back to emulation and keeps it there, because something cannot be done
    /// with a VF, until [`Accelerated::take_up`]. A guest that does not help in time loses the VF
    /// by force.
    ///
    /// # Errors
    /// Why it is not emulated; nothing is kept then.
    fn fall_back(&self) -> Result<FellBack, ApiError>;

    /// Whether the guest marks what a VF writes to its memory, so that the device may stay on the
    /// VF while what the guest's CPUs write is logged.
    fn marks_writes(&self) -> bool;

    /// Such a log has begun.
    fn log_began(&self);

    /// Ends [`Accelerated::fall_back`]: what was on a VF before, here or on the host that it comes
    /// from, gets one. Answers whether it did.
    ///
    /// # Errors
    /// Why it stays emulated.
    fn take_up(&self) -> Result<bool, ApiError>;

    /// Ends [`Accelerated::fall_back`] and gives nothing: whether to is somebody else's decision.
    fn let_be(&self);

    /// Takes the data path back to emulation, by force when the guest does not help in time.
    ///
    /// # Errors
    /// Why there was nothing to take back, or what went wrong on the way.
    fn detach(&self) -> Result<SwitchReport, ApiError>;
}

/// What the interface serves.
#[derive(Clone)]
pub struct Services {
    /// The VM.
    pub machine: Arc<dyn Machine>,
    /// Its devices, in the order in which they are shown.
    pub devices: Vec<Arc<dyn Accelerated>>,
}

impl Services {
    /// The VM's status with that of each device.
    pub fn status(&self) -> VmStatus {
        let mut status = self.machine.status();
        status.devices = self.devices.iter().map(|device| device.status()).collect();
        status
    }

    fn device(&self, id: &str) -> Result<Arc<dyn Accelerated>, ApiError> {
        self.devices.iter().find(|device| device.id() == id).cloned().ok_or_else(|| {
            let known: Vec<_> = self.devices.iter().map(|device| device.id()).collect();
            let hint = match known.is_empty() {
                true => "this VM has no such devices".to_owned(),
                false => format!("this VM has: {}", known.join(", ")),
            };
            ApiError::new(ErrorCode::NotFound, format!("there is no device `{id}`")).hint(hint)
        })
    }
}
