//! No instruction that needs privilege, and none that ends in a trap handler or an exit.

use iced_x86::{FlowControl, Instruction, InstructionInfo, Mnemonic};

/// Whether user mode may not run the instruction.
pub(super) fn is_privileged(instruction: &Instruction, _: &InstructionInfo) -> bool {
    instruction.is_privileged()
}

/// Whether the instruction leaves for a handler (`int`, `ud2`, `syscall`) or makes a virtual CPU
/// exit (`cpuid`, `rdpmc`, `hlt`, ...).
pub(super) fn is_trapping(instruction: &Instruction, _: &InstructionInfo) -> bool {
    matches!(instruction.flow_control(), FlowControl::Interrupt | FlowControl::Exception)
        || matches!(
            instruction.mnemonic(),
            Mnemonic::Cpuid
                | Mnemonic::Rdpmc
                | Mnemonic::Rdtscp
                | Mnemonic::Rdtsc
                | Mnemonic::Syscall
                | Mnemonic::Sysenter
                | Mnemonic::Sysret
                | Mnemonic::Sysexit
                | Mnemonic::Iret
                | Mnemonic::Iretd
                | Mnemonic::Iretq
                | Mnemonic::Vmcall
                | Mnemonic::Vmmcall
                | Mnemonic::Sgdt
                | Mnemonic::Sidt
                | Mnemonic::Sldt
                | Mnemonic::Str
                | Mnemonic::Smsw
                | Mnemonic::Rdrand
                | Mnemonic::Rdseed
        )
}
