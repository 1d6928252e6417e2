//! Brings everything up to date, in order. What is current already costs only its check.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Kernel, Layout, Progress, Series, apt, initramfs, kernels, rust};
use crate::{peer, plugins, quirk_module, shell_module};

/// What is built elsewhere and goes into images.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Programs of ours that go into the guest's image.
    pub guest_programs: Vec<PathBuf>,
    /// Programs that run in the lab host: their libraries go into its image.
    pub programs: Vec<PathBuf>,
    /// Go on without plugin images or shell module that do not build, saying so: for work on
    /// the other parts.
    pub partial: bool,
    /// Look for newer kernels and build everything again.
    pub force: bool,
}

/// What the lab boots.
#[derive(Debug, Clone)]
pub struct Images {
    /// The kernels, by series.
    pub kernels: Vec<Kernel>,
    /// The lab host's kernel.
    pub host_kernel: PathBuf,
    /// The lab host's initramfs.
    pub host_initrd: PathBuf,
    /// Guest kernels and images, plugin images: what `$LAB_IMAGES` holds in the lab host.
    pub guest: PathBuf,
}

/// Installs tools and brings all images up to date.
///
/// # Errors
/// The first step that fails; its message says what to do where the user can do something.
pub fn prepare(layout: &Layout, inputs: &Inputs, progress: &Progress) -> Result<Images, Error> {
    let _turn = take_turn(layout)?;
    apt::install_tools(progress)?;
    rust::install(layout.workspace(), progress)?;
    for folder in [layout.kernels(), layout.host(), layout.plugins(), layout.scratch()] {
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    }
    if inputs.force {
        forget(layout)?;
    }
    let mut found = Vec::new();
    for series in Series::ALL {
        let kernel = kernels::obtain(layout, series, inputs.force, progress)?;
        place(&kernel.vmlinuz(), &layout.vmlinuz(series))?;
        found.push(kernel);
    }
    let allow = |error: Error| {
        if !inputs.partial {
            return Err(error);
        }
        let reason = std::error::Error::source(&error).map(ToString::to_string);
        let reason = reason.unwrap_or_default();
        progress.note(&format!("MISSING in the images: {error}: {reason}"));
        Ok(())
    };
    plugins::build(layout, progress).or_else(allow)?;
    for kernel in &found {
        let shell = match shell_module::object(layout, progress)
            .and_then(|object| shell_module::build(layout, kernel, &object, progress))
        {
            Ok(shell) => Some(shell.file),
            Err(error) => {
                allow(error)?;
                None
            }
        };
        initramfs::guest(layout, kernel, &inputs.guest_programs, shell.as_deref(), progress)?;
    }
    peer::build(layout, progress)?;
    let host_kernel = found
        .iter()
        .find(|kernel| kernel.series == Series::V6_12)
        .ok_or(Error::NoKernel { series: Series::V6_12.name() })?;
    let quirk = quirk_module::build(layout, host_kernel, progress)?;
    initramfs::host(layout, host_kernel, &quirk, &inputs.programs, progress)?;
    Ok(Images {
        host_kernel: host_kernel.vmlinuz(),
        host_initrd: layout.host().join("initrd.img"),
        guest: layout.images(),
        kernels: found,
    })
}

/// Waits until no other process prepares images of this workspace.
fn take_turn(layout: &Layout) -> Result<fs::File, Error> {
    let cache = layout.cache();
    fs::create_dir_all(&cache).map_err(Error::io("create", &cache))?;
    let path = cache.join("prepare.lock");
    let file = fs::File::create(&path).map_err(Error::io("create", &path))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| Error::io("lock", &path)(error.into()))?;
    Ok(file)
}

/// Drops every key, so that everything is built again.
fn forget(layout: &Layout) -> Result<(), Error> {
    for folder in [layout.images(), layout.plugins(), layout.host(), layout.cache().join("shell")] {
        if !folder.exists() {
            continue;
        }
        for entry in fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
            let path = entry.map_err(Error::io("list", &folder))?.path();
            if path.extension().is_some_and(|extension| extension == "key") {
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
    }
    Ok(())
}

/// Puts a copy of `from` at `to` unless there is one of the same size and content.
fn place(from: &Path, to: &Path) -> Result<(), Error> {
    let wanted = fs::read(from).map_err(Error::io("read", from))?;
    if fs::read(to).is_ok_and(|present| present == wanted) {
        return Ok(());
    }
    let mut partial = to.as_os_str().to_owned();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    fs::write(&partial, wanted).map_err(Error::io("write", &partial))?;
    fs::rename(&partial, to).map_err(Error::io("create", to))
}
