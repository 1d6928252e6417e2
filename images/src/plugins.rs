//! Freestanding programs for the lab, built by the plugin tool's library: plugin images, which it
//! checks, and the guest without an operating system.

use std::path::Path;
use std::process::Command;

use npa_plugin::build::BuildError;

use crate::cache::{self, Key};
use crate::{Error, Layout, Progress};

/// Packages that plugin images are built from, and the images' file names.
pub const BLOBS: [(&str, &str); 2] =
    [("igbvf-plugin", "igbvf.npa"), ("virtio-net-plugin", "virtio-net.npa")];

/// Builds the plugin images, and the bare guest, that are not current. Each plugin image is
/// checked by the rules that the hypervisor applies.
///
/// # Errors
/// When one does not build or breaks a rule.
pub fn build(layout: &Layout, progress: &Progress) -> Result<(), Error> {
    let mut key = Key::new("plugin images 1");
    freestanding_sources(layout, &mut key)?;
    let key = key.finish();
    let workspace = layout.workspace();
    // One that does not build does not keep the others from it.
    let results = BLOBS.map(|(package, file)| {
        one(layout, &layout.plugins().join(file), &key, progress, |made| {
            npa_plugin::build::build_blob(workspace, package, made).map(drop)
        })
    });
    let bare = one(layout, &layout.images().join(BARE_GUEST), &key, progress, |made| {
        npa_plugin::build::build_executable(workspace, BARE_GUEST, &[], &[], made)
    });
    results.into_iter().chain([bare]).collect()
}

/// Package and file name of the guest without an operating system.
const BARE_GUEST: &str = "bare-guest";

fn one(
    layout: &Layout,
    output: &Path,
    key: &str,
    progress: &Progress,
    build: impl FnOnce(&Path) -> Result<(), BuildError>,
) -> Result<(), Error> {
    if cache::is_current(output, key) {
        return Ok(());
    }
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    progress.loud_step(&format!("freestanding program {name}"), || {
        let scratch = cache::scratch(&layout.scratch(), &name)?;
        let made = scratch.join("made");
        build(&made).map_err(Error::freestanding(&name))?;
        cache::commit(&made, output, key)?;
        std::fs::remove_dir_all(&scratch).map_err(Error::io("remove", &scratch))
    })
}

/// Adds everything that freestanding code is made of: the sources of what runs in a guest, the
/// builder, the lock file and the compiler.
pub(crate) fn freestanding_sources(layout: &Layout, key: &mut Key) -> Result<(), Error> {
    for folder in ["guest-shell", "plugins"] {
        key.sources(&layout.workspace().join(folder))?;
    }
    for file in ["Cargo.toml", "Cargo.lock"] {
        key.content(&layout.workspace().join(file))?;
    }
    key.text(&crate::command::stdout(Command::new("rustc").arg("-V"))?);
    Ok(())
}
