//! Owns the VM's GSI routing table and hands out GSIs for message-signalled interrupts.
//! Never injects an interrupt itself: that is the irqfds' work, in the kernel.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use kvm_bindings::{KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE};
use vmm_sys_util::eventfd::EventFd;

use crate::vm::hypervisor::{GsiRoute, Hypervisor, MsiMessage};

/// Inputs of the one I/O APIC; GSIs below are its pins, GSIs from here on are messages.
pub(crate) const IOAPIC_PINS: u32 = 24;
/// Inputs of the two legacy interrupt controllers.
const PIC_PINS: u32 = 16;
/// KVM_MAX_IRQ_ROUTES; GSIs must be smaller.
const MAX_GSI: u32 = 4096;

/// An interrupt that could not be wired.
#[derive(Debug, thiserror::Error)]
pub enum IrqError {
    /// No GSI left.
    #[error("all {MAX_GSI} interrupt routes are in use")]
    Exhausted,
    /// KVM refused the routing table.
    #[error("kvm refused the interrupt routes")]
    Routes(#[source] io::Error),
    /// KVM refused to connect or disconnect an eventfd.
    #[error("kvm refused the irqfd of interrupt {gsi}")]
    Irqfd {
        /// Global system interrupt number.
        gsi: u32,
        /// KVM's reason.
        #[source]
        source: io::Error,
    },
    /// No eventfd.
    #[error("cannot make an eventfd for an interrupt")]
    EventFd(#[source] io::Error),
}

/// The routing table of one VM. Thread-safe.
pub struct IrqRouter {
    hypervisor: Arc<dyn Hypervisor>,
    /// GSIs given out, and the message of those that have one.
    messages: Mutex<BTreeMap<u32, Option<MsiMessage>>>,
}

impl IrqRouter {
    /// The table that a PC starts with: pin n of PIC and I/O APIC is GSI n.
    pub fn new(hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self { hypervisor, messages: Mutex::new(BTreeMap::new()) }
    }

    /// Takes a free GSI for messages; it leads nowhere until [`IrqRouter::set_message`].
    pub fn allocate(&self) -> Result<u32, IrqError> {
        let mut messages = self.messages.lock().unwrap();
        let gsi = (IOAPIC_PINS..MAX_GSI)
            .find(|gsi| !messages.contains_key(gsi))
            .ok_or(IrqError::Exhausted)?;
        messages.insert(gsi, None);
        Ok(gsi)
    }

    /// Gives back a GSI, whose irqfd must be deassigned.
    pub fn release(&self, gsi: u32) {
        self.messages.lock().unwrap().remove(&gsi);
    }

    /// Routes `gsi` to `message`. Costs a grace period in the kernel, so callers skip it when
    /// nothing changed.
    pub fn set_message(&self, gsi: u32, message: MsiMessage) -> Result<(), IrqError> {
        let mut messages = self.messages.lock().unwrap();
        messages.insert(gsi, Some(message));
        let mut routes = chip_routes();
        routes.extend(
            messages
                .iter()
                .filter_map(|(gsi, message)| message.map(|message| (*gsi, message)))
                .map(|(gsi, message)| GsiRoute::Msi { gsi, message }),
        );
        self.hypervisor.set_gsi_routes(&routes).map_err(IrqError::Routes)
    }

    /// Connects `event` to `gsi`, a message or (below 24) a pin of PIC and I/O APIC.
    pub fn connect(&self, event: &EventFd, gsi: u32) -> Result<(), IrqError> {
        self.hypervisor.assign_irqfd(event, gsi).map_err(|source| IrqError::Irqfd { gsi, source })
    }

    /// Disconnects `event`; what is signalled from now on stays in the eventfd's counter.
    pub fn disconnect(&self, event: &EventFd, gsi: u32) -> Result<(), IrqError> {
        self.hypervisor.deassign_irqfd(event, gsi).map_err(|source| IrqError::Irqfd { gsi, source })
    }
}

/// What KVM itself sets up with KVM_CREATE_IRQCHIP; a new table must repeat it.
fn chip_routes() -> Vec<GsiRoute> {
    let pic = (0..PIC_PINS).map(|gsi| {
        let (chip, pin) = match gsi {
            0..8 => (KVM_IRQCHIP_PIC_MASTER, gsi),
            _ => (KVM_IRQCHIP_PIC_SLAVE, gsi - 8),
        };
        GsiRoute::Chip { gsi, chip, pin }
    });
    let ioapic =
        (0..IOAPIC_PINS).map(|gsi| GsiRoute::Chip { gsi, chip: KVM_IRQCHIP_IOAPIC, pin: gsi });
    pic.chain(ioapic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::hypervisor::fake::FakeHypervisor;

    #[test]
    fn messages_keep_their_gsi() {
        let fake = Arc::new(FakeHypervisor::default());
        let router = IrqRouter::new(fake.clone());
        let (a, b) = (router.allocate().unwrap(), router.allocate().unwrap());
        assert_eq!((a, b), (24, 25));
        let message = MsiMessage { address: 0xfee0_1000, data: 0x41 };
        router.set_message(b, message).unwrap();
        assert_eq!(fake.message(b), Some(message));
        assert_eq!(fake.message(a), None);
        router.release(a);
        assert_eq!(router.allocate().unwrap(), 24);
    }

    #[test]
    fn chip_pins_are_always_routed() {
        assert_eq!(chip_routes().len(), 40);
        assert!(chip_routes().contains(&GsiRoute::Chip {
            gsi: 9,
            chip: KVM_IRQCHIP_PIC_SLAVE,
            pin: 1
        }));
    }

    #[test]
    fn gsis_run_out() {
        let router = IrqRouter::new(Arc::new(FakeHypervisor::default()));
        for _ in IOAPIC_PINS..MAX_GSI {
            router.allocate().unwrap();
        }
        assert!(matches!(router.allocate(), Err(IrqError::Exhausted)));
    }
}
