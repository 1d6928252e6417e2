//! No indirect jump with a `notrack` prefix: kernels with indirect branch tracking do not enable
//! it, and the jump would trap. And no direct one to where no code is.

use std::ops::Range;

use iced_x86::{FlowControl, Instruction, InstructionInfo, Register};

/// Whether the instruction is an indirect branch with the `notrack` prefix (the `ds` prefix's
/// encoding).
pub(super) fn is_untracked(instruction: &Instruction, _: &InstructionInfo) -> bool {
    matches!(instruction.flow_control(), FlowControl::IndirectBranch | FlowControl::IndirectCall)
        && instruction.segment_prefix() == Register::DS
}

/// Whether the instruction is a direct branch or call that leaves the `code`.
pub(super) fn is_wild(instruction: &Instruction, code: &[Range<u64>]) -> bool {
    let direct = instruction.is_jmp_short_or_near()
        || instruction.is_call_near()
        || instruction.is_jcc_short_or_near()
        || instruction.is_loop()
        || instruction.is_loopcc()
        || instruction.is_jcx_short();
    let target = instruction.near_branch_target();
    direct && !code.iter().any(|range| range.contains(&target))
}
