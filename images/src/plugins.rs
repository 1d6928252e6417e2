//! Plugin images for the lab, built and checked by the plugin tool's library.

use std::process::Command;

use crate::cache::{self, Key};
use crate::{Error, Layout, Progress};

/// Packages that plugin images are built from, and the images' file names.
pub const BLOBS: [(&str, &str); 2] =
    [("igbvf-plugin", "igbvf.npa"), ("virtio-net-plugin", "virtio-net.npa")];

/// Builds the plugin images that are not current. Each is checked by the rules that the
/// hypervisor applies.
///
/// # Errors
/// When one does not build or breaks a rule.
pub fn build(layout: &Layout, progress: &Progress) -> Result<(), Error> {
    let mut key = Key::new("plugin images 1");
    freestanding_sources(layout, &mut key)?;
    let key = key.finish();
    // One that does not build does not keep the others from it.
    let results = BLOBS.map(|(package, file)| one(layout, package, file, &key, progress));
    results.into_iter().collect()
}

fn one(
    layout: &Layout,
    package: &str,
    file: &str,
    key: &str,
    progress: &Progress,
) -> Result<(), Error> {
    let output = layout.plugins().join(file);
    if cache::is_current(&output, key) {
        return Ok(());
    }
    progress.loud_step(&format!("plugin image {file}"), || {
        let scratch = cache::scratch(&layout.scratch(), package)?;
        let made = scratch.join(file);
        npa_plugin::build::build_blob(layout.workspace(), package, &made)
            .map_err(Error::freestanding(file))?;
        cache::commit(&made, &output, key)?;
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
