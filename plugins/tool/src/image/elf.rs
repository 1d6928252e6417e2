//! Takes the image out of its ELF file and checks the file's shape: one read-execute range at
//! address 0, nothing writable, nothing undefined, only relative relocations.

use std::ops::Range;

use goblin::elf::Elf;
use goblin::elf::header::{EM_X86_64, ET_DYN};
use goblin::elf::program_header::{
    PF_R, PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_TLS, ProgramHeader,
};
use goblin::elf::reloc::R_X86_64_RELATIVE;
use goblin::elf::section_header::{
    SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHN_UNDEF, SHT_NULL, SHT_REL, SHT_RELA,
};
use goblin::elf::sym::{STT_FUNC, STT_NOTYPE, STT_OBJECT};
use npa_abi::PAGE_SIZE;
use npa_abi::image::PluginHeader;

use super::{FILE_LENGTH_MAX, ImageError, Limits, Relocation, Symbol, Symbols};

/// `SHT_RELR`: packed relative relocations (generic ABI), which images do not use.
const SHT_RELR: u32 = 19;

/// What an image file holds.
pub(super) struct Contents {
    /// The loadable range.
    pub(super) bytes: Vec<u8>,
    /// Executable sections, as offsets in `bytes`; all within it.
    pub(super) code: Vec<Range<u64>>,
    /// Relocations, all within `bytes`.
    pub(super) relocations: Vec<Relocation>,
    /// Symbols.
    pub(super) symbols: Symbols,
}

/// Reads an image file; `None` when there is no range to speak of.
pub(super) fn read(
    file: &[u8],
    limits: &Limits,
    findings: &mut Vec<ImageError>,
) -> Option<Contents> {
    if file.len() > FILE_LENGTH_MAX {
        findings.push(ImageError::FileTooLarge { length: file.len(), limit: FILE_LENGTH_MAX });
        return None;
    }
    let elf = match Elf::parse(file) {
        Ok(elf) => elf,
        Err(reason) => {
            findings.push(ImageError::NotElf(reason.to_string()));
            return None;
        }
    };
    if !elf.is_64
        || !elf.little_endian
        || elf.header.e_machine != EM_X86_64
        || elf.header.e_type != ET_DYN
    {
        findings.push(ImageError::WrongTarget);
    }
    let bytes = range(file, &elf, limits, findings)?;
    let length = bytes.len() as u64;
    let code = sections(&elf, length, findings);
    let relocations = relocations(&elf, length, findings);
    let symbols = symbols(&elf, findings);
    Some(Contents { bytes, code, relocations, symbols })
}

/// The bytes of the one loadable segment.
fn range(
    file: &[u8],
    elf: &Elf<'_>,
    limits: &Limits,
    findings: &mut Vec<ImageError>,
) -> Option<Vec<u8>> {
    for segment in &elf.program_headers {
        if matches!(segment.p_type, PT_DYNAMIC | PT_INTERP | PT_TLS) {
            findings.push(ImageError::ForeignSegment(segment.p_type));
        }
    }
    let loadable: Vec<&ProgramHeader> =
        elf.program_headers.iter().filter(|segment| segment.p_type == PT_LOAD).collect();
    if loadable.len() != 1 {
        findings.push(ImageError::LoadableRanges(loadable.len()));
    }
    let segment = loadable.first()?;
    if segment.p_vaddr != 0 {
        findings.push(ImageError::NotLinkedAtZero(segment.p_vaddr));
    }
    if segment.p_flags & PF_W != 0 {
        findings.push(ImageError::WritableSegment);
    }
    if segment.p_flags & (PF_R | PF_X) != PF_R | PF_X {
        findings.push(ImageError::NotExecutable);
    }
    if segment.p_memsz != segment.p_filesz {
        let zeroed = segment.p_memsz.saturating_sub(segment.p_filesz);
        findings.push(ImageError::ZeroedData(zeroed));
    }
    let length = segment.p_filesz;
    if length == 0 || length % PAGE_SIZE as u64 != 0 {
        findings.push(ImageError::NotPageRounded(length));
    }
    let landing = limits.landing.min(Limits::LANDING_MAX);
    if length > landing {
        findings.push(ImageError::TooLarge { length, landing });
    }
    let bytes = usize::try_from(segment.p_offset)
        .ok()
        .zip(usize::try_from(length).ok())
        .and_then(|(start, length)| file.get(start..start.checked_add(length)?));
    if bytes.is_none() {
        findings.push(ImageError::Truncated);
    }
    bytes.map(<[u8]>::to_vec)
}

/// Checks the sections that are loaded and answers the executable ones.
fn sections(elf: &Elf<'_>, length: u64, findings: &mut Vec<ImageError>) -> Vec<Range<u64>> {
    let mut code = Vec::new();
    for section in &elf.section_headers {
        let flags = section.sh_flags;
        if section.sh_type == SHT_NULL || flags & u64::from(SHF_ALLOC) == 0 || section.sh_size == 0
        {
            continue;
        }
        let name = || elf.shdr_strtab.get_at(section.sh_name).unwrap_or("(unnamed)").to_owned();
        if flags & u64::from(SHF_WRITE) != 0 {
            findings.push(ImageError::WritableSection(name()));
        }
        match section.sh_addr.checked_add(section.sh_size) {
            Some(end) if end <= length => {
                if flags & u64::from(SHF_EXECINSTR) != 0 {
                    code.push(section.sh_addr..end);
                }
            }
            _ => findings.push(ImageError::StraySection(name())),
        }
    }
    if code.is_empty() {
        findings.push(ImageError::NoCode);
    }
    // Overlapping executable sections would be decoded over and over.
    code.sort_by_key(|range| range.start);
    code.dedup_by(|next, kept| {
        let overlaps = next.start < kept.end;
        if overlaps {
            kept.end = kept.end.max(next.end);
        }
        overlaps
    });
    code
}

fn relocations(elf: &Elf<'_>, length: u64, findings: &mut Vec<ImageError>) -> Vec<Relocation> {
    let mut kept = Vec::new();
    for section in &elf.section_headers {
        if section.sh_type == SHT_RELR || (section.sh_type == SHT_REL && section.sh_size > 0) {
            let kind = section.sh_type;
            findings.push(ImageError::ForeignRelocation { kind, offset: section.sh_addr });
        }
    }
    let header = size_of::<PluginHeader>() as u64;
    let word = size_of::<u64>() as u64;
    for (index, table) in &elf.shdr_relocs {
        if elf.section_headers.get(*index).is_none_or(|section| section.sh_type != SHT_RELA) {
            continue;
        }
        for entry in table {
            let (offset, addend) = (entry.r_offset, entry.r_addend.unwrap_or(0));
            if entry.r_type != R_X86_64_RELATIVE {
                findings.push(ImageError::ForeignRelocation { kind: entry.r_type, offset });
                continue;
            }
            let inside = offset >= header && offset.checked_add(word).is_some_and(|e| e <= length);
            match u64::try_from(addend) {
                Ok(addend) if inside && addend <= length => {
                    kept.push(Relocation { offset, addend });
                }
                _ => findings.push(ImageError::RelocationRange(offset)),
            }
        }
    }
    kept
}

fn symbols(elf: &Elf<'_>, findings: &mut Vec<ImageError>) -> Symbols {
    let mut kept = Vec::new();
    for symbol in &elf.syms {
        let name = elf.strtab.get_at(symbol.st_name).unwrap_or_default();
        if name.is_empty() {
            continue;
        }
        if symbol.st_shndx == SHN_UNDEF as usize {
            findings.push(ImageError::UndefinedSymbol(name.to_owned()));
        } else if matches!(symbol.st_type(), STT_FUNC | STT_OBJECT)
            || (symbol.st_type() == STT_NOTYPE && is_code(elf, symbol.st_shndx))
        {
            kept.push(Symbol {
                name: name.to_owned(),
                offset: symbol.st_value,
                length: symbol.st_size,
            });
        }
    }
    Symbols::new(kept)
}

/// Whether section `index` is executable: a typeless symbol there is an assembler's function.
fn is_code(elf: &Elf<'_>, index: usize) -> bool {
    elf.section_headers
        .get(index)
        .is_some_and(|section| section.sh_flags & u64::from(SHF_EXECINSTR) != 0)
}
