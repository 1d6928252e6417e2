//! What commands on the build machine do first: programs built, images up to date.

use anyhow::Result;
use images::{Images, Inputs, Layout, Progress};

use crate::binaries::{self, Binaries, GUEST_PROGRAMS, Profile};
use crate::workspace;

/// Programs and images, ready to boot.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Where everything is.
    pub(crate) layout: Layout,
    /// Our programs.
    pub(crate) binaries: Binaries,
    /// What is booted.
    pub(crate) images: Images,
}

/// How to get programs and images.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct SetupOptions {
    /// Take programs as they are in the target folder instead of building them
    #[arg(long)]
    pub(crate) no_build: bool,
    /// Go on without plugin images or shell module that do not build
    #[arg(long)]
    pub(crate) partial: bool,
    /// Which build of our programs to run
    #[arg(long, value_enum, default_value = "release")]
    pub(crate) profile: Profile,
}

impl Default for SetupOptions {
    fn default() -> Self {
        Self { no_build: false, partial: false, profile: Profile::Release }
    }
}

/// Builds and prepares what is not up to date.
pub(crate) fn prepare(options: SetupOptions, force: bool) -> Result<Setup> {
    let progress = Progress::default();
    let layout = Layout::new(workspace::root()?);
    let binaries =
        binaries::provide(layout.workspace(), options.profile, !options.no_build, &progress)?;
    let inputs = Inputs {
        guest_programs: GUEST_PROGRAMS.map(|name| binaries.path(name)).to_vec(),
        programs: binaries.all().into_iter().map(|(_, path)| path).collect(),
        partial: options.partial,
        force,
    };
    let images = images::prepare(&layout, &inputs, &progress)?;
    Ok(Setup { layout, binaries, images })
}
