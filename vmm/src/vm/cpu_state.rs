//! A vCPU's registers: as KVM made them, remembered so that a guest's reboot starts from the same
//! state, and as they are when the VM is saved. Never interprets them.
#![allow(unsafe_code)] // KVM_SET_XSAVE reads as much as the guest's features need.

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

/// Time stamp counter: goes on over a reset, so that the vCPUs' counters stay equal.
const MSR_TSC: u32 = 0x10;
/// When the local APIC's timer fires, in ticks of that counter; the APIC takes it only in the mode
/// for it.
const MSR_TSC_DEADLINE: u32 = 0x6e0;

/// All of a vCPU's state that a guest can change.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CpuState {
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: Box<kvm_xsave>,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    lapic: kvm_lapic_state,
    events: kvm_vcpu_events,
    mp_state: kvm_mp_state,
    msrs: Vec<kvm_msr_entry>,
}

impl CpuState {
    /// Reads the state to which a reset leads; `msrs` are the registers that KVM can save.
    pub(super) fn of(vcpu: &VcpuFd, msrs: &[u32]) -> Result<Self, kvm_ioctls::Error> {
        let mut state = Self::whole(vcpu, msrs)?;
        state.msrs.retain(|entry| entry.index != MSR_TSC);
        Ok(state)
    }

    /// Reads all of the state. The run state comes first, since KVM completes what is pending in
    /// the local APIC when it is asked for that, and pending events come last.
    pub(super) fn whole(vcpu: &VcpuFd, msrs: &[u32]) -> Result<Self, kvm_ioctls::Error> {
        let mp_state = vcpu.get_mp_state()?;
        Ok(Self {
            regs: vcpu.get_regs()?,
            sregs: vcpu.get_sregs()?,
            xsave: Box::new(vcpu.get_xsave()?),
            xcrs: vcpu.get_xcrs()?,
            debug: vcpu.get_debug_regs()?,
            lapic: vcpu.get_lapic()?,
            msrs: read_msrs(vcpu, msrs),
            events: vcpu.get_vcpu_events()?,
            mp_state,
        })
    }

    /// Writes the state back. Model-specific registers come before the local APIC, whose timer
    /// mode depends on one, the timer's deadline after it, and the run state last.
    pub(super) fn restore(&self, vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
        vcpu.set_sregs(&self.sregs)?;
        vcpu.set_regs(&self.regs)?;
        vcpu.set_xcrs(&self.xcrs)?;
        // SAFETY: the state was read by KVM_GET_XSAVE from the same vCPU, and no dynamically
        // enabled feature (AMX) is ever requested, so its 4 KiB hold it all.
        unsafe { vcpu.set_xsave(&self.xsave) }?;
        vcpu.set_debug_regs(&self.debug)?;
        let (deadline, others): (Vec<_>, Vec<_>) =
            self.msrs.iter().partition(|entry| entry.index == MSR_TSC_DEADLINE);
        write_msrs(vcpu, &others)?;
        vcpu.set_lapic(&self.lapic)?;
        write_msrs(vcpu, &deadline)?;
        vcpu.set_vcpu_events(&self.events)?;
        vcpu.set_mp_state(self.mp_state)
    }
}

/// Writes model-specific registers one after the other; a register that KVM lists but does not
/// let us write keeps its value.
pub(super) fn write_msrs(vcpu: &VcpuFd, msrs: &[kvm_msr_entry]) -> Result<(), kvm_ioctls::Error> {
    let mut rest = msrs;
    while !rest.is_empty() {
        let list = Msrs::from_entries(rest).map_err(|_| kvm_ioctls::Error::new(libc::ENOMEM))?;
        let done = vcpu.set_msrs(&list)?;
        if let Some(entry) = rest.get(done) {
            tracing::debug!(msr = entry.index, "kvm does not restore this register");
        }
        rest = rest.get(done + 1..).unwrap_or_default();
    }
    Ok(())
}

/// KVM stops at the first register that it cannot read; that one is left out.
fn read_msrs(vcpu: &VcpuFd, indices: &[u32]) -> Vec<kvm_msr_entry> {
    let mut rest: Vec<_> =
        indices.iter().map(|index| kvm_msr_entry { index: *index, ..Default::default() }).collect();
    let mut found = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let Ok(mut list) = Msrs::from_entries(&rest) else { return found };
        let Ok(done) = vcpu.get_msrs(&mut list) else { return found };
        found.extend_from_slice(&list.as_slice()[..done]);
        rest.drain(..rest.len().min(done + 1));
    }
    found
}
