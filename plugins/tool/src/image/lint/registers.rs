//! No vector, mask or floating-point state: a kernel's own code runs without saving it.

use iced_x86::{Code, CpuidFeature, Instruction, InstructionInfo, Register};

/// Whether the instruction touches such state.
pub(super) fn breaks(instruction: &Instruction, info: &InstructionInfo) -> bool {
    info.used_registers().iter().any(|used| is_foreign(used.register()))
        || matches!(instruction.code(), Code::Ldmxcsr_m32 | Code::Stmxcsr_m32)
        || instruction.cpuid_features().iter().any(is_foreign_feature)
}

fn is_foreign(register: Register) -> bool {
    register.is_vector_register()
        || register.is_st()
        || register.is_mm()
        || register.is_k()
        || register.is_tmm()
        || register.is_bnd()
}

fn is_foreign_feature(feature: &CpuidFeature) -> bool {
    matches!(
        feature,
        CpuidFeature::FPU
            | CpuidFeature::FPU287
            | CpuidFeature::FPU387
            | CpuidFeature::MMX
            | CpuidFeature::D3NOW
            | CpuidFeature::D3NOWEXT
            | CpuidFeature::FXSR
            | CpuidFeature::XSAVE
            | CpuidFeature::XSAVEC
            | CpuidFeature::XSAVEOPT
            | CpuidFeature::XSAVES
            | CpuidFeature::AVX
            | CpuidFeature::AVX2
            | CpuidFeature::AVX512F
    )
}
