//! One VF of the pool: its lease and the carrying out of a transition's effects.

use super::settle::settle;
use super::{CLOSE_DEADLINE, CLOSE_POLL, FaultPoint, Host, Step};
use crate::inventory::Vf;
use crate::lease::{LeaseEffect, LeaseEvent, LeaseState, Refused, transition};
use crate::ops::{LeaseId, MacAddr, OpError, Rings, VfEntry, with_causes};
use crate::switch::SwitchError;
use crate::vendor::{PfModule, VendorError, placeholder};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// The process that holds a lease.
#[derive(Debug, Clone)]
pub struct Owner {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
    /// Readable once it has ended.
    pub ended: Arc<OwnedFd>,
}

/// What is known of a VF's lease.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) state: LeaseState,
    pub(super) owner: Option<Owner>,
    /// The VM's name and its device's, as it told.
    pub(super) vm: Option<String>,
    pub(super) device: Option<String>,
    /// The VM's address, from activate on.
    pub(super) mac: Option<MacAddr>,
    /// The switch port of its emulated path, from activate on.
    pub(super) port: Option<String>,
    pub(super) rings: Rings,
    pub(super) fault: Option<String>,
    /// Taken over from a former daemon, whose answer to the acquire may have got lost: when the
    /// owner is taken not to know of it, unless it does something with it.
    pub(super) orphan_at: Option<Instant>,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            state: LeaseState::Free,
            owner: None,
            vm: None,
            device: None,
            mac: None,
            port: None,
            rings: Rings::default(),
            fault: None,
            orphan_at: None,
        }
    }
}

/// A VF of the pool.
pub struct Slot {
    /// The VF.
    pub vf: Vf,
    /// Its PF's module.
    pub module: Arc<dyn PfModule>,
    /// Held for the whole of an operation.
    busy: Mutex<()>,
    /// Held only to look or to write.
    lease: Mutex<Lease>,
}

/// A refusal of the state machine, or a failed effect.
pub(super) enum Advance {
    Refused(Refused),
    Failed(OpError),
}

impl Slot {
    pub(super) fn new(vf: Vf, module: Arc<dyn PfModule>) -> Self {
        Self { vf, module, busy: Mutex::new(()), lease: Mutex::new(Lease::default()) }
    }

    /// The handle of its lease.
    pub fn id(&self) -> LeaseId {
        LeaseId(self.vf.address)
    }

    /// The process that holds it.
    pub fn owner(&self) -> Option<Owner> {
        self.lease().owner.clone()
    }

    /// Takes the VF for one operation.
    pub(super) fn begin(&self) -> MutexGuard<'_, ()> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, unless an operation is going on.
    pub(super) fn try_begin(&self) -> Option<MutexGuard<'_, ()>> {
        match self.busy.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address that it carries: the kernel's word, and ours where the kernel has none.
    pub(super) fn mac(&self) -> Result<MacAddr, VendorError> {
        if let Some(mac) = self.module.vf_mac(self.vf.index)? {
            return Ok(mac);
        }
        let (state, mac) = {
            let lease = self.lease();
            (lease.state, lease.mac)
        };
        match mac.filter(|_| state == LeaseState::Active) {
            Some(mac) => Ok(mac),
            None => self.placeholder(),
        }
    }

    pub(super) fn placeholder(&self) -> Result<MacAddr, VendorError> {
        Ok(placeholder(self.module.uplink()?.mac, self.vf.index))
    }

    /// What is shown of it; `link_up` is what its uplink says.
    pub(super) fn entry(&self, link_up: bool) -> VfEntry {
        // The kernel may be slow: it is asked before the lease is looked at.
        let mac = self.mac().unwrap_or(MacAddr([0; 6]));
        let description = self.module.describe();
        let lease = self.lease();
        VfEntry {
            vf: self.vf.address,
            pf: self.module.interface().to_owned(),
            index: self.vf.index,
            class: description.class,
            plugin: description.plugin,
            iommu_group: self.vf.iommu_group,
            state: lease.state,
            mac,
            owner_pid: lease.owner.as_ref().map(|owner| owner.pid),
            vm: lease.vm.clone(),
            device: lease.device.clone(),
            fault: lease.fault.clone(),
            maintenance: false,
            link_up,
            profiles: Vec::new(),
        }
    }

    /// Takes the lease through `event`. The caller holds [`Slot::begin`]'s guard.
    pub(super) fn advance(&self, event: LeaseEvent, host: &Host) -> Result<(), Advance> {
        let from = self.lease().state;
        let next = transition(from, event).map_err(Advance::Refused)?;
        let started = Instant::now();
        // On the way to freedom every step counts, whatever became of the one before.
        let freeing = next.state == LeaseState::Free;
        let outcome = self.carry_out(next.effects, freeing, host);
        let reached = match &outcome {
            Ok(()) => next.state,
            Err(_) => self.fail(next.state, host),
        };
        let fault = outcome.as_ref().err().map(ToString::to_string);
        let mut lease = self.lease();
        let news = lease.fault != fault || from != reached;
        lease.state = reached;
        lease.orphan_at = None;
        lease.fault.clone_from(&fault);
        if reached == LeaseState::Free {
            *lease = super::vacant();
        }
        drop(lease);
        let (vf, us) = (self.vf.address, started.elapsed().as_micros() as u64);
        match fault {
            None => tracing::info!(%vf, ?event, %from, to = %reached, us, "lease"),
            Some(fault) if news => {
                tracing::error!(%vf, ?event, %from, to = %reached, us, fault, "lease");
            }
            // Tried again in vain; said once already.
            Some(fault) => tracing::debug!(%vf, ?event, %from, to = %reached, us, fault, "lease"),
        }
        outcome.map_err(Advance::Failed)
    }

    /// Makes the switch agree with an active lease; a lease for which that fails is failed.
    pub(super) fn reassert(&self, host: &Host) {
        if let Err(error) = self.effect(LeaseEffect::ForwardToUplink, host) {
            let state = self.fail(LeaseState::Active, host);
            let mut lease = self.lease();
            lease.state = state;
            lease.fault = Some(error.to_string());
        }
    }

    /// Undoes what can be undone after a failed effect on the way to `state`.
    fn fail(&self, state: LeaseState, host: &Host) -> LeaseState {
        let Ok(next) = transition(state, LeaseEvent::Fault) else { return LeaseState::Failed };
        if let Err(error) = self.carry_out(next.effects, true, host) {
            tracing::error!(vf = %self.vf.address, %error, "the failed step was not undone");
        }
        next.state
    }

    /// Carries out effects; the first failure is the result. With `all`, those after a failure
    /// are carried out too, up to the wait for the VF to be closed: a VF that is in use is not
    /// touched.
    fn carry_out(&self, effects: &[LeaseEffect], all: bool, host: &Host) -> Result<(), OpError> {
        let mut outcome = Ok(());
        for effect in effects {
            if let Err(error) = self.effect(*effect, host) {
                let stop = !all || *effect == LeaseEffect::AwaitClosed;
                outcome = outcome.and(Err(error));
                if stop {
                    break;
                }
            }
        }
        outcome
    }

    fn effect(&self, effect: LeaseEffect, host: &Host) -> Result<(), OpError> {
        host.faults.reach(FaultPoint::Before(Step::Effect(effect)));
        let outcome = self.carry_out_one(effect, host);
        host.faults.reach(FaultPoint::After(Step::Effect(effect)));
        outcome
    }

    fn carry_out_one(&self, effect: LeaseEffect, host: &Host) -> Result<(), OpError> {
        let (mac, port) = {
            let lease = self.lease();
            (lease.mac, lease.port.clone())
        };
        let index = self.vf.index;
        let module = &self.module;
        match effect {
            LeaseEffect::SetPlaceholder => self
                .move_mac_back()
                .and_then(|()| module.restore_defaults(index))
                .map_err(|error| vendor_error("preparing the VF", error)),
            LeaseEffect::PrepareQueues => {
                let rings = self.lease().rings.clone();
                module
                    .prepare_queues(index, &rings)
                    .map_err(|error| vendor_error("preparing the queues", error))
            }
            LeaseEffect::MoveMacBack => self
                .move_mac_back()
                .map_err(|error| vendor_error("taking the address off the VF", error)),
            LeaseEffect::MoveMacToVf => mac.map_or(Ok(()), |mac| {
                module
                    .set_vf_mac(index, mac)
                    .map_err(|error| vendor_error("moving the address to the VF", error))
            }),
            LeaseEffect::SettleUplink => {
                settle(module.interface());
                Ok(())
            }
            LeaseEffect::ForwardToUplink => mac.map_or(Ok(()), |mac| {
                let step = "forwarding to the uplink";
                let uplink = module.uplink().map_err(|error| vendor_error(step, error))?;
                let switch = &host.switch;
                switch
                    .forward_to_uplink(mac, uplink.index)
                    .map_err(|error| switch_error(step, &error))
            }),
            LeaseEffect::ForwardToPort => mac.map_or(Ok(()), |mac| {
                host.switch
                    .forward_to_port(mac, port.as_deref())
                    .map_err(|error| switch_error("forwarding to the emulated path", &error))
            }),
            LeaseEffect::ForgetForwarding => mac.map_or(Ok(()), |mac| {
                let step = "removing the forwarding entry";
                let uplink = module.uplink().map_err(|error| vendor_error(step, error))?;
                host.switch.forget(mac, uplink.index).map_err(|error| switch_error(step, &error))
            }),
            LeaseEffect::AwaitClosed => self.await_closed(host),
            LeaseEffect::ResetVf => {
                module.reset(&self.vf).map_err(|error| vendor_error("resetting the VF", error))
            }
        }
    }

    fn move_mac_back(&self) -> Result<(), VendorError> {
        self.module.set_vf_mac(self.vf.index, self.placeholder()?)
    }

    fn await_closed(&self, host: &Host) -> Result<(), OpError> {
        let deadline = Instant::now() + CLOSE_DEADLINE;
        let group = self.vf.iommu_group;
        loop {
            let open = host.occupancy.is_open(group).map_err(|error| OpError::Kernel {
                step: "looking whether the VF is closed".to_owned(),
                reason: with_causes(&error),
            })?;
            if !open {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let holder = host.occupancy.holder(group);
                return Err(OpError::StillOpen { holder });
            }
            thread::sleep(CLOSE_POLL);
        }
    }
}

pub(super) fn vendor_error(step: &str, error: VendorError) -> OpError {
    match error {
        VendorError::NotSupported(op) => OpError::NotSupported { op },
        VendorError::Invalid(reason) => OpError::Invalid { reason },
        other => OpError::Kernel { step: step.to_owned(), reason: with_causes(&other) },
    }
}

pub(super) fn switch_error(step: &str, error: &SwitchError) -> OpError {
    match error {
        SwitchError::NotAPort { .. } => OpError::Invalid { reason: error.to_string() },
        other => OpError::Kernel { step: step.to_owned(), reason: with_causes(other) },
    }
}
