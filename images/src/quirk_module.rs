//! The lab host's own module, which spares guests a fault of QEMU's translator (its source says
//! which). Built for the lab host's kernel alone.

use std::path::PathBuf;

use crate::cache::Key;
use crate::kbuild::{self, External};
use crate::{Error, Kernel, Layout, Progress};

/// Builds the module for `kernel` unless it is current, and returns its file.
///
/// # Errors
/// When the build fails, or prints a warning.
pub(crate) fn build(
    layout: &Layout,
    kernel: &Kernel,
    progress: &Progress,
) -> Result<PathBuf, Error> {
    let source = layout.workspace().join("tests/lab/quirk");
    let home = layout.cache().join("quirk");
    let mut key = Key::new("quirk module 1");
    key.text(&kernel.release).sources(&source)?;
    let module = External {
        what: "the quirk module",
        source: &source,
        variables: &[],
        home: &home,
        key: &key.finish(),
    };
    kbuild::build(layout, kernel, &module, progress)?;
    Ok(home.join("npa_lab_quirk.ko"))
}
