//! A VM at rest: held, saved, and restored. What a device saves is its own business; this puts
//! all of it, the CPUs, the chips and the clock into one archive, in an order that KVM can take.
//! Never saves memory: snapshots and migrations move that in their own ways.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kvm_bindings::{kvm_clock_data, kvm_cpuid_entry2};
use serde::{Deserialize, Serialize};

use super::chips::Chips;
use super::cpu_model::CpuModel;
use super::cpu_state::CpuState;
use super::cpuid;
use super::error::{VmError, kvm};
use super::machine::{Lifecycle, Vm};
use super::run_state::{RunEvent, RunState};
use crate::state::{Archive, ArchiveBuilder, Payload, StateError};

/// How long resets of the guest may keep it from being suspended.
const RESET_LIMIT: Duration = Duration::from_secs(5);

/// What must be equal at both ends for a state to fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// vCPUs.
    pub cpus: u8,
    /// RAM in MiB.
    pub memory_mib: u64,
    /// The functions on the PCI bus by slot, each with what the guest can see of its host side.
    pub functions: Vec<String>,
}

impl Payload for Shape {
    const KIND: &'static str = "machine";
    const VERSION: u16 = 1;
}

impl Shape {
    /// How a VM of shape `here` differs from this one, each difference in words.
    pub fn differences(&self, here: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.cpus != here.cpus {
            found.push(format!("it has {} vCPUs, not {}", here.cpus, self.cpus));
        }
        if self.memory_mib != here.memory_mib {
            found.push(format!("it has {} MiB, not {}", here.memory_mib, self.memory_mib));
        }
        let slots = self.functions.len().max(here.functions.len());
        for slot in 0..slots {
            let (theirs, ours) = (self.functions.get(slot), here.functions.get(slot));
            if theirs == ours {
                continue;
            }
            let name = |function: Option<&String>| {
                function.map_or("nothing".to_owned(), |text| format!("`{text}`"))
            };
            found.push(format!("its PCI slot {slot} has {}, not {}", name(ours), name(theirs)));
        }
        found
    }
}

/// One vCPU.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VcpuState {
    cpuid: Vec<kvm_cpuid_entry2>,
    state: CpuState,
}

impl Payload for VcpuState {
    const KIND: &'static str = "vcpu";
    const VERSION: u16 = 1;
}

/// KVM's paravirtual clock, which stands still while the VM does.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockState {
    nanoseconds: u64,
}

impl Payload for ClockState {
    const KIND: &'static str = "clock";
    const VERSION: u16 = 1;
}

impl Vm {
    /// What another VM must be like to take this one's state.
    pub fn shape(&self) -> Shape {
        let bytes: u64 = self.layout.ram.iter().map(|range| range.len).sum();
        Shape {
            cpus: self.vcpus.len() as u8,
            memory_mib: bytes >> 20,
            functions: self.platform.pci.identities(),
        }
    }

    /// What the guest is told of its CPUs.
    pub fn cpu_model(&self) -> &CpuModel {
        &self.cpu_model
    }

    /// Holds vCPUs and devices: on return nothing runs that changes guest memory or the state,
    /// and what arrives for a device stays where it arrived. Ends with [`Vm::unsuspend`], or with
    /// [`Vm::resume`]. A reset that the guest has asked for is done first.
    ///
    /// # Errors
    /// When a device does not hold in time, or resets never end; the VM is then as it was.
    pub fn suspend(&self) -> Result<(), VmError> {
        let started = Instant::now();
        loop {
            let mut lifecycle = self.lifecycle.lock().unwrap();
            if lifecycle.suspended.is_some() {
                return Ok(());
            }
            let before = lifecycle.state;
            self.change(&mut lifecycle, RunEvent::Pause)?;
            let resetting = self.pending.load(Ordering::SeqCst) != 0;
            let held = match resetting {
                true => Err(VmError::Resetting),
                false => self.platform.pci.suspend().map_err(VmError::from),
            };
            lifecycle.suspended = Some(before);
            let Err(error) = held else { return Ok(()) };
            self.release(&mut lifecycle)?;
            if !resetting || started.elapsed() > RESET_LIMIT {
                return Err(error);
            }
            // Whoever resets needs the lock.
            drop(lifecycle);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends [`Vm::suspend`]: the devices go on, and the vCPUs if they ran before.
    ///
    /// # Errors
    /// When the VM has ended.
    pub fn unsuspend(&self) -> Result<(), VmError> {
        self.release(&mut self.lifecycle.lock().unwrap())
    }

    fn release(&self, lifecycle: &mut Lifecycle) -> Result<(), VmError> {
        match lifecycle.suspended {
            Some(RunState::Running) => self.change(lifecycle, RunEvent::Resume),
            Some(_) => {
                lifecycle.suspended = None;
                self.platform.pci.resume();
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The state of a VM that [`Vm::suspend`] holds.
    ///
    /// # Errors
    /// When it is not held, KVM refuses, or a device cannot be saved.
    pub fn save(&self) -> Result<Vec<u8>, VmError> {
        let lifecycle = self.lifecycle.lock().unwrap();
        if lifecycle.suspended.is_none() {
            return Err(VmError::NotHeld);
        }
        let mut state = ArchiveBuilder::default();
        state.put("0", &self.shape())?;
        state.put("0", &self.cpu_model)?;
        self.platform.pci.save(&mut state)?;
        if let Some(console) = &*self.console.lock().unwrap() {
            console.save(&mut state)?;
        }
        for (index, (thread, cpuid)) in self.vcpus.iter().zip(self.cpu_model.cpus()).enumerate() {
            let vcpu = thread.vcpu.lock().unwrap();
            let registers = CpuState::whole(&vcpu, &self.msrs).map_err(kvm("read cpu state"))?;
            let payload = VcpuState { cpuid: cpuid.clone(), state: registers };
            state.put(&index.to_string(), &payload)?;
        }
        state.put("0", &Chips::read(&self.vm).map_err(kvm("read the interrupt controllers"))?)?;
        let clock = self.vm.get_clock().map_err(kvm("read the clock"))?;
        state.put("0", &ClockState { nanoseconds: clock.clock })?;
        Ok(state.finish())
    }

    /// Takes over the state of another VM instead of booting. Guest memory must be in place, and
    /// the VM not be started. It is then suspended; [`Vm::unsuspend`] lets it run.
    ///
    /// # Errors
    /// When the state does not fit; this VM is then of no use any more.
    pub fn restore(&self, state: &[u8]) -> Result<(), VmError> {
        let mut lifecycle = self.lifecycle.lock().unwrap();
        if lifecycle.started {
            return Err(VmError::Started);
        }
        let started = Instant::now();
        let mut state = Archive::parse(state)?;
        self.check_shape(&state.take("0")?)?;
        let model: CpuModel = state.take("0")?;
        self.check_cpus(&model)?;
        // CPUs first: with their interrupt controllers in place, devices may raise interrupts.
        let chips: Chips = state.take("0")?;
        chips.write(&self.vm).map_err(kvm("set the interrupt controllers"))?;
        for (index, thread) in self.vcpus.iter().enumerate() {
            let saved: VcpuState = state.take(&index.to_string())?;
            let vcpu = thread.vcpu.lock().unwrap();
            cpuid::set(&vcpu, &saved.cpuid).map_err(kvm("describe a cpu"))?;
            if model.tsc_khz() != 0 && model.tsc_khz() != self.cpu_model.tsc_khz() {
                // Checked to be near enough, or to be possible exactly.
                let _ = vcpu.set_tsc_khz(model.tsc_khz());
            }
            saved.state.restore(&vcpu).map_err(kvm("set cpu state"))?;
        }
        let clock: ClockState = state.take("0")?;
        let clock = kvm_clock_data { clock: clock.nanoseconds, ..Default::default() };
        self.vm.set_clock(&clock).map_err(kvm("set the clock"))?;
        let cpus_us = started.elapsed().as_micros() as u64;
        self.platform.pci.restore(&mut state)?;
        let devices_us = started.elapsed().as_micros() as u64 - cpus_us;
        if let Some(console) = &*self.console.lock().unwrap() {
            console.restore(&mut state)?;
        }
        state.finish()?;
        lifecycle.started = true;
        lifecycle.suspended = Some(RunState::Running);
        tracing::info!(cpus_us, devices_us, "vm restored");
        Ok(())
    }

    fn check_shape(&self, saved: &Shape) -> Result<(), StateError> {
        match saved.differences(&self.shape()).as_slice() {
            [] => Ok(()),
            found => Err(StateError::unsuitable::<Shape>("0", found.join("; "))),
        }
    }

    fn check_cpus(&self, saved: &CpuModel) -> Result<(), StateError> {
        let missing = saved.missing_on(&self.cpu_model);
        if !missing.is_empty() {
            let reason = format!("this host lacks {}", missing.join(", "));
            return Err(StateError::unsuitable::<CpuModel>("0", reason));
        }
        if saved.cpus().len() != self.vcpus.len() {
            return Err(StateError::unsuitable::<CpuModel>("0", "it has another number of CPUs"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_by_name() {
        let functions = ["host bridge", "network card, MTU 1500"].map(str::to_owned).to_vec();
        let there = Shape { cpus: 2, memory_mib: 512, functions };
        assert!(there.differences(&there.clone()).is_empty());
        let here = Shape {
            cpus: 1,
            memory_mib: 256,
            functions: vec!["host bridge".to_owned(), "network card, MTU 9000".to_owned()],
        };
        assert_eq!(
            there.differences(&here),
            [
                "it has 1 vCPUs, not 2",
                "it has 256 MiB, not 512",
                "its PCI slot 1 has `network card, MTU 9000`, not `network card, MTU 1500`",
            ]
        );
        let fewer = Shape { functions: Vec::new(), ..there.clone() };
        assert_eq!(there.differences(&fewer)[0], "its PCI slot 0 has nothing, not `host bridge`");
    }
}
