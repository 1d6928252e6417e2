//! Bytes from an enemy: parsing ends, without a panic, whatever they are.

mod fixture;

use fixture::{good, image_start};
use npa_plugin::image::{Limits, examine};
use proptest::prelude::*;

/// Parses, and uses what came out.
fn parse(file: &[u8]) {
    let (image, findings) = examine(file, &Limits::default());
    if let Some(image) = image {
        let landed = image.relocate(0xffff_ffff_c000_0000);
        assert_eq!(landed.len(), image.bytes().len());
        let _ = (image.name(), image.version(), image.symbol_at(u64::MAX));
    }
    for finding in findings {
        assert!(!finding.to_string().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        parse(&bytes);
        parse(&[b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", &bytes[..]].concat());
    }

    #[test]
    fn a_good_image_with_changed_bytes(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = good();
        for (place, value) in changes {
            let place = place.index(file.len());
            file[place] = value;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        parse(&file);
    }

    #[test]
    fn a_good_image_with_changed_structures(
        changes in proptest::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![
                any::<u64>(),
                Just(0),
                Just(u64::MAX),
                Just(1 << 63),
                0u64..0x10_000,
            ]),
            1..6,
        ),
    ) {
        // The ELF header, the plugin header, and the section headers at the end.
        let mut file = good();
        let image = image_start(&file);
        let sections = u64::from_le_bytes(file[40..48].try_into().unwrap()) as usize;
        let words: Vec<usize> = (0..15)
            .map(|word| 8 * word)
            .chain((0..42).map(|word| image + 8 * word))
            .chain((sections..file.len() - 8).step_by(8))
            .collect();
        for (place, value) in changes {
            let place = words[place.index(words.len())];
            file[place..place + 8].copy_from_slice(&value.to_le_bytes());
        }
        parse(&file);
    }
}
