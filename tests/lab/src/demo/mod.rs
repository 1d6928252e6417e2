//! `cargo lab demo`: the main job, shown. Runs the scenario once per guest kernel in lab hosts,
//! then prints the table and writes JSON and the timeline. On the build machine.

mod table;
mod timeline;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use images::Series;
use serde_json::{Value, json};

use crate::host::{self, HostOptions, Job};
use crate::setup::{self, Setup, SetupOptions};

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
    let kernels = match arguments.kernel.as_str() {
        "all" => Series::ALL.to_vec(),
        one => vec![one.parse::<Series>().map_err(anyhow::Error::msg)?],
    };
    let setup = setup::prepare(arguments.setup, false)?;
    let mut figures = Vec::new();
    let (mut held, mut restarts) = (true, 0);
    for kernel in kernels {
        eprintln!("lab: main job with guest kernel {kernel}, {} cycles", arguments.cycles);
        let seen = main_job(arguments, &setup, kernel)?;
        held &= seen.held;
        restarts += seen.restarts;
        figures.push(seen.figures);
    }
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

/// What one lab host showed.
struct Seen {
    held: bool,
    restarts: u32,
    figures: Value,
}

fn main_job(arguments: &DemoArguments, setup: &Setup, kernel: Series) -> Result<Seen> {
    let cycles = format!("cycles={}", arguments.cycles);
    let argv =
        ["lab", "scenario", "main-job", "--kernel", kernel.name(), "--json", "/out/report.json"]
            .into_iter()
            .chain(["--set", &cycles])
            .map(str::to_owned)
            .collect();
    let limit = Duration::from_secs(300 + 10 * u64::from(arguments.cycles));
    let job = Job { argv, script: None, timeout: limit, out: None, keep: false };
    let outcome = host::run(setup, &arguments.host, &job)?;
    let path = outcome.out.join("report.json");
    let Ok(text) = fs::read_to_string(&path) else {
        bail!(
            "the main job with kernel {kernel} gave no report (exit status {}){}",
            outcome.status(),
            outcome.complaint().map(|why| format!(": {why}")).unwrap_or_default()
        );
    };
    let report: Value = serde_json::from_str(&text)?;
    let figures = report["figures"].clone();
    Ok(Seen { held: outcome.status() == 0, restarts: outcome.restarts, figures })
}
