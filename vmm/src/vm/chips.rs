//! The in-kernel interrupt controllers and timer: created once, put back to their first state
//! when the guest reboots.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_PIT_SPEAKER_DUMMY,
    kvm_irqchip, kvm_pit_config, kvm_pit_state2,
};
use kvm_ioctls::VmFd;

use super::layout::{KVM_IDENTITY_MAP, KVM_TSS};

/// The state of the VM-wide chips after creation.
pub(super) struct Chips {
    irqchips: [kvm_irqchip; 3],
    pit: kvm_pit_state2,
}

impl Chips {
    /// Creates interrupt controllers and timer; before any vCPU.
    pub(super) fn create(vm: &VmFd) -> Result<Self, kvm_ioctls::Error> {
        vm.set_identity_map_address(KVM_IDENTITY_MAP)?;
        vm.set_tss_address(KVM_TSS as usize)?;
        vm.create_irq_chip()?;
        vm.create_pit2(kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() })?;
        let mut irqchips = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC]
            .map(|chip_id| kvm_irqchip { chip_id, ..Default::default() });
        for chip in &mut irqchips {
            vm.get_irqchip(chip)?;
        }
        Ok(Self { irqchips, pit: vm.get_pit2()? })
    }

    /// Puts them back to the state of their creation.
    pub(super) fn reset(&self, vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
        for chip in &self.irqchips {
            vm.set_irqchip(chip)?;
        }
        vm.set_pit2(&self.pit)
    }
}
