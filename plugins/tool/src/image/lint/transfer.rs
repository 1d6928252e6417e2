//! No indirect jump with a `notrack` prefix: kernels with indirect branch tracking do not enable
//! it, and the jump would trap.

use iced_x86::{FlowControl, Instruction, InstructionInfo, Register};

/// Whether the instruction is an indirect branch with the `notrack` prefix (the `ds` prefix's
/// encoding).
pub(super) fn is_untracked(instruction: &Instruction, _: &InstructionInfo) -> bool {
    matches!(instruction.flow_control(), FlowControl::IndirectBranch | FlowControl::IndirectCall)
        && instruction.segment_prefix() == Register::DS
}
