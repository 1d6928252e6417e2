//! The two initramfs images: what guests boot and what the lab host boots. Each is a busybox
//! userland with real tools beside it and the modules of one kernel. Uncompressed: unpacking
//! would cost more, one or two levels of emulation down, than reading does.

mod cpio;
mod guest;
mod host;
mod modules;
mod tree;

pub use guest::MODULES as GUEST_MODULES;
pub(crate) use guest::build as guest;
pub use host::MODULES as HOST_MODULES;
pub(crate) use host::build as host;
pub(crate) use tree::{find_program, libraries_of};

use std::path::Path;

use crate::cache::Key;
use crate::{Error, Kernel, Layout};

/// Adds this machine's programs to a key, by name, size and time.
fn stamp_programs(key: &mut Key, programs: &[&str]) -> Result<(), Error> {
    for program in programs {
        key.stamp(&find_program(program)?)?;
    }
    Ok(())
}

/// Stages modules in scratch space and adds them to `tree`.
fn add_modules(
    layout: &Layout,
    tree: &mut tree::Tree,
    kernel: &Kernel,
    names: &[&str],
    extra: &[std::path::PathBuf],
) -> Result<(), Error> {
    let scratch = crate::cache::scratch(&layout.scratch(), &format!("modules-{}", kernel.release))?;
    modules::stage(kernel, names, extra, &scratch)?;
    let home = Path::new("lib/modules").join(&kernel.release);
    tree.folder_of(&scratch.join(&home), &format!("usr/{}", home.display()))?;
    std::fs::remove_dir_all(&scratch).map_err(Error::io("remove", &scratch))
}
