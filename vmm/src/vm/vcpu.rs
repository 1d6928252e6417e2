//! A vCPU: its thread, its run loop, and where its exits go. Never decides when to run;
//! [`RunControl`] does.
#![allow(unsafe_code)] // Another thread sets kvm_run's immediate_exit.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::exits::ExitCounters;
use super::run_state::{RunControl, RunEvent, RunState};
use crate::legacy::{Ports, PowerRequest};
use crate::pci::Bus;
use crate::sandbox::{self, Role};

/// What vCPUs report to whoever controls the VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum VcpuEvent {
    /// The guest powers off or resets the machine.
    Power(PowerRequest),
    /// A vCPU cannot go on; the text says why.
    Crashed(String),
}

/// Takes a vCPU's events; called on its thread, must not wait.
pub(super) type Report = Box<dyn Fn(VcpuEvent) + Send>;

/// What a guest's accesses reach.
pub(super) struct Platform {
    pub(super) ports: Ports,
    pub(super) pci: Arc<Bus>,
}

/// A vCPU that is not running, or runs in its thread, which then holds the lock.
pub(super) type SharedVcpu = Arc<Mutex<VcpuFd>>;

/// The outside of a vCPU thread.
pub(super) struct VcpuThread {
    pub(super) vcpu: SharedVcpu,
    pub(super) exits: Arc<ExitCounters>,
    immediate_exit: ImmediateExit,
    thread: Option<JoinHandle<()>>,
}

/// kvm_run's immediate_exit of one vCPU, writable from any thread.
#[derive(Clone, Copy)]
struct ImmediateExit(*const AtomicU8);

// SAFETY: the pointer is only used for atomic accesses, and every user owns the vCPU too, whose
// mapping contains the byte.
unsafe impl Send for ImmediateExit {}
// SAFETY: as above.
unsafe impl Sync for ImmediateExit {}

impl ImmediateExit {
    fn of(vcpu: &mut VcpuFd) -> Self {
        let byte: *mut u8 = &raw mut vcpu.get_kvm_run().immediate_exit;
        Self(byte.cast())
    }

    fn set(self, value: u8) {
        // SAFETY: the owner of this copy keeps the vCPU, and with it the mapping of kvm_run,
        // alive; the kernel and the vCPU's thread access the byte concurrently, hence atomically.
        unsafe { &*self.0 }.store(value, Ordering::SeqCst);
    }
}

/// The signal that takes a vCPU out of the guest. Its handler does nothing: that it interrupts
/// KVM_RUN is all it is for.
fn kick_signal() -> i32 {
    SIGRTMIN()
}

extern "C" fn ignore(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Installs the handler of the kick signal; once per process, repeating is harmless.
pub(super) fn install_kick_handler() -> Result<(), vmm_sys_util::errno::Error> {
    register_signal_handler(kick_signal(), ignore)
}

impl VcpuThread {
    /// Starts the thread, which waits for the first resume.
    pub(super) fn spawn(
        index: usize,
        mut vcpu: VcpuFd,
        control: Arc<RunControl>,
        platform: Arc<Platform>,
        report: Report,
    ) -> std::io::Result<Self> {
        let immediate_exit = ImmediateExit::of(&mut vcpu);
        let vcpu = Arc::new(Mutex::new(vcpu));
        let exits = Arc::new(ExitCounters::default());
        let runner =
            Runner { index, control, platform, report, exits: exits.clone(), immediate_exit };
        let shared = vcpu.clone();
        let thread = std::thread::Builder::new()
            .name(format!("vcpu{index}"))
            .spawn(move || runner.run(&shared))?;
        Ok(Self { vcpu, exits, immediate_exit, thread: Some(thread) })
    }

    /// Takes the vCPU out of the guest, now or at its next entry, so that it looks at its
    /// target state, which the caller has changed before.
    pub(super) fn kick(&self) {
        self.immediate_exit.set(1);
        if let Some(thread) = &self.thread {
            // The thread may just have ended.
            let _ = thread.kill(kick_signal());
        }
    }

    /// Waits for the end of the thread, whose target must be `Stopped`.
    pub(super) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The inside of a vCPU thread.
struct Runner {
    index: usize,
    control: Arc<RunControl>,
    platform: Arc<Platform>,
    report: Report,
    exits: Arc<ExitCounters>,
    immediate_exit: ImmediateExit,
}

/// How a burst of guest execution ended.
#[derive(Debug, PartialEq, Eq)]
enum Burst {
    /// The target state may have changed.
    Interrupted,
    /// Tell the VM, and hold.
    Report(VcpuEvent),
}

impl Runner {
    fn run(&self, vcpu: &SharedVcpu) {
        sandbox::enter(Role::Vcpu);
        // A panic in a device must not leave a VM with a vCPU missing.
        let guard = PanicGuard { runner: self };
        while self.control.may_run(self.index) {
            let mut vcpu = vcpu.lock().unwrap();
            let mut burst = self.burst(&mut vcpu);
            if let Some(event) = self.complete(&mut vcpu) {
                burst = Burst::Report(event);
            }
            drop(vcpu);
            if let Burst::Report(event) = burst {
                // Hold all vCPUs before anybody hears of it: what comes next finds them so.
                self.control.apply(RunEvent::Pause);
                (self.report)(event);
            }
        }
        std::mem::forget(guard);
    }

    /// Runs guest code until somebody must decide something.
    fn burst(&self, vcpu: &mut VcpuFd) -> Burst {
        loop {
            match vcpu.run() {
                Ok(exit) => {
                    if let Some(event) = self.handle(exit) {
                        return Burst::Report(with_place(event, vcpu));
                    }
                }
                Err(error) => match error.errno() {
                    // First the flag, then the target: whoever changes the target sets the flag
                    // afterwards, so one of both is seen.
                    libc::EINTR | libc::EAGAIN => {
                        self.immediate_exit.set(0);
                        if self.control.target() != RunState::Running {
                            return Burst::Interrupted;
                        }
                    }
                    _ => return Burst::Report(self.crashed(format!("kvm_run failed: {error}"))),
                },
            }
        }
    }

    /// KVM finishes an emulated access only when it is entered again; this enters and leaves at
    /// once, so that the registers are complete while the vCPU is paused. An access in several
    /// parts exits for each.
    fn complete(&self, vcpu: &mut VcpuFd) -> Option<VcpuEvent> {
        let mut event = None;
        self.immediate_exit.set(1);
        while let Ok(exit) = vcpu.run() {
            event = self.handle(exit);
            if event.is_some() {
                break;
            }
        }
        self.immediate_exit.set(0);
        event
    }

    fn handle(&self, exit: VcpuExit<'_>) -> Option<VcpuEvent> {
        match exit {
            VcpuExit::IoIn(port, data) => {
                self.exits.count_io();
                self.platform.ports.read(port, data);
                None
            }
            VcpuExit::IoOut(port, data) => {
                self.exits.count_io();
                self.platform.ports.write(port, data).map(VcpuEvent::Power)
            }
            VcpuExit::MmioRead(address, data) => {
                self.exits.count_mmio();
                if !self.platform.pci.mmio_read(address, data) {
                    tracing::trace!(address, "read of nothing");
                }
                None
            }
            VcpuExit::MmioWrite(address, data) => {
                self.exits.count_mmio();
                if !self.platform.pci.mmio_write(address, data) {
                    tracing::trace!(address, "write to nothing");
                }
                None
            }
            VcpuExit::Intr => None,
            // A triple fault; a PC's chipset answers it with a reset.
            VcpuExit::Shutdown => {
                self.exits.count_other();
                tracing::info!(vcpu = self.index, "triple fault");
                Some(VcpuEvent::Power(PowerRequest::Reset))
            }
            other => {
                self.exits.count_other();
                Some(self.crashed(format!("unexpected exit {other:?}")))
            }
        }
    }

    fn crashed(&self, reason: String) -> VcpuEvent {
        VcpuEvent::Crashed(format!("vcpu {}: {reason}", self.index))
    }
}

/// Adds to a crash report where the guest was.
fn with_place(event: VcpuEvent, vcpu: &VcpuFd) -> VcpuEvent {
    match (event, vcpu.get_regs()) {
        (VcpuEvent::Crashed(text), Ok(regs)) => {
            VcpuEvent::Crashed(format!("{text}, rip {:#x}", regs.rip))
        }
        (event, _) => event,
    }
}

/// Reports the end of a thread that did not end on purpose.
struct PanicGuard<'a> {
    runner: &'a Runner,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        self.runner.control.leave(self.runner.index);
        let event = self.runner.crashed("its thread panicked; this is a bug".to_owned());
        (self.runner.report)(event);
    }
}
