//! This machine's QEMU with all that it needs, as a folder: benchmarks run it in the lab host beside
//! our VMM. Not in the lab host's image, where nobody else has a use for it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::cache::{self, Key};
use crate::command::stdout;
use crate::initramfs::{find_program, libraries_of};
use crate::{Error, Layout, Progress};

/// The program.
const QEMU: &str = "qemu-system-x86_64";

/// Firmware and option ROMs of a machine that boots a kernel directly.
const FIRMWARE: &[&str] = &["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin"];

/// Copies QEMU to `qemu` among the images unless that is current: the program, `lib` with its libraries
/// and the loader, `share` with firmware.
///
/// # Errors
/// When QEMU or a part of it is missing.
pub(crate) fn build(layout: &Layout, progress: &Progress) -> Result<(), Error> {
    let output = layout.images().join("qemu");
    let program = find_program(QEMU)?;
    let libraries = libraries_of(&program)?;
    let firmware = firmware(&program)?;
    let mut key = Key::new("peer 1");
    for file in libraries.iter().chain(&firmware).chain([&program]) {
        key.stamp(file)?;
    }
    let key = key.finish();
    if cache::is_current(&output, &key) {
        return Ok(());
    }
    progress.step("QEMU for the lab host", || {
        let scratch = cache::scratch(&layout.scratch(), "peer")?;
        for (folder, files) in [(".", &vec![program]), ("lib", &libraries), ("share", &firmware)] {
            let folder = scratch.join(folder);
            fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
            for file in files {
                let to = folder.join(file.file_name().unwrap_or_default());
                fs::copy(file, &to).map_err(Error::io("copy", file))?;
            }
        }
        cache::commit(&scratch, &output, &key)
    })
}

/// The firmware files, in the folders where QEMU looks for them.
fn firmware(program: &PathBuf) -> Result<Vec<PathBuf>, Error> {
    let folders = stdout(Command::new(program).args(["-L", "help"]))?;
    FIRMWARE
        .iter()
        .map(|name| {
            let mut places = folders.lines().map(|folder| PathBuf::from(folder).join(name));
            places.find(|file| file.exists()).ok_or_else(|| Error::Package {
                package: QEMU.to_owned(),
                what: format!("firmware {name} not found"),
            })
        })
        .collect()
}
