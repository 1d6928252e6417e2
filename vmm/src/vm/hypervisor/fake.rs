//! A hypervisor that only keeps books: device tests see which slots, routes, irqfds and
//! ioeventfds exist. Never runs a guest.
#![allow(unsafe_code)] // Implements the trait's unsafe method; does nothing with the memory.

use kvm_ioctls::DeviceFd;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::EventFd;

use super::{DataMatch, GsiRoute, Hypervisor, IoAddress, MsiMessage, Slot};

/// See the module.
#[derive(Default)]
pub(crate) struct FakeHypervisor {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<u32, Slot>,
    routes: Vec<GsiRoute>,
    routings: usize,
    /// GSI to eventfd.
    irqfds: BTreeMap<u32, i32>,
    ioevents: BTreeMap<(IoAddress, DataMatch), i32>,
}

impl FakeHypervisor {
    pub(crate) fn slots(&self) -> Vec<Slot> {
        self.state.lock().unwrap().slots.values().copied().collect()
    }

    /// Whether an irqfd is assigned to `gsi`.
    pub(crate) fn has_irqfd(&self, gsi: u32) -> bool {
        self.state.lock().unwrap().irqfds.contains_key(&gsi)
    }

    /// The message that `gsi` is routed to.
    pub(crate) fn message(&self, gsi: u32) -> Option<MsiMessage> {
        self.state.lock().unwrap().routes.iter().find_map(|route| match route {
            GsiRoute::Msi { gsi: at, message } if *at == gsi => Some(*message),
            _ => None,
        })
    }

    /// How often the routing table was replaced.
    pub(crate) fn routings(&self) -> usize {
        self.state.lock().unwrap().routings
    }

    pub(crate) fn ioevents(&self) -> Vec<(IoAddress, DataMatch)> {
        self.state.lock().unwrap().ioevents.keys().copied().collect()
    }
}

fn exists() -> io::Error {
    io::Error::from_raw_os_error(libc::EEXIST)
}

fn missing() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

impl Hypervisor for FakeHypervisor {
    unsafe fn set_memory_slot(&self, slot: Slot) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if slot.len == 0 {
            return state.slots.remove(&slot.id).map(drop).ok_or_else(missing);
        }
        let overlaps = state.slots.values().any(|other| {
            other.id != slot.id
                && slot.gpa < other.gpa + other.len
                && other.gpa < slot.gpa + slot.len
        });
        if overlaps {
            return Err(exists());
        }
        state.slots.insert(slot.id, slot);
        Ok(())
    }

    fn set_gsi_routes(&self, routes: &[GsiRoute]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.routes = routes.to_vec();
        state.routings += 1;
        Ok(())
    }

    fn assign_irqfd(&self, event: &EventFd, gsi: u32) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let fd = event.as_raw_fd();
        if state.irqfds.values().any(|assigned| *assigned == fd) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        state.irqfds.insert(gsi, fd);
        Ok(())
    }

    fn deassign_irqfd(&self, _event: &EventFd, gsi: u32) -> io::Result<()> {
        self.state.lock().unwrap().irqfds.remove(&gsi).map(drop).ok_or_else(missing)
    }

    fn assign_ioevent(&self, event: &EventFd, at: IoAddress, on: DataMatch) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.ioevents.contains_key(&(at, on)) {
            return Err(exists());
        }
        state.ioevents.insert((at, on), event.as_raw_fd());
        Ok(())
    }

    fn deassign_ioevent(&self, _event: &EventFd, at: IoAddress, on: DataMatch) -> io::Result<()> {
        self.state.lock().unwrap().ioevents.remove(&(at, on)).map(drop).ok_or_else(missing)
    }

    fn vfio_device(&self) -> io::Result<Arc<DeviceFd>> {
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }
}
