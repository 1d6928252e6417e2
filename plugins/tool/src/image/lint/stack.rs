//! No red zone: an interrupt taken on the same stack overwrites what lies below its pointer.

use iced_x86::{Instruction, InstructionInfo, Mnemonic, Register};

/// Whether the instruction reads or writes memory at a fixed offset below the stack pointer.
pub(super) fn is_red_zone(instruction: &Instruction, _: &InstructionInfo) -> bool {
    // A `lea` only computes, and stack probes (`or qword [rsp - n], 0`) do not keep anything; but
    // images are built without probes, so they are not excepted.
    instruction.mnemonic() != Mnemonic::Lea
        && instruction.memory_base() == Register::RSP
        && instruction.memory_index() == Register::None
        && (instruction.memory_displacement64() as i64) < 0
}
