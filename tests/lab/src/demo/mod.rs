//! `cargo lab demo`: the main job, shown. Runs the scenario once per guest kernel in a lab host,
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
    let names: Vec<_> = kernels.iter().map(|kernel| kernel.name()).collect();
    eprintln!("lab: main job with guest kernel {}, {} cycles", names.join(", "), arguments.cycles);
    let Seen { held, restarts, figures } = main_jobs(arguments, &setup, &kernels)?;
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

/// What the lab host showed.
struct Seen {
    held: bool,
    restarts: u32,
    /// By kernel.
    figures: Vec<Value>,
}

/// Runs the main job with each kernel, one after the other in one lab host.
fn main_jobs(arguments: &DemoArguments, setup: &Setup, kernels: &[Series]) -> Result<Seen> {
    let report = |kernel: &Series| format!("report-{kernel}.json");
    let jobs: Vec<_> = kernels
        .iter()
        .map(|kernel| {
            format!(
                "lab scenario main-job --kernel {kernel} --json /out/{} --set cycles={} || failed=1",
                report(kernel),
                arguments.cycles
            )
        })
        .collect();
    let script = format!("failed=0\n{}\nexit $failed", jobs.join("\n"));
    let seconds = 300 + 10 * u64::from(arguments.cycles);
    let job = Job {
        argv: ["sh".to_owned(), "-c".to_owned(), script].to_vec(),
        script: None,
        timeout: Duration::from_secs(seconds * kernels.len() as u64),
        out: None,
        keep: false,
    };
    let outcome = host::run(setup, &arguments.host, &job)?;
    let mut figures = Vec::new();
    for kernel in kernels {
        let Ok(text) = fs::read_to_string(outcome.out.join(report(kernel))) else {
            bail!(
                "the main job with kernel {kernel} gave no report (exit status {}){}",
                outcome.status(),
                outcome.complaint().map(|why| format!(": {why}")).unwrap_or_default()
            );
        };
        let report: Value = serde_json::from_str(&text)?;
        figures.push(report["figures"].clone());
    }
    Ok(Seen { held: outcome.status() == 0, restarts: outcome.restarts, figures })
}
