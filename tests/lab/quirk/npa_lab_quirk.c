// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Spares the guests of an emulated lab host a fault of QEMU's translator. It is loaded in lab hosts
 * only, and does nothing on a real CPU.
 *
 * VMRUN with an interrupt to deliver leaves that interrupt's vector in the emulated CPU's
 * exception_index (seen with QEMU 10.0, helper_vmrun). Should the emulator then take the CPU out of
 * its translated code for another reason, while KVM waits for the guest to open its interrupt
 * window, the vector is delivered a second time, at whatever instruction the guest has come to,
 * interrupts disabled or not. Between a system call and the switch of stacks that is a double fault.
 *
 * An exit of the guest resets the word. KVM can be asked for one right after an entry, as it needs it
 * itself for nested guests: so it is asked whenever an interrupt is delivered. That costs an exit for
 * each interrupt, which shows in every count of exits.
 */
#include <linux/kprobes.h>
#include <linux/kvm_host.h>
#include <linux/module.h>
#include <asm/processor.h>

/* svm_vcpu_run(struct kvm_vcpu *vcpu, bool force_immediate_exit), interrupts disabled. */
static int before_entry(struct kprobe *probe, struct pt_regs *regs)
{
	struct kvm_vcpu *vcpu = (struct kvm_vcpu *)regs->di;

	if (vcpu->arch.interrupt.injected)
		regs->si = true;
	return 0;
}

static struct kprobe entry = {
	.symbol_name = "svm_vcpu_run",
	.pre_handler = before_entry,
};

static bool probed;

static int __init npa_lab_quirk_init(void)
{
	int err;

	if (!hypervisor_cpuid_base("TCGTCGTCGTCG", 0))
		return 0;
	err = register_kprobe(&entry);
	probed = !err;
	return err;
}

static void __exit npa_lab_quirk_exit(void)
{
	if (probed)
		unregister_kprobe(&entry);
}

module_init(npa_lab_quirk_init);
module_exit(npa_lab_quirk_exit);

MODULE_DESCRIPTION("Keeps QEMU's translator from delivering a guest's interrupt twice");
MODULE_LICENSE("Dual MIT/GPL");
