//! Writes the header fields that only the linked image can tell: length, entry, hash.

use std::mem::offset_of;

use goblin::elf::Elf;
use goblin::elf::program_header::PT_LOAD;
use npa_abi::image::{IMAGE_MAGIC, PluginHeader, SHA256_OFFSET};

use super::BuildError;
use crate::image::image_sha256;

/// Fills in the derived fields of the image in the ELF file `file`.
pub(super) fn seal(mut file: Vec<u8>) -> Result<Vec<u8>, BuildError> {
    let (start, length, entry) = {
        let elf = Elf::parse(&file).map_err(|_| BuildError::NoHeader)?;
        let load = elf
            .program_headers
            .iter()
            .find(|segment| segment.p_type == PT_LOAD)
            .ok_or(BuildError::NoHeader)?;
        (load.p_offset as usize, load.p_filesz as usize, elf.entry)
    };
    let image = start
        .checked_add(length)
        .and_then(|end| file.get_mut(start..end))
        .filter(|image| image.len() >= size_of::<PluginHeader>() && image.starts_with(&IMAGE_MAGIC))
        .ok_or(BuildError::NoHeader)?;
    put(image, offset_of!(PluginHeader, image_length), &(length as u32).to_le_bytes());
    put(image, offset_of!(PluginHeader, entry), &(entry as u32).to_le_bytes());
    let digest = image_sha256(image);
    put(image, SHA256_OFFSET, &digest);
    Ok(file)
}

fn put(image: &mut [u8], offset: usize, field: &[u8]) {
    image[offset..offset + field.len()].copy_from_slice(field);
}
