//! The VM behind the control interface.

use std::sync::Arc;
use std::time::Instant;

use crate::api::{ApiError, ErrorCode, ExitCounts, Machine, VmState, VmStatus};
use crate::config::Configuration;
use crate::vm::{RunState, Vm, VmError};

/// A VM with what its status says beyond what it knows itself.
pub(super) struct RunningMachine {
    vm: Arc<Vm>,
    vcpus: u32,
    memory_mib: u64,
    started: Instant,
}

impl RunningMachine {
    pub(super) fn new(vm: Arc<Vm>, configuration: &Configuration) -> Self {
        Self {
            vm,
            vcpus: configuration.cpus,
            memory_mib: configuration.memory.mib(),
            started: Instant::now(),
        }
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
        self.vm.pause().map_err(refused)
    }

    fn resume(&self) -> Result<(), ApiError> {
        self.vm.resume().map_err(refused)
    }

    fn shutdown(&self) -> Result<(), ApiError> {
        self.running()?;
        self.vm.stop();
        Ok(())
    }
}
