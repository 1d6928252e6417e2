//! Every kind of bad image is refused with an error of its own.

mod fixture;

use std::mem::offset_of;

use fixture::{build, change, good, image_start, sample, tamper};
use goblin::elf::Elf;
use goblin::elf::section_header::{SHT_RELA, SHT_SYMTAB};
use npa_abi::image::{PluginHeader, Region};
use npa_plugin::build::BuildError;
use npa_plugin::image::lint::Rule;
use npa_plugin::image::{Image, ImageError, Limits, examine};

/// The rule that an image breaks, if exactly one.
fn only(file: &[u8]) -> ImageError {
    let (_, findings) = examine(file, &Limits::default());
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let error = findings.into_iter().next().unwrap();
    assert_eq!(Image::parse(file).unwrap_err(), error);
    error
}

fn rule_of(define: &str) -> Rule {
    match only(&sample(define).0) {
        ImageError::Instruction { rule, place, .. } => {
            assert!(place.starts_with("npa_plugin_main") || place.starts_with("below"), "{place}");
            rule
        }
        other => panic!("{define}: {other}"),
    }
}

#[test]
fn a_good_image_is_taken_and_relocated() {
    let image = Image::parse(&good()).unwrap();
    assert_eq!((image.name(), image.version()), ("sample", "1.0"));
    assert_eq!(image.relocations(), []);
    assert_eq!(image.relocate(0xffff_ffff_c000_0000), image.bytes());
    let (symbol, distance) = image.symbol_at(u64::from(image.header().entry) + 5).unwrap();
    assert_eq!((symbol.name.as_str(), distance), ("npa_plugin_main", 5));
}

#[test]
fn relative_relocations_are_applied_to_the_landing_address() {
    let (file, findings) = sample("RELOCATED");
    assert_eq!(findings, []);
    let image = Image::parse(&file).unwrap();
    assert_eq!(image.relocations().len(), 2);
    let base = 0xffff_ffff_c012_3000;
    let landed = image.relocate(base);
    assert_eq!(landed.len(), image.bytes().len());
    for relocation in image.relocations() {
        let at = relocation.offset as usize;
        let word = u64::from_le_bytes(landed[at..at + 8].try_into().unwrap());
        let (symbol, 0) = image.symbol_at(word - base).unwrap() else { panic!("not a function") };
        assert!(["one", "two"].contains(&symbol.name.as_str()));
    }
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let file = good();
    let end = image_start(&file) + 4096;
    for length in (0..end).step_by(61).chain([1, 3, 63, 64, 119, 120, end - 1]) {
        let error = Image::parse(&file[..length]).unwrap_err();
        assert!(
            matches!(error, ImageError::NotElf(_) | ImageError::Truncated),
            "{length}: {error}"
        );
    }
    assert!(Image::parse(b"#!/bin/sh\necho not a plugin\n").is_err());
}

#[test]
fn a_changed_byte_anywhere_in_the_image_is_noticed() {
    let offset = Image::parse(&good()).unwrap().header().entry as usize + 9;
    let byte = [good()[image_start(&good()) + offset] ^ 1];
    let (_, findings) = examine(&tamper(good(), offset, &byte), &Limits::default());
    assert!(findings.contains(&ImageError::WrongHash), "{findings:?}");
    assert_eq!(only(&tamper(good(), 4095, &[0])), ImageError::WrongHash);
    let hash = offset_of!(PluginHeader, sha256);
    assert_eq!(only(&tamper(good(), hash, &[0; 32])), ImageError::WrongHash);
}

#[test]
fn wrong_abi_licence_and_class_are_refused() {
    let abi = offset_of!(PluginHeader, abi_min);
    let wrong = |file: &[u8], min, max| {
        let expected = ImageError::WrongAbi { min, max, host_min: 1, host_max: 1 };
        assert_eq!(only(file), expected);
    };
    wrong(&change(good(), abi, &[2, 0, 3, 0]), 2, 3);
    wrong(&change(good(), abi, &[0, 0, 0, 0]), 0, 0);
    wrong(&change(good(), abi, &[1, 0, 0, 0]), 1, 0);
    let licence = offset_of!(PluginHeader, licence);
    for code in [0u16, 5, 0xffff] {
        let file = change(good(), licence, &code.to_le_bytes());
        assert_eq!(only(&file), ImageError::WrongLicence(code));
    }
    let class = offset_of!(PluginHeader, class);
    let (_, findings) = examine(&change(good(), class, &[9, 0]), &Limits::default());
    assert!(findings.contains(&ImageError::UnknownClass(9)));
}

#[test]
fn a_header_that_lies_is_refused_field_by_field() {
    let field = |offset: usize, bytes: &[u8]| only(&change(good(), offset, bytes));
    assert_eq!(field(offset_of!(PluginHeader, header_size), &[1, 0]), ImageError::HeaderSize(1));
    assert_eq!(field(offset_of!(PluginHeader, name), b"Sample"), ImageError::BadName);
    assert_eq!(field(offset_of!(PluginHeader, name), &[b'a'; 32]), ImageError::BadName);
    assert_eq!(field(offset_of!(PluginHeader, name) + 8, b"x"), ImageError::BadName);
    assert_eq!(field(offset_of!(PluginHeader, version), b"\xff"), ImageError::BadVersion);
    assert_eq!(
        field(offset_of!(PluginHeader, image_length), &8192u32.to_le_bytes()),
        ImageError::LengthMismatch { header: 8192, image: 4096 }
    );
    assert_eq!(
        field(offset_of!(PluginHeader, private_length), &65_537u32.to_le_bytes()),
        ImageError::PrivateTooLarge(65_537)
    );
    assert_eq!(
        field(offset_of!(PluginHeader, role_count), &[1, 0]),
        ImageError::BadQueues { roles: 1, queues: 1 }
    );
    assert_eq!(field(offset_of!(PluginHeader, vectors), &[1, 0]), ImageError::BadVectors(1));
    assert_eq!(field(offset_of!(PluginHeader, reserved), &[1]), ImageError::ReservedNotZero);
    assert_eq!(field(offset_of!(PluginHeader, pci_id_count), &[9]), ImageError::BadPciIds);
    assert_eq!(field(offset_of!(PluginHeader, pci_ids), &[0xff, 0xff]), ImageError::BadPciIds);
    let ring = offset_of!(PluginHeader, roles);
    assert_eq!(field(ring, &u32::MAX.to_le_bytes()), ImageError::BadRing(0));
    assert_eq!(field(ring + 8, &3u32.to_le_bytes()), ImageError::BadRing(0));
    assert_eq!(field(ring + 16 + 14, &8192u16.to_le_bytes()), ImageError::BadRing(1));
    assert_eq!(field(0, b"ELF"), ImageError::BadMagic);
}

#[test]
fn regions_outside_the_window_or_on_each_other_are_refused() {
    let first = offset_of!(PluginHeader, regions);
    let count = offset_of!(PluginHeader, region_count);
    let bad = |offset: usize, bytes: &[u8]| only(&change(good(), first + offset, bytes));
    assert_eq!(bad(offset_of!(Region, bar), &[6]), ImageError::BadRegion(0));
    assert_eq!(bad(offset_of!(Region, kind), &[3]), ImageError::BadRegion(0));
    assert_eq!(bad(offset_of!(Region, offset), &[1]), ImageError::BadRegion(0));
    assert_eq!(
        bad(offset_of!(Region, offset), &(u64::MAX - 4095).to_le_bytes()),
        ImageError::BadRegion(0)
    );
    assert_eq!(bad(offset_of!(Region, length), &0u64.to_le_bytes()), ImageError::BadRegion(0));
    assert_eq!(
        bad(offset_of!(Region, length), &(1u64 << 40).to_le_bytes()),
        ImageError::BadRegion(0)
    );
    assert_eq!(
        bad(offset_of!(Region, window_offset), &(256u32 << 10).to_le_bytes()),
        ImageError::BadRegion(0)
    );
    let file = good();
    let start = image_start(&file) + first;
    let region = file[start..start + size_of::<Region>()].to_vec();
    let twice = change(change(file, first + size_of::<Region>(), &region), count, &[2]);
    assert_eq!(only(&twice), ImageError::RegionsOverlap(0, 1));
    let (_, findings) = examine(&change(good(), count, &[7]), &Limits::default());
    assert!(findings.contains(&ImageError::TooManyRegions(7)));
}

#[test]
fn an_entry_outside_the_code_or_without_endbr64_is_refused() {
    let entry = offset_of!(PluginHeader, entry);
    let outside = change(good(), entry, &0xffff_f000u32.to_le_bytes());
    assert_eq!(only(&outside), ImageError::EntryOutside(0xffff_f000));
    assert_eq!(only(&change(good(), entry, &[8, 0, 0, 0])), ImageError::EntryOutside(8));
    assert!(matches!(only(&sample("NO_ENDBR").0), ImageError::EntryNotEndbr(_)));
}

#[test]
fn writable_sections_are_refused() {
    let (_, data) = sample("WRITABLE_DATA");
    assert!(data.contains(&ImageError::WritableSection(".data".into())), "{data:?}");
    let (_, zeroed) = sample("ZEROED_DATA");
    assert!(zeroed.contains(&ImageError::WritableSection(".bss".into())), "{zeroed:?}");
    // The segment's own flag: PF_W in the program header.
    let mut file = good();
    let header = u64::from_le_bytes(file[32..40].try_into().unwrap()) as usize;
    file[header + 4] |= 2;
    assert_eq!(only(&file), ImageError::WritableSegment);
}

#[test]
fn an_image_that_imports_is_refused() {
    let mut file = good();
    let (symbols, name) = {
        let elf = Elf::parse(&file).unwrap();
        let table = elf.section_headers.iter().find(|s| s.sh_type == SHT_SYMTAB).unwrap();
        let index = elf.syms.iter().position(|s| s.st_value == elf.entry).unwrap();
        let name = elf.strtab.get_at(elf.syms.get(index).unwrap().st_name).unwrap().to_owned();
        (table.sh_offset as usize + 24 * index, name)
    };
    file[symbols + 6..symbols + 8].fill(0);
    assert_eq!(only(&file), ImageError::UndefinedSymbol(name));
    // A weak symbol that nobody defines does not even link.
    assert!(matches!(build("UNDEFINED"), Err(BuildError::Link { .. })));
}

#[test]
fn other_relocations_than_relative_ones_are_refused() {
    let (mut file, findings) = sample("RELOCATED");
    assert_eq!(findings, []);
    let table = {
        let elf = Elf::parse(&file).unwrap();
        let table = elf.section_headers.iter().find(|s| s.sh_type == SHT_RELA).unwrap();
        table.sh_offset as usize
    };
    let image = image_start(&file);
    let place = u64::from_le_bytes(file[table..table + 8].try_into().unwrap());
    let absolute = change(file.clone(), table - image + 8, &[1]);
    assert_eq!(only(&absolute), ImageError::ForeignRelocation { kind: 1, offset: place });
    let header = change(file.clone(), table - image, &[8, 0]);
    assert_eq!(only(&header), ImageError::RelocationRange(8));
    file = change(file, table - image, &u64::MAX.to_le_bytes());
    assert_eq!(only(&file), ImageError::RelocationRange(u64::MAX));
}

#[test]
fn an_image_larger_than_the_landing_is_refused() {
    let (file, findings) = sample("OVERSIZED");
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(matches!(findings[0], ImageError::TooLarge { landing: 65_536, .. }));
    assert!(Image::parse_within(&file, &Limits { landing: 128 << 10 }).is_ok());
    let huge = Limits { landing: u64::MAX };
    assert!(Image::parse_within(&good(), &huge).is_ok());
}

#[test]
fn vector_and_floating_point_code_is_refused() {
    for define in ["SSE", "AVX", "X87"] {
        let (_, findings) = sample(define);
        assert!(!findings.is_empty());
        for finding in findings {
            let vector =
                matches!(finding, ImageError::Instruction { rule: Rule::VectorOrFloat, .. });
            assert!(vector, "{define}: {finding}");
        }
    }
}

#[test]
fn instructions_that_do_not_belong_in_a_plugin_are_refused() {
    assert_eq!(rule_of("PRIVILEGED"), Rule::Privileged);
    assert_eq!(rule_of("PORT"), Rule::Privileged);
    assert_eq!(rule_of("TRAPPING"), Rule::Trapping);
    assert_eq!(rule_of("BREAKPOINT"), Rule::Trapping);
    assert_eq!(rule_of("UNTRACKED"), Rule::Untracked);
    assert_eq!(rule_of("WILD"), Rule::Wild);
    let (_, findings) = sample("RED_ZONE");
    assert_eq!(findings.len(), 2, "{findings:?}");
}

#[test]
fn a_panic_path_is_named_by_its_ends() {
    let expected = ImageError::PanicPath {
        caller: "npa_plugin_main".into(),
        callee: "core::panicking::panic_bounds_check".into(),
    };
    assert_eq!(only(&sample("PANICS").0), expected);
}

#[test]
fn all_broken_rules_are_listed() {
    let file = change(good(), offset_of!(PluginHeader, licence), &[0, 0]);
    let file = tamper(file, offset_of!(PluginHeader, abi_min), &[7, 0, 7, 0]);
    let (image, findings) = examine(&file, &Limits::default());
    assert!(image.is_some(), "what can be read is shown");
    assert_eq!(findings.len(), 3, "{findings:?}");
}
