//! `cargo lab demo`: the main job, shown. Entry point on the build machine.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::host::HostOptions;
use crate::setup::SetupOptions;

/// Options of `cargo lab demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArguments {
    /// Write the figures there, as JSON
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Draw frames per second over the switches there, as SVG
    #[arg(long)]
    pub(crate) svg: Option<PathBuf>,
    /// How often the card goes to a VF and back
    #[arg(long, default_value_t = 20)]
    pub(crate) cycles: u32,
    /// Guest kernel: 6.1, 6.12 or all
    #[arg(long, default_value = "all")]
    pub(crate) kernel: String,
    #[command(flatten)]
    pub(crate) host: HostOptions,
    #[command(flatten)]
    pub(crate) setup: SetupOptions,
}

/// Runs the demo.
pub(crate) fn run(_arguments: &DemoArguments) -> Result<ExitCode> {
    bail!("the demo is not built yet")
}
