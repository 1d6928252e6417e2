//! The VM behind the control interface.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::moving::Mover;
use crate::api::{
    ApiError, ErrorCode, ExitCounts, Machine, MigrateRequest, MigrationView, SnapshotRequest,
    VmState, VmStatus,
};
use crate::config::Configuration;
use crate::migration::Report;
use crate::vm::{RunState, Vm, VmError};

/// A VM with what its status says beyond what it knows itself.
pub(super) struct RunningMachine {
    vm: Arc<Vm>,
    vcpus: u32,
    memory_mib: u64,
    started: Instant,
    mover: Arc<Mover>,
    /// The VM is expected from another host.
    incoming: Arc<AtomicBool>,
}

impl RunningMachine {
    pub(super) fn new(
        vm: Arc<Vm>,
        configuration: &Configuration,
        mover: Arc<Mover>,
        incoming: Arc<AtomicBool>,
    ) -> Self {
        Self {
            mover,
            incoming,
            vm,
            vcpus: configuration.cpus,
            memory_mib: configuration.memory.mib(),
            started: Instant::now(),
        }
    }

    /// The VM is here and nobody moves it.
    fn at_home(&self) -> Result<(), ApiError> {
        self.running()?;
        if self.incoming.load(Ordering::Acquire) {
            return Err(ApiError::new(ErrorCode::WrongState, "the VM has not come yet"));
        }
        if self.mover.is_busy() {
            let busy = ApiError::new(ErrorCode::Busy, "the VM is being moved or saved");
            return Err(busy.hint("wait, or end that with `vmm ctl migrate-cancel`"));
        }
        Ok(())
    }

    fn running(&self) -> Result<(), ApiError> {
        match self.vm.state() {
            RunState::Stopped => Err(ApiError::new(ErrorCode::WrongState, "the VM has ended")),
            RunState::Running | RunState::Paused => Ok(()),
        }
    }
}

fn refused(error: VmError) -> ApiError {
    let code = match error {
        VmError::Stopped | VmError::Started => ErrorCode::WrongState,
        _ => ErrorCode::Internal,
    };
    ApiError::from_chain(code, &error)
}

impl Machine for RunningMachine {
    fn status(&self) -> VmStatus {
        let exits = self.vm.exits();
        VmStatus {
            state: match self.vm.state() {
                RunState::Running | RunState::Paused if self.incoming.load(Ordering::Acquire) => {
                    VmState::Incoming
                }
                RunState::Running => VmState::Running,
                RunState::Paused => VmState::Paused,
                RunState::Stopped => VmState::Stopped,
            },
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            uptime_ms: self.started.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
            exits: ExitCounts {
                kvm: self.vm.kvm_exits(),
                userspace: exits.total(),
                io: exits.io,
                mmio: exits.mmio,
                other: exits.other,
            },
            devices: Vec::new(),
        }
    }

    fn pause(&self) -> Result<(), ApiError> {
        self.at_home()?;
        self.vm.pause().map_err(refused)
    }

    fn resume(&self) -> Result<(), ApiError> {
        self.at_home()?;
        self.vm.resume().map_err(refused)
    }

    fn shutdown(&self) -> Result<(), ApiError> {
        self.running()?;
        self.vm.stop();
        Ok(())
    }

    fn migrate(&self, request: MigrateRequest) -> Result<Report, ApiError> {
        self.at_home()?;
        self.mover.migrate(request)
    }

    fn snapshot(&self, request: SnapshotRequest) -> Result<Report, ApiError> {
        self.at_home()?;
        self.mover.snapshot(request)
    }

    fn migration(&self) -> MigrationView {
        self.mover.view()
    }

    fn cancel_migration(&self) -> Result<(), ApiError> {
        self.mover.cancel()
    }
}
