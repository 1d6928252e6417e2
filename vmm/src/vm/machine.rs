//! The VM as a whole: builds it, runs it, resets it, ends it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::chips::Chips;
use super::context::DeviceContext;
use super::cpu_model::CpuModel;
use super::cpu_state::{CpuState, write_msrs};
use super::cpuid;
use super::error::{VmError, kvm};
use super::event_loop::EventLoop;
use super::exits::Exits;
use super::hypervisor::{Hypervisor, KvmHypervisor};
use super::layout::Layout;
use super::memory::Memory;
use super::run_state::{RunControl, RunEvent, RunState};
use super::slots::{MemorySlots, SlotId};
use super::stats::ExitStat;
use super::vcpu::{Platform, VcpuEvent, VcpuThread, install_kick_handler};
use crate::acpi;
use crate::boot::{ACPI_ADDRESS, BootConfig, BootRegisters, BootSource};
use crate::interrupts::{IoEvents, IrqRouter};
use crate::legacy::{Keyboard, Ports, PowerRegisters, PowerRequest, port};
use crate::pci::{Bus, HostBridge, SharedDevice};
use crate::serial::{Console, SerialTarget};

/// Local APIC ids are bytes, and 255 is the broadcast.
const MAX_CPUS: u8 = 254;

/// What to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// Kernel, initrd, command line.
    pub boot: BootConfig,
    /// vCPUs, 1 to 254.
    pub cpus: u8,
    /// RAM in MiB, at least 2.
    pub memory_mib: u64,
    /// The serial console's other end.
    pub serial: SerialTarget,
    /// A file with the contents of RAM, read as the guest needs them; RAM is empty without.
    pub memory_from: Option<PathBuf>,
}

/// Why a VM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmExit {
    /// The guest powered off.
    PowerOff,
    /// The VMM was asked to stop it.
    Stopped,
    /// It was saved or moved, and goes on from there.
    HandedOver,
    /// The guest cannot go on; the text says why.
    Crashed(String),
}

/// A virtual machine. All methods may be called from any thread.
pub struct Vm {
    // Dropped first: no vCPU may run while anything below goes.
    pub(super) vcpus: Vec<VcpuThread>,
    pub(super) control: Arc<RunControl>,
    /// Serializes start, pause, resume, reset and stop; holds what the user wants.
    pub(super) lifecycle: Mutex<Lifecycle>,
    /// Events of vCPUs that are not dealt with yet.
    pub(super) pending: Arc<AtomicUsize>,
    events: Mutex<mpsc::Receiver<Event>>,
    event_sender: mpsc::Sender<Event>,
    pub(super) platform: Arc<Platform>,
    power_button: EventFd,
    chips: Chips,
    initial: Vec<CpuState>,
    /// What the guest is told of its CPUs.
    pub(super) cpu_model: CpuModel,
    /// Model-specific registers that KVM can save.
    pub(super) msrs: Vec<u32>,
    boot: BootSource,
    pub(super) layout: Layout,
    acpi: Vec<u8>,
    exit_stats: Vec<ExitStat>,
    pub(super) ram_slots: Vec<SlotId>,
    pub(super) context: DeviceContext,
    pub(super) console: Mutex<Option<Console>>,
    pub(super) vm: Arc<VmFd>,
}

pub(super) struct Lifecycle {
    pub(super) state: RunState,
    pub(super) started: bool,
    /// The devices hold too, until the next resume; with what the vCPUs did before.
    pub(super) suspended: Option<RunState>,
}

enum Event {
    Vcpu(VcpuEvent),
    Stop,
    HandOver,
}

impl Event {
    /// How the VM ends by this event; `None` when it does not.
    fn ends(self) -> Option<VmExit> {
        match self {
            Self::Vcpu(VcpuEvent::Power(PowerRequest::Reset)) => None,
            Self::Vcpu(VcpuEvent::Power(PowerRequest::PowerOff)) => Some(VmExit::PowerOff),
            Self::Vcpu(VcpuEvent::Crashed(reason)) => Some(VmExit::Crashed(reason)),
            Self::Stop => Some(VmExit::Stopped),
            Self::HandOver => Some(VmExit::HandedOver),
        }
    }
}

impl Vm {
    /// Builds a VM with everything but its PCI devices; nothing runs yet.
    pub fn new(config: VmConfig) -> Result<Self, VmError> {
        let kvm_fd = Kvm::new().map_err(VmError::OpenKvm)?;
        let max = kvm_fd.get_max_vcpus().min(MAX_CPUS.into()) as u8;
        if config.cpus == 0 || config.cpus > max {
            return Err(VmError::Cpus { asked: config.cpus, max });
        }
        let boot = BootSource::open(config.boot)?;
        let supported = kvm_fd
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(kvm("tell the cpu features it supports"))?;
        let layout = Layout::new(config.memory_mib, cpuid::physical_bits(&supported))?;
        let memory = Arc::new(match &config.memory_from {
            Some(file) => Memory::from_file(&layout, file)?,
            None => Memory::new(&layout)?,
        });

        let vm = Arc::new(kvm_fd.create_vm().map_err(kvm("create a vm"))?);
        let chips = Chips::create(&vm).map_err(kvm("create interrupt controllers"))?;
        let hypervisor: Arc<dyn Hypervisor> = Arc::new(KvmHypervisor::new(vm.clone()));
        let memory_slots = Arc::new(MemorySlots::new(hypervisor.clone()));
        let ram_slots = memory.map_into(&memory_slots)?;
        let context = DeviceContext {
            memory,
            memory_slots,
            irq_router: Arc::new(IrqRouter::new(hypervisor.clone())),
            io_events: Arc::new(IoEvents::new(hypervisor.clone())),
            event_loop: EventLoop::spawn("io")?,
            hypervisor,
        };

        let console = Console::new(&config.serial, &context.irq_router, &context.event_loop)?;
        let power_button = EventFd::new(EFD_NONBLOCK).map_err(VmError::EventFd)?;
        context.irq_router.connect(&power_button, acpi::POWER_BUTTON_GSI)?;
        let pci = Arc::new(Bus::new(&layout));
        pci.add(Arc::new(Mutex::new(HostBridge::new())))?;
        let platform = Arc::new(Platform { ports: ports(&console), pci });

        let deadline = kvm_fd.check_extension(Cap::TscDeadlineTimer);
        let tsc_scaling = kvm_fd.check_extension(Cap::TscControl);
        let cpu_model = CpuModel::new(supported.as_slice(), config.cpus, deadline);
        let vcpu_fds = create_vcpus(&vm, &cpu_model)?;
        let msrs = kvm_fd.get_msr_index_list().map_err(kvm("list cpu registers"))?;
        let initial = vcpu_fds
            .iter()
            .map(|vcpu| CpuState::of(vcpu, msrs.as_slice()))
            .collect::<Result<_, _>>()
            .map_err(kvm("read cpu state"))?;
        let exit_stats = vcpu_fds.iter().filter_map(|vcpu| ExitStat::of(vcpu).ok()).collect();

        install_kick_handler().map_err(VmError::Signal)?;
        let control = Arc::new(RunControl::new(vcpu_fds.len()));
        let (event_sender, events) = mpsc::channel();
        let mut machine = Self {
            vcpus: Vec::with_capacity(vcpu_fds.len()),
            control,
            lifecycle: Mutex::new(Lifecycle {
                state: RunState::Paused,
                started: false,
                suspended: None,
            }),
            pending: Arc::default(),
            events: Mutex::new(events),
            event_sender,
            platform,
            power_button,
            chips,
            initial,
            cpu_model: cpu_model.with_clock(&vcpu_fds[0], tsc_scaling),
            msrs: msrs.as_slice().to_vec(),
            boot,
            acpi: acpi::tables(ACPI_ADDRESS, &layout, config.cpus),
            layout,
            exit_stats,
            ram_slots,
            context,
            console: Mutex::new(Some(console)),
            vm,
        };
        for (index, vcpu) in vcpu_fds.into_iter().enumerate() {
            let thread = machine.spawn(index, vcpu)?;
            machine.vcpus.push(thread);
        }
        Ok(machine)
    }

    fn spawn(&self, index: usize, vcpu: VcpuFd) -> Result<VcpuThread, VmError> {
        let (events, pending) = (self.event_sender.clone(), self.pending.clone());
        let report = Box::new(move |event| {
            pending.fetch_add(1, Ordering::SeqCst);
            drop(events.send(Event::Vcpu(event)));
        });
        VcpuThread::spawn(index, vcpu, self.control.clone(), self.platform.clone(), report)
            .map_err(VmError::Thread)
    }

    /// What devices are given.
    pub fn device_context(&self) -> &DeviceContext {
        &self.context
    }

    /// The address map.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Adds a PCI function; returns its slot. Before [`Vm::start`] only.
    pub fn add_pci_device(&self, device: SharedDevice) -> Result<u8, VmError> {
        if self.lifecycle.lock().unwrap().started {
            return Err(VmError::Started);
        }
        Ok(self.platform.pci.add(device)?)
    }

    /// Loads the kernel and starts the vCPUs.
    pub fn start(&self) -> Result<(), VmError> {
        let mut lifecycle = self.lifecycle.lock().unwrap();
        if lifecycle.started {
            return Err(VmError::Started);
        }
        self.load()?;
        lifecycle.started = true;
        self.change(&mut lifecycle, RunEvent::Resume)
    }

    /// Holds all vCPUs; on return none runs guest code. Devices go on.
    pub fn pause(&self) -> Result<(), VmError> {
        self.change(&mut self.lifecycle.lock().unwrap(), RunEvent::Pause)
    }

    /// Lets the vCPUs go on.
    pub fn resume(&self) -> Result<(), VmError> {
        self.change(&mut self.lifecycle.lock().unwrap(), RunEvent::Resume)
    }

    /// What the vCPUs do.
    pub fn state(&self) -> RunState {
        self.lifecycle.lock().unwrap().state
    }

    /// Presses the power button: a guest that listens shuts itself down.
    pub fn press_power_button(&self) {
        // EAGAIN means that the counter is full of presses that nobody listens to.
        drop(self.power_button.write(1));
    }

    /// Stops the VM at once; [`Vm::wait`] then returns [`VmExit::Stopped`].
    pub fn stop(&self) {
        drop(self.event_sender.send(Event::Stop));
    }

    /// Ends the VM, which goes on elsewhere or later; [`Vm::wait`] then returns
    /// [`VmExit::HandedOver`].
    pub fn hand_over(&self) {
        drop(self.event_sender.send(Event::HandOver));
    }

    /// Serves the guest's resets until the VM ends; then its vCPUs have ended too. To be called
    /// by one thread, once.
    pub fn wait(&self) -> Result<VmExit, VmError> {
        let events = self.events.lock().unwrap();
        let exit = loop {
            let first = events.recv().map_err(|_| VmError::Stopped)?;
            // Once all vCPUs hold there is no further event from them. Several may have asked
            // for a reset, which is one reset; whatever ends the VM goes before it.
            let lifecycle = self.lifecycle.lock().unwrap();
            self.hold();
            let all: Vec<_> = std::iter::once(first).chain(events.try_iter()).collect();
            let reported = all.iter().filter(|event| matches!(event, Event::Vcpu(_))).count();
            match all.into_iter().find_map(Event::ends) {
                Some(exit) => break exit,
                None => self.reset(&lifecycle)?,
            }
            self.pending.fetch_sub(reported, Ordering::SeqCst);
        };
        tracing::info!(?exit, "vm ends");
        self.end();
        // Others may keep the VM, for its counters for example; the terminal and the
        // socket are given back now.
        drop(self.console.lock().unwrap().take());
        Ok(exit)
    }

    /// Exits to this process, all vCPUs together.
    pub fn exits(&self) -> Exits {
        self.vcpu_exits().into_iter().fold(Exits::default(), std::ops::Add::add)
    }

    /// Exits to this process by vCPU.
    pub fn vcpu_exits(&self) -> Vec<Exits> {
        self.vcpus.iter().map(|vcpu| vcpu.exits.snapshot()).collect()
    }

    /// All exits that KVM counted, handled in the kernel or not; `None` when this kernel (before
    /// 5.14) has no statistics files.
    pub fn kvm_exits(&self) -> Option<u64> {
        if self.exit_stats.is_empty() {
            return None;
        }
        self.exit_stats.iter().map(|stat| stat.read().ok()).sum()
    }

    /// The machine as after power-on: devices, chips, kernel, vCPUs, which all hold.
    fn reset(&self, lifecycle: &Lifecycle) -> Result<(), VmError> {
        tracing::info!("guest resets");
        self.platform.pci.reset();
        self.platform.ports.reset();
        self.chips.write(&self.vm).map_err(kvm("reset the interrupt controllers"))?;
        self.load()?;
        if lifecycle.state == RunState::Running {
            self.control.apply(RunEvent::Resume);
        }
        Ok(())
    }

    /// Puts kernel and tables into RAM and all vCPUs, which must be paused, to their start.
    fn load(&self) -> Result<(), VmError> {
        let start = self.boot.load(&self.context.memory, &self.layout, &self.acpi)?;
        for (index, (thread, initial)) in self.vcpus.iter().zip(&self.initial).enumerate() {
            let vcpu = thread.vcpu.lock().unwrap();
            initial.restore(&vcpu).map_err(kvm("reset a vcpu"))?;
            write_msrs(&vcpu, &BootRegisters::msrs()).map_err(kvm("set cpu registers"))?;
            if index == 0 {
                enter(&vcpu, &start).map_err(kvm("set the start registers"))?;
            }
        }
        Ok(())
    }

    pub(super) fn change(&self, lifecycle: &mut Lifecycle, event: RunEvent) -> Result<(), VmError> {
        if lifecycle.state == RunState::Stopped {
            return Err(VmError::Stopped);
        }
        // Before the start there is nothing to run; the start itself resumes.
        if lifecycle.started {
            lifecycle.state = lifecycle.state.transition(event);
            match event {
                RunEvent::Resume => {
                    if lifecycle.suspended.take().is_some() {
                        self.platform.pci.resume();
                    }
                    self.excuse_pause();
                    self.control.apply(event);
                }
                RunEvent::Pause | RunEvent::Stop => self.hold(),
            }
            tracing::info!(state = ?lifecycle.state, "vm");
        }
        Ok(())
    }

    /// Takes all vCPUs out of the guest and waits until they are.
    pub(super) fn hold(&self) {
        self.control.apply(RunEvent::Pause);
        self.vcpus.iter().for_each(VcpuThread::kick);
        self.control.wait_quiet();
    }

    /// Tells guests that use KVM's clock that they were held, lest their watchdogs bark.
    fn excuse_pause(&self) {
        for thread in &self.vcpus {
            // A vCPU that runs already was not held; EINVAL means that its guest does not use
            // that clock (yet).
            if let Ok(vcpu) = thread.vcpu.try_lock() {
                let _ = vcpu.kvmclock_ctrl();
            }
        }
    }

    fn end(&self) {
        self.lifecycle.lock().unwrap().state = RunState::Stopped;
        self.hold();
        self.control.apply(RunEvent::Stop);
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.end();
        self.vcpus.iter_mut().for_each(VcpuThread::join);
    }
}

fn ports(console: &Console) -> Ports {
    let mut ports = Ports::default();
    ports.add(port::COM1, 8, console.port_device());
    ports.add(port::SLEEP_CONTROL, 2, Arc::new(PowerRegisters::sleep()));
    ports.add(port::KEYBOARD_COMMAND, 1, Arc::new(Keyboard));
    ports.add(port::RESET_CONTROL, 1, Arc::new(PowerRegisters::reset_control()));
    ports
}

fn create_vcpus(vm: &VmFd, model: &CpuModel) -> Result<Vec<VcpuFd>, VmError> {
    (0..)
        .zip(model.cpus())
        .map(|(index, entries)| {
            let vcpu = vm.create_vcpu(index).map_err(kvm("create a vcpu"))?;
            cpuid::set(&vcpu, entries).map_err(kvm("describe a cpu"))?;
            Ok(vcpu)
        })
        .collect()
}

/// Points the first vCPU at the kernel's entry.
fn enter(vcpu: &VcpuFd, start: &BootRegisters) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    start.set_sregs(&mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&start.regs())
}
