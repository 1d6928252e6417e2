//! The in-kernel interrupt controllers and timer: created once, put back to their first state
//! when the guest reboots, saved with the VM.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_PIT_SPEAKER_DUMMY,
    kvm_irqchip, kvm_pit_config, kvm_pit_state2,
};
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};

use super::layout::{KVM_IDENTITY_MAP, KVM_TSS};
use crate::state::Payload;

/// The state of the VM-wide chips.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chips {
    irqchips: [kvm_irqchip; 3],
    pit: kvm_pit_state2,
}

impl Payload for Chips {
    const KIND: &'static str = "chips";
    const VERSION: u16 = 1;
}

impl Chips {
    /// Creates interrupt controllers and timer; before any vCPU.
    pub(super) fn create(vm: &VmFd) -> Result<Self, kvm_ioctls::Error> {
        vm.set_identity_map_address(KVM_IDENTITY_MAP)?;
        vm.set_tss_address(KVM_TSS as usize)?;
        vm.create_irq_chip()?;
        vm.create_pit2(kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() })?;
        Self::read(vm)
    }

    /// Reads their present state.
    pub(super) fn read(vm: &VmFd) -> Result<Self, kvm_ioctls::Error> {
        let mut irqchips = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC]
            .map(|chip_id| kvm_irqchip { chip_id, ..Default::default() });
        for chip in &mut irqchips {
            vm.get_irqchip(chip)?;
        }
        Ok(Self { irqchips, pit: vm.get_pit2()? })
    }

    /// Puts them into this state.
    pub(super) fn write(&self, vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
        for chip in &self.irqchips {
            vm.set_irqchip(chip)?;
        }
        vm.set_pit2(&self.pit)
    }
}
