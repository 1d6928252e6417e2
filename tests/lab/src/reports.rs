//! Runs a scenario or a benchmark with several guest kernels, one after the other in one lab host, and
//! collects what they report. On the build machine.

use std::fs;
use std::time::Duration;

use anyhow::{Result, bail};
use images::Series;
use serde_json::Value;

use crate::host::{self, HostOptions, Job};
use crate::scenario::{self, Scenario};
use crate::setup::Setup;

/// What the lab host showed.
pub(crate) struct Reports {
    /// Whether all of it held.
    pub(crate) held: bool,
    /// Lab hosts that were lost and replaced.
    pub(crate) restarts: u32,
    /// The scenario's own figures, by kernel.
    pub(crate) figures: Vec<Value>,
}

/// The kernels that an option names: one series, or `all`.
pub(crate) fn kernels(option: &str) -> Result<Vec<Series>> {
    match option {
        "all" => Ok(Series::ALL.to_vec()),
        one => Ok(vec![one.parse::<Series>().map_err(anyhow::Error::msg)?]),
    }
}

/// Runs a scenario with each of `kernels`, each for `limit` at most.
pub(crate) fn collect(
    setup: &Setup,
    options: &HostOptions,
    scenario: &Scenario,
    kernels: &[Series],
    settings: &[(&str, String)],
    limit: Duration,
) -> Result<Reports> {
    let name = scenario.name;
    let file = |kernel: &Series| format!("report-{kernel}.json");
    let mut script = "failed=0\n".to_owned();
    for kernel in kernels {
        let report = format!("/out/{}", file(kernel));
        let command = scenario::command(scenario, *kernel, settings, &report);
        script += &format!("{} || failed=1\n", command.join(" "));
    }
    script += "exit $failed";
    let job = Job {
        argv: ["sh".to_owned(), "-c".to_owned(), script].to_vec(),
        script: None,
        cards: scenario.cards,
        timeout: limit * kernels.len() as u32,
        out: None,
        keep: false,
    };
    let outcome = host::run(setup, options, &job)?;
    let mut figures = Vec::new();
    for kernel in kernels {
        let Ok(text) = fs::read_to_string(outcome.out.join(file(kernel))) else {
            bail!(
                "{name} with kernel {kernel} gave no report (exit status {}){}",
                outcome.status(),
                outcome.complaint().map(|why| format!(": {why}")).unwrap_or_default()
            );
        };
        let report: Value = serde_json::from_str(&text)?;
        figures.push(report["figures"].clone());
    }
    Ok(Reports { held: outcome.status() == 0, restarts: outcome.restarts, figures })
}
