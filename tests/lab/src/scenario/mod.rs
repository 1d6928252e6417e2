//! End-to-end scenarios: each runs in a lab host, on the real programs, and judges what it saw.
//! This file is the table of them and how one is run; it judges nothing itself.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use images::Series;
use serde::{Deserialize, Serialize};

/// A scenario.
pub(crate) struct Scenario {
    /// Its name, as on the command line.
    pub(crate) name: &'static str,
    /// What it shows, in one line.
    pub(crate) summary: &'static str,
    /// Guest kernels that it runs with, once each.
    pub(crate) kernels: &'static [Series],
    /// Longest time in the lab host, in seconds.
    pub(crate) timeout: u64,
    /// Does it.
    pub(crate) run: fn(&Context) -> Result<Report>,
}

/// Every scenario, in the order in which they run.
pub(crate) const SCENARIOS: &[Scenario] = &[];

/// What a scenario gets.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The guest kernel to use.
    pub(crate) kernel: Series,
    /// Guest kernels and images: `$LAB_IMAGES`.
    pub(crate) images: PathBuf,
    /// For files of this run.
    pub(crate) work: PathBuf,
    /// Options given as `--set NAME=VALUE`.
    pub(crate) settings: Vec<(String, String)>,
}

impl Context {
    /// The guest's kernel image.
    pub(crate) fn vmlinuz(&self) -> PathBuf {
        self.images.join(format!("vmlinuz-{}", self.kernel))
    }

    /// The guest's initramfs.
    pub(crate) fn initrd(&self) -> PathBuf {
        self.images.join(format!("initrd-{}.img", self.kernel))
    }

    /// The folder of plugin images.
    pub(crate) fn plugins(&self) -> PathBuf {
        self.images.join("plugins")
    }

    /// A setting, or its default.
    pub(crate) fn setting<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.settings
            .iter()
            .find_map(|(key, value)| (key == name).then_some(value.as_str()))
            .unwrap_or(default)
    }
}

/// What a scenario saw.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What was checked, each with its verdict.
    pub(crate) checks: Vec<Check>,
    /// Figures, in the scenario's own form.
    pub(crate) figures: serde_json::Value,
}

/// One thing that must hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Check {
    /// What.
    pub(crate) what: String,
    /// Whether it does.
    pub(crate) passed: bool,
    /// What was seen.
    pub(crate) seen: String,
}

/// Options of `lab scenario`.
#[derive(Debug, clap::Args)]
pub(crate) struct ScenarioArguments {
    /// The scenario's name (see `lab scenarios`)
    name: String,
    /// The guest's kernel
    #[arg(long, default_value = "6.12")]
    kernel: Series,
    /// Write the report there, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// A setting of the scenario, NAME=VALUE
    #[arg(long = "set", value_parser = setting)]
    settings: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text}: want NAME=VALUE"))
}

/// Finds a scenario by its name.
pub(crate) fn find(name: &str) -> Result<&'static Scenario> {
    SCENARIOS
        .iter()
        .find(|scenario| scenario.name == name)
        .with_context(|| format!("no scenario {name}: `lab scenarios` lists them"))
}

/// Runs one scenario in this lab host.
pub(crate) fn run(arguments: &ScenarioArguments) -> Result<ExitCode> {
    let scenario = find(&arguments.name)?;
    if !scenario.kernels.contains(&arguments.kernel) {
        bail!("scenario {} does not run with kernel {}", scenario.name, arguments.kernel);
    }
    let images = std::env::var_os("LAB_IMAGES")
        .context("LAB_IMAGES is not set: scenarios run in a lab host (`cargo lab test`)")?;
    let work = PathBuf::from("/run/lab").join(scenario.name);
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let context = Context {
        kernel: arguments.kernel,
        images: images.into(),
        work,
        settings: arguments.settings.clone(),
    };
    let report = (scenario.run)(&context)?;
    for check in &report.checks {
        let verdict = if check.passed { "ok" } else { "FAILED" };
        println!("{verdict:>6}  {}: {}", check.what, check.seen);
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let passed = !report.checks.is_empty() && report.checks.iter().all(|check| check.passed);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the table.
pub(crate) fn list() {
    for scenario in SCENARIOS {
        let kernels: Vec<_> = scenario.kernels.iter().map(|kernel| kernel.name()).collect();
        println!("{:24} [{}]  {}", scenario.name, kernels.join(", "), scenario.summary);
    }
}
