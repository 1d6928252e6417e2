//! The op table's dispatch: each operation on a lease, checked and carried out.

use super::acquire::describe;
use super::slot::{Advance, Slot, switch_error, vendor_error};
use super::{COMMON_OPS, Pool};
use crate::lease::{LeaseEvent, LeaseState};
use crate::ops::{
    DeviceClass, LeaseId, LeaseInfo, MacAddr, Op, OpError, Reply, Request, Supported, with_causes,
};
use crate::port::audit;
use crate::vendor::is_placeholder;
use std::os::fd::OwnedFd;

impl Pool {
    /// Carries out `request` for the process `pid`. Takes at most some seconds.
    ///
    /// # Errors
    /// [`OpError`]; after a failed effect the lease is failed, and release leads on.
    pub fn carry_out(&self, request: &Request, pid: u32) -> Result<Reply, OpError> {
        let told = self.dispatch(request, pid);
        let port = match request {
            Request::Activate { port, .. } => Some(port.clone()),
            Request::SetMac { lease, .. }
            | Request::SetDefaultVlan { lease, .. }
            | Request::SetAntiSpoof { lease, .. } => {
                self.held(*lease, pid).ok().and_then(|slot| slot.lease().port.clone())
            }
            _ => None,
        };
        audit::request(pid, port.as_deref(), request, &told);
        told
    }

    fn dispatch(&self, request: &Request, pid: u32) -> Result<Reply, OpError> {
        let op = request.op();
        match request {
            Request::IsSupported { class } => Ok(Reply::Supported(self.supported(*class))),
            Request::Acquire(request) => {
                self.acquire(request, pid).map(|acquired| Reply::Acquired(Box::new(acquired)))
            }
            Request::Init { lease, rings } => {
                let slot = self.held(*lease, pid)?;
                let _guard = slot.begin();
                // A refused init must not replace the rings of the one that was granted.
                let state = slot.lease().state;
                if matches!(state, LeaseState::Acquired | LeaseState::Initialised) {
                    slot.lease().rings.clone_from(rings);
                }
                self.step(slot, op, LeaseEvent::Init)
            }
            Request::Activate { lease, mac, port } => {
                let slot = self.held(*lease, pid)?;
                let _guard = slot.begin();
                self.activate(slot, *mac, port)
            }
            Request::Quiesce { lease } => {
                let slot = self.held(*lease, pid)?;
                let _guard = slot.begin();
                self.step(slot, op, LeaseEvent::Quiesce)
            }
            Request::Release { lease } => match self.held(*lease, pid) {
                Ok(slot) => {
                    let _guard = slot.begin();
                    self.step(slot, op, LeaseEvent::Release)
                }
                // What nobody holds is released already; a VF that is not ours never was leased.
                Err(OpError::NoSuchLease { .. }) if self.knows(*lease) => Ok(Reply::Done),
                Err(error) => Err(error),
            },
            Request::GetInfo { lease } => {
                info(self.held(*lease, pid)?).map(|info| Reply::Info(Box::new(info)))
            }
            Request::SetMac { lease, mac } => {
                let slot = self.held(*lease, pid)?;
                let _guard = slot.begin();
                self.set_mac(slot, *mac)
            }
            Request::SetDefaultVlan { lease, vlan, priority } => {
                if *vlan > 4094 || *priority > 7 {
                    let reason = "a VLAN is 0 to 4094, a priority 0 to 7".to_owned();
                    return Err(OpError::Invalid { reason });
                }
                let slot = self.held(*lease, pid)?;
                let _guard = slot.begin();
                let port = port_of(slot)?;
                self.policies.of(&port)?.check_vlan(&port, *vlan)?;
                slot.module
                    .set_default_vlan(slot.vf.index, *vlan, *priority)
                    .map(|()| Reply::Done)
                    .map_err(|error| vendor_error("setting the VLAN", error))
            }
            Request::SetAntiSpoof { lease, enabled } => {
                let slot = self.held(*lease, pid)?;
                let _guard = slot.begin();
                let port = port_of(slot)?;
                self.policies.of(&port)?.check_spoof_check(&port, *enabled)?;
                slot.module
                    .set_anti_spoof(slot.vf.index, *enabled)
                    .map(|()| Reply::Done)
                    .map_err(|error| vendor_error("setting the source check", error))
            }
            Request::SaveState { lease }
            | Request::SetRssTable { lease, .. }
            | Request::QueueStats { lease, .. }
            | Request::QueueStatus { lease, .. }
            | Request::SetMulticast { lease, .. }
            | Request::SetRxMode { lease, .. }
            | Request::AddVlanRange { lease, .. }
            | Request::DelVlanRange { lease, .. }
            | Request::SetInterruptModeration { lease, .. }
            | Request::SetMtu { lease, .. }
            | Request::Mirror { lease, .. } => {
                self.held(*lease, pid)?;
                Err(OpError::NotSupported { op })
            }
            Request::AddPfMacFilter { .. } | Request::DelPfMacFilter { .. } => {
                Err(OpError::NotSupported { op })
            }
        }
    }

    fn knows(&self, lease: LeaseId) -> bool {
        self.slots.iter().any(|slot| slot.id() == lease)
    }

    fn supported(&self, class: DeviceClass) -> Supported {
        let of_class = || self.slots.iter().filter(|slot| slot.module.describe().class == class);
        let mut ops = Vec::new();
        if let Some(slot) = of_class().next() {
            let extra = slot.module.extra_ops();
            ops = Op::ALL
                .into_iter()
                .filter(|op| COMMON_OPS.contains(op) || extra.contains(op))
                .collect();
        }
        Supported {
            vfs: of_class().count() as u32,
            free: of_class()
                .filter(|slot| slot.lease().state == LeaseState::Free)
                .filter(|slot| !self.is_in_maintenance(slot))
                .count() as u32,
            ops,
        }
    }

    /// Takes a lease through an event. The caller holds the slot's guard.
    fn step(&self, slot: &Slot, op: Op, event: LeaseEvent) -> Result<Reply, OpError> {
        let outcome = slot.advance(event, &self.host);
        self.record(slot);
        match outcome {
            Ok(()) => Ok(Reply::Done),
            Err(Advance::Refused(refused)) => Err(OpError::WrongState { op, state: refused.state }),
            Err(Advance::Failed(error)) => Err(error),
        }
    }

    fn activate(&self, slot: &Slot, mac: MacAddr, port: &str) -> Result<Reply, OpError> {
        let (state, active_mac) = {
            let lease = slot.lease();
            (lease.state, lease.mac)
        };
        if state == LeaseState::Active && active_mac != Some(mac) {
            return Err(OpError::WrongState { op: Op::Activate, state });
        }
        if state == LeaseState::Initialised {
            self.check_mac(slot, mac)?;
            self.check_port(slot, port)?;
            let policy = self.policies.of(port)?;
            policy.check_mac(port, mac)?;
            // Before frames can come or go.
            slot.module
                .apply(slot.vf.index, &policy.settings())
                .map_err(|error| vendor_error("setting the VF as its port's policy says", error))?;
            let mut lease = slot.lease();
            lease.mac = Some(mac);
            lease.port = Some(port.to_owned());
            drop(lease);
            // Written before anything moves: a daemon that dies now leaves a trace of the port.
            self.record(slot);
        }
        self.step(slot, Op::Activate, LeaseEvent::Activate)
    }

    /// The old address goes the emulated way, the VF takes the new one, the switch sends there.
    fn set_mac(&self, slot: &Slot, mac: MacAddr) -> Result<Reply, OpError> {
        let (state, old, port) = {
            let lease = slot.lease();
            (lease.state, lease.mac, lease.port.clone())
        };
        if state != LeaseState::Active {
            return Err(OpError::WrongState { op: Op::SetMac, state });
        }
        if old == Some(mac) {
            return Ok(Reply::Done);
        }
        self.check_mac(slot, mac)?;
        let its = port_of(slot)?;
        self.policies.of(&its)?.check_mac(&its, mac)?;
        let step = "changing the address";
        let uplink = slot.module.uplink().map_err(|error| vendor_error(step, error))?;
        let failed = |error| switch_error(step, &error);
        let switch = &self.host.switch;
        // The VF takes one address, so its old one goes the emulated way before it is left.
        if let Some(old) = old {
            switch.forward_to_port(old, port.as_deref()).map_err(failed)?;
        }
        slot.module.set_vf_mac(slot.vf.index, mac).map_err(|error| vendor_error(step, error))?;
        slot.lease().mac = Some(mac);
        let outcome = switch
            .forward_to_uplink(mac, uplink.index)
            .and_then(|()| old.map_or(Ok(()), |old| switch.forget(old, uplink.index)));
        // Last: until then a later daemon sees by the record which address to forget.
        self.record(slot);
        outcome.map(|()| Reply::Done).map_err(failed)
    }

    fn check_mac(&self, slot: &Slot, mac: MacAddr) -> Result<(), OpError> {
        let invalid = |reason: String| Err(OpError::Invalid { reason });
        if !mac.is_station() || is_placeholder(mac, u32::from(mac.0[5])) {
            return invalid(format!("{mac} cannot be a VM's address"));
        }
        let uplink =
            slot.module.uplink().map_err(|error| vendor_error("reading the uplink", error))?;
        if mac == uplink.mac {
            return invalid(format!("{mac} is the uplink's own address"));
        }
        let taken = self
            .slots
            .iter()
            .any(|other| other.id() != slot.id() && other.lease().mac == Some(mac));
        if taken { invalid(format!("{mac} is on another VF already")) } else { Ok(()) }
    }

    /// Whether the operator knows a port.
    ///
    /// # Errors
    /// [`OpError::Policy`].
    pub fn check_policy(&self, port: &str) -> Result<(), OpError> {
        self.policies.of(port).map(drop)
    }

    /// Opens the IOMMU group of a VF for the process that holds it and has not yet brought it into
    /// use.
    ///
    /// # Errors
    /// [`OpError`]: not its lease, no such group, or open already.
    pub fn open_group(&self, lease: LeaseId, pid: u32) -> Result<OwnedFd, OpError> {
        let slot = self.held(lease, pid)?;
        let _guard = slot.begin();
        let state = slot.lease().state;
        if state != LeaseState::Acquired {
            let reason = format!("a VF is opened once it is acquired, and this one is {state}");
            return Err(OpError::Invalid { reason });
        }
        self.host.occupancy.open(slot.vf.iommu_group).map_err(|error| OpError::Kernel {
            step: "opening the VF's IOMMU group".to_owned(),
            reason: with_causes(&error),
        })
    }

    fn check_port(&self, slot: &Slot, port: &str) -> Result<(), OpError> {
        let interface = slot.module.interface();
        if port == interface {
            let reason = format!("'{port}' is the uplink, not a VM's port");
            return Err(OpError::Invalid { reason });
        }
        let checked = self.host.switch.check_port(port);
        checked.map_err(|error| switch_error("looking up the port", &error))
    }
}

/// The port of the VM that the VF serves.
fn port_of(slot: &Slot) -> Result<String, OpError> {
    slot.lease().port.clone().ok_or_else(|| OpError::Invalid {
        reason: "the VF serves no port yet: that is asked once it is active".to_owned(),
    })
}

fn info(slot: &Slot) -> Result<LeaseInfo, OpError> {
    let error = |error| vendor_error("describing the VF", error);
    let acquired = describe(slot)?;
    let mac = slot.mac().map_err(error)?;
    let link_up = slot.module.uplink().map_err(error)?.link_up;
    let lease = slot.lease();
    Ok(LeaseInfo { acquired, state: lease.state, mac, port: lease.port.clone(), link_up })
}
