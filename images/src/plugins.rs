//! Plugin images for the lab, built by the plugin tool.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{self, Key};
use crate::command::both;
use crate::{Error, Layout, Progress};

/// Packages that plugin images are built from, and the images' file names.
pub const BLOBS: &[(&str, &str)] =
    &[("igbvf-plugin", "igbvf.npa"), ("virtio-net-plugin", "virtio-net.npa")];

/// Builds the plugin images that are not current; `tool` is the `npa-plugin` program.
pub(crate) fn build(layout: &Layout, tool: &Path, progress: &Progress) -> Result<(), Error> {
    let mut key = Key::new("plugin images 1");
    freestanding_sources(layout, &mut key)?;
    let key = key.finish();
    for (package, file) in BLOBS {
        let output = layout.plugins().join(file);
        if cache::is_current(&output, &key) {
            continue;
        }
        progress.step(&format!("plugin image {file}"), || {
            let scratch = cache::scratch(&layout.scratch(), package)?;
            let made: PathBuf = scratch.join(file);
            both(
                Command::new(tool)
                    .current_dir(layout.workspace())
                    .args(["build", "--package", package, "--out"])
                    .arg(&made),
            )?;
            cache::commit(&made, &output, &key)?;
            std::fs::remove_dir_all(&scratch).map_err(Error::io("remove", &scratch))
        })?;
    }
    Ok(())
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
