//! `cargo lab demo`: the main job, shown. Runs the scenario once per guest kernel in a lab host,
//! then prints the table and writes JSON and the timeline. On the build machine.

mod table;
mod timeline;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::host::HostOptions;
use crate::reports::{self, Reports};
use crate::scenario;
use crate::setup::{self, SetupOptions};

/// Options of `cargo lab demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArguments {
    /// Write the figures there, as JSON
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Draw frames per second over the switches there, as SVG
    #[arg(long, default_value = "demo.svg")]
    pub(crate) svg: PathBuf,
    /// How often the card goes to a VF and back
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
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
pub(crate) fn run(arguments: &DemoArguments) -> Result<ExitCode> {
    let kernels = reports::kernels(&arguments.kernel)?;
    let setup = setup::prepare(arguments.setup, false)?;
    let names: Vec<_> = kernels.iter().map(|kernel| kernel.name()).collect();
    eprintln!("lab: main job with guest kernel {}, {} cycles", names.join(", "), arguments.cycles);
    let seconds = 300 + 10 * u64::from(arguments.cycles);
    let Reports { held, restarts, figures } = reports::collect(
        &setup,
        &arguments.host,
        scenario::find("main-job")?,
        &kernels,
        &[("cycles", arguments.cycles.to_string())],
        Duration::from_secs(seconds),
    )?;
    print!("\n{}", table::format(&figures));
    timeline::draw(&figures, &arguments.svg)?;
    println!("timeline: {}", arguments.svg.display());
    if let Some(path) = &arguments.json {
        let report = json!({ "kernels": figures, "lab_host_restarts": restarts });
        fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("figures: {}", path.display());
    }
    if restarts > 0 {
        println!("lab host restarts: {restarts}");
    }
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
