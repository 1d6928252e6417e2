//! Decodes every instruction of an image and holds it against rules. This finds mis-built
//! images; it is no sandbox: whoever wants to hide an instruction from a linear decoder can.

mod panics;
mod registers;
mod stack;
mod transfer;
mod trapping;

use std::fmt;
use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, InstructionInfoFactory};
use iced_x86::{InstructionInfo, NasmFormatter};

use super::{ImageError, Symbols};

/// Most findings of one rule that are listed for one image.
const FINDINGS_MAX: usize = 16;

/// A rule that single instructions are held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// Bytes that no x86-64 CPU decodes.
    Undecodable,
    /// Vector, mask or floating-point registers, which a kernel does not save for a plugin.
    VectorOrFloat,
    /// An instruction that user mode may not run.
    Privileged,
    /// An instruction that always traps, to the kernel or the hypervisor.
    Trapping,
    /// A jump that branch protection does not track.
    Untracked,
    /// A jump or call to a place that is not code: a weak symbol that nobody defines, say.
    Wild,
    /// Data below the stack pointer, which an interrupt overwrites.
    RedZone,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Undecodable => "not an instruction",
            Self::VectorOrFloat => {
                "vector or floating-point instruction (compile for x86_64-unknown-none; in C with -mgeneral-regs-only)"
            }
            Self::Privileged => "privileged instruction",
            Self::Trapping => "trapping instruction",
            Self::Untracked => "untracked jump (compile without jump tables)",
            Self::Wild => "jump or call to a place that is not code (an undefined weak symbol?)",
            Self::RedZone => "access below the stack pointer (compile without the red zone)",
        })
    }
}

/// Whether an instruction breaks a rule.
type Breaks = fn(&Instruction, &InstructionInfo) -> bool;

/// Rules on one decoded instruction, in the order in which they are asked; the first that is
/// broken is reported.
const RULES: &[(Rule, Breaks)] = &[
    (Rule::VectorOrFloat, registers::breaks),
    (Rule::Privileged, trapping::is_privileged),
    (Rule::Trapping, trapping::is_trapping),
    (Rule::Untracked, transfer::is_untracked),
    (Rule::RedZone, stack::is_red_zone),
];

/// Checks the `code` ranges of an image.
pub(super) fn check(
    image: &[u8],
    code: &[Range<u64>],
    symbols: &Symbols,
    findings: &mut Vec<ImageError>,
) {
    let mut broken = Vec::new();
    let mut panics = panics::Paths::new(symbols);
    let mut details = InstructionInfoFactory::new();
    for range in code {
        let bytes = image.get(range.start as usize..range.end as usize).unwrap_or_default();
        let mut decoder = Decoder::with_ip(64, bytes, range.start, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            let rule = if instruction.is_invalid() {
                Some(Rule::Undecodable)
            } else {
                let info = details.info(&instruction);
                let broken = RULES.iter().find(|(_, breaks)| breaks(&instruction, info));
                let wild = transfer::is_wild(&instruction, code).then_some(Rule::Wild);
                broken.map(|(rule, _)| *rule).or(wild)
            };
            panics.see(&instruction);
            if let Some(rule) = rule.filter(|_| !is_padding(&instruction, symbols)) {
                broken.push((rule, instruction));
            }
        }
    }
    findings.extend(panics.finish().into_iter().take(FINDINGS_MAX));
    let mut counts = std::collections::HashMap::<Rule, usize>::new();
    for (rule, instruction) in broken {
        let count = counts.entry(rule).or_default();
        *count += 1;
        if *count <= FINDINGS_MAX {
            findings.push(ImageError::Instruction {
                rule,
                instruction: text(&instruction),
                place: symbols.place(instruction.ip()),
            });
        }
    }
}

/// What fills the space between functions traps on purpose; inside a function it does not belong.
fn is_padding(instruction: &Instruction, symbols: &Symbols) -> bool {
    instruction.code() == iced_x86::Code::Int3 && symbols.at(instruction.ip()).is_none()
}

fn text(instruction: &Instruction) -> String {
    let mut text = String::new();
    NasmFormatter::new().format(instruction, &mut text);
    text
}
