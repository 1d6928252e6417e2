//! `cargo lab bench`: figures, ours and our peers' taken in the same lab host. On the build machine.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::host::HostOptions;
use crate::reports::{self, Reports};
use crate::scenario::{self, BENCHMARKS};
use crate::setup::{self, SetupOptions};

/// Options of `cargo lab bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArguments {
    /// Which benchmark
    #[arg(value_parser = names())]
    name: String,
    /// Write the figures there, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// How often each subject is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Guest kernel: 6.1, 6.12 or all
    #[arg(long, default_value = "6.12")]
    kernel: String,
    #[command(flatten)]
    host: HostOptions,
    #[command(flatten)]
    setup: SetupOptions,
}

fn names() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(
        BENCHMARKS.iter().map(|benchmark| {
            clap::builder::PossibleValue::new(benchmark.name).help(benchmark.summary)
        }),
    )
}

/// Runs the benchmark.
pub(crate) fn run(arguments: &BenchArguments) -> Result<ExitCode> {
    let kernels = reports::kernels(&arguments.kernel)?;
    let setup = setup::prepare(arguments.setup, false)?;
    let seconds = 120 + 240 * u64::from(arguments.rounds);
    let Reports { held, restarts, figures } = reports::collect(
        &setup,
        &arguments.host,
        scenario::find_benchmark(&arguments.name)?,
        &kernels,
        &[("rounds", arguments.rounds.to_string())],
        Duration::from_secs(seconds),
    )?;
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
