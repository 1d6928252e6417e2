//! End-to-end scenarios: each runs in a lab host, on the real programs, and judges what it saw.
//! This file is the table of them and how one is run; it judges nothing itself.

mod bad_plugin;
mod bad_start;
mod daemon_death;
mod daemon_faults;
mod data_path;
mod fault_matrix;
mod footprint;
mod guest;
mod host;
mod hostile_guest;
mod hung_guest;
mod inventory;
mod lifecycle;
mod main_job;
mod measure;
mod migration;
mod migration_bench;
mod migration_faults;
mod module_unload;
mod outside;
mod peer;
mod policy;
mod pool;
mod queue;
mod relay;
mod sandbox;
mod snapshot;
mod stock_guest;
mod traffic;
mod unlike_hosts;
mod vmm_death;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use images::Series;
use serde::{Deserialize, Serialize};

use crate::host::cards::Cards;

/// A scenario.
pub(crate) struct Scenario {
    /// Its name, as on the command line.
    pub(crate) name: &'static str,
    /// What it shows, in one line.
    pub(crate) summary: &'static str,
    /// Guest kernels that it runs with, once each.
    pub(crate) kernels: &'static [Series],
    /// The lab host's network cards.
    pub(crate) cards: Cards,
    /// Longest time in the lab host, in seconds.
    pub(crate) timeout: u64,
    /// Does it.
    pub(crate) run: fn(&Context) -> Result<Report>,
}

/// Every scenario, in the order in which they run.
pub(crate) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "main-job",
        summary: "NIC to a VF and back under two-way traffic, nothing lost; figures of both paths",
        kernels: &Series::ALL,
        cards: Cards::OneHost,
        timeout: 600,
        run: main_job::scenario,
    },
    Scenario {
        name: "migration",
        summary: "from VF to VF between two hosts under two-way traffic, nothing lost",
        kernels: &Series::ALL,
        cards: Cards::TwoHosts,
        timeout: 400,
        run: migration::scenario,
    },
    Scenario {
        name: "unlike-hosts",
        summary: "from an 82576 to a virtio function, to no VF, and back: other rings, other plugin",
        kernels: &[Series::V6_12],
        cards: Cards::UnlikeHosts,
        timeout: 400,
        run: unlike_hosts::scenario,
    },
    Scenario {
        name: "migration-faults",
        summary: "moves that fail or are ended leave the VM on its VF, its traffic unharmed",
        kernels: &[Series::V6_12],
        cards: Cards::TwoHosts,
        timeout: 400,
        run: |context| {
            held(migration_faults::run(context), "a VM whose move fails stays, and is whole")
        },
    },
    Scenario {
        name: "snapshot",
        summary: "saved, suspended and restored on a VF; what does not fit is refused",
        kernels: &Series::ALL,
        cards: Cards::OneHost,
        timeout: 300,
        run: |context| held(snapshot::run(context), "a saved guest goes on where it was"),
    },
    Scenario {
        name: "lifecycle",
        summary: "SMP, disk, entropy, pause, reboot and poweroff on a VF",
        kernels: &[Series::V6_12],
        cards: Cards::OneHost,
        timeout: 400,
        run: |context| held(lifecycle::run(context), "a guest lives, reboots and ends as asked"),
    },
    Scenario {
        name: "stock-guest",
        summary: "a guest without the shell works and moves; attach says why it cannot be",
        kernels: &[Series::V6_12],
        cards: Cards::TwoHosts,
        timeout: 200,
        run: |context| {
            held(
                stock_guest::run(context),
                "stock driver works and announces itself, attach is refused",
            )
        },
    },
    Scenario {
        name: "hung-guest",
        summary: "a paused guest loses its VF at the deadline and goes on emulated",
        kernels: &[Series::V6_12],
        cards: Cards::OneHost,
        timeout: 300,
        run: |context| held(hung_guest::run(context), "a hung guest delays nothing"),
    },
    Scenario {
        name: "module-unload",
        summary: "rmmod of the shell under traffic, emulated and on a VF",
        kernels: &Series::ALL,
        cards: Cards::OneHost,
        timeout: 400,
        run: |context| held(module_unload::run(context), "rmmod is clean, stock driver takes over"),
    },
    Scenario {
        name: "hostile-guest",
        summary: "rubbish to every NPA register and window offset",
        kernels: &[Series::V6_12],
        cards: Cards::OneHost,
        timeout: 300,
        run: |context| held(hostile_guest::run(context), "a hostile guest harms only itself"),
    },
    Scenario {
        name: "bad-plugin",
        summary: "damaged plugin files are refused by name",
        kernels: &[Series::V6_12],
        cards: Cards::OneHost,
        timeout: 200,
        run: |context| held(bad_plugin::run(context), "no damaged plugin reaches a guest"),
    },
    Scenario {
        name: "daemon-death",
        summary: "pf-control killed before and while a VF is in use",
        kernels: &[Series::V6_12],
        cards: Cards::OneHost,
        timeout: 300,
        run: |context| held(daemon_death::run(context), "pf-control may die at any time"),
    },
    Scenario {
        name: "daemon-faults",
        summary: "pf-control killed at each step of attach, drain and detach, and started again",
        kernels: &[Series::V6_12],
        cards: Cards::OneHost,
        timeout: 900,
        run: daemon_faults::scenario,
    },
    Scenario {
        name: "inventory",
        summary: "adapters, VFs and links as pf-control shows them, and changes as it tells them",
        kernels: &[Series::V6_12],
        cards: Cards::OneHost,
        timeout: 200,
        run: |context| held(inventory::run(context), "what pf-control shows is so"),
    },
    Scenario {
        name: "policy",
        summary: "what a port may do is in force at the card; what it may not is refused and written down",
        kernels: &[Series::V6_12],
        cards: Cards::OneHost,
        timeout: 240,
        run: |context| held(policy::run(context), "a port does what its policy says"),
    },
    Scenario {
        name: "sandbox",
        summary: "vmm is an ordinary user's, without rights, each thread under its filter; a forbidden call ends it",
        kernels: &[Series::V6_12],
        cards: Cards::OneHost,
        timeout: 300,
        run: |context| held(sandbox::run(context), "vmm is confined in either data path"),
    },
    Scenario {
        name: "queue",
        summary: "four VMs on two VFs: each gets one in its turn, and is emulated until then",
        kernels: &[Series::V6_12],
        cards: Cards::OneHost,
        timeout: 400,
        run: queue::scenario,
    },
    Scenario {
        name: "vmm-death",
        summary: "vmm killed while attached: the next VM gets the VF",
        kernels: &[Series::V6_12],
        cards: Cards::OneHost,
        timeout: 300,
        run: |context| held(vmm_death::run(context), "a killed vmm's VF is given again"),
    },
    Scenario {
        name: "bad-start",
        summary: "missing kernel, tap, plugins: an error that names the thing",
        kernels: &[Series::V6_12],
        cards: Cards::OneHost,
        timeout: 200,
        run: |context| held(bad_start::run(context), "bad command lines end with a clear error"),
    },
];

/// Those that take so long, or so much of a machine, that they run on order only: `cargo lab test --scenario NAME`.
pub(crate) static ON_ORDER: &[Scenario] = &[
    Scenario {
        name: "fault-matrix",
        summary: "a move is killed, cut, silenced and damaged at each of its phases: one VM runs",
        kernels: &[Series::V6_12],
        cards: Cards::TwoHosts,
        timeout: 2400,
        run: fault_matrix::scenario,
    },
    Scenario {
        name: "two-machines",
        summary: "as migration, between two machines that share nothing but a wire",
        kernels: &[Series::V6_12],
        cards: Cards::TwoMachines,
        timeout: 600,
        run: migration::machines,
    },
];

/// What is only measured, with its peers in the same run; on order, since it says nothing of right or wrong.
pub(crate) static BENCHMARKS: &[Scenario] = &[
    Scenario {
        name: "data-path",
        summary: "frames, bits and exits: both paths, stock igbvf under plain VFIO, QEMU's virtio-net",
        kernels: &Series::ALL,
        cards: Cards::OneHost,
        timeout: 600,
        run: data_path::scenario,
    },
    Scenario {
        name: "migration",
        summary: "stop, longest gap and loss: our moves, QEMU's of virtio-net, QEMU's failover",
        kernels: &Series::ALL,
        cards: Cards::TwoHosts,
        timeout: 600,
        run: migration_bench::scenario,
    },
];

/// The report of a scenario that has one verdict.
fn held(result: Result<()>, what: &str) -> Result<Report> {
    let (passed, seen) = match result {
        Ok(()) => (true, "yes".to_owned()),
        Err(error) => (false, format!("{error:#}")),
    };
    Ok(Report {
        checks: vec![Check { what: what.to_owned(), passed, seen }],
        figures: serde_json::Value::Null,
    })
}

/// What a scenario gets.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The guest kernel to use.
    pub(crate) kernel: Series,
    /// Guest kernels and images: `$LAB_IMAGES`.
    pub(crate) images: PathBuf,
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
    /// It is a benchmark's name
    #[arg(long)]
    benchmark: bool,
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

/// The command that runs a scenario in a lab host and leaves its report in the file `report` there.
pub(crate) fn command(
    scenario: &Scenario,
    kernel: Series,
    settings: &[(&str, String)],
    report: &str,
) -> Vec<String> {
    let mut argv: Vec<String> =
        ["lab", "scenario", scenario.name, "--kernel", kernel.name(), "--json", report]
            .map(str::to_owned)
            .to_vec();
    if BENCHMARKS.iter().any(|benchmark| std::ptr::eq(benchmark, scenario)) {
        argv.push("--benchmark".to_owned());
    }
    for (name, value) in settings {
        argv.extend(["--set".to_owned(), format!("{name}={value}")]);
    }
    argv
}

/// Where a report is in a lab host; `report.json` in the outcome's `out` on the build machine.
pub(crate) const REPORT: &str = "/out/report.json";

/// Finds a scenario by its name.
pub(crate) fn find(name: &str) -> Result<&'static Scenario> {
    find_in(SCENARIOS, name).or_else(|_| find_in(ON_ORDER, name))
}

/// Finds a benchmark by its name.
pub(crate) fn find_benchmark(name: &str) -> Result<&'static Scenario> {
    find_in(BENCHMARKS, name)
}

fn find_in(table: &'static [Scenario], name: &str) -> Result<&'static Scenario> {
    table
        .iter()
        .find(|scenario| scenario.name == name)
        .with_context(|| format!("no scenario {name}: `lab scenarios` lists them"))
}

/// Runs one scenario in this lab host.
pub(crate) fn run(arguments: &ScenarioArguments) -> Result<ExitCode> {
    let name = &arguments.name;
    let scenario = if arguments.benchmark { find_benchmark(name)? } else { find(name)? };
    if !scenario.kernels.contains(&arguments.kernel) {
        bail!("scenario {} does not run with kernel {}", scenario.name, arguments.kernel);
    }
    let images = std::env::var_os("LAB_IMAGES")
        .context("LAB_IMAGES is not set: scenarios run in a lab host (`cargo lab test`)")?;
    let context = Context {
        kernel: arguments.kernel,
        images: images.into(),
        settings: arguments.settings.clone(),
    };
    let up = Command::new("lab").arg("up").status().context("cannot run lab up")?;
    if !up.success() {
        bail!("lab up failed ({up})");
    }
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

/// Prints what the host that this runs on holds, for a scenario elsewhere.
pub(crate) fn print_footprint(socket: &Path) -> Result<ExitCode> {
    footprint::print(socket)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the tables.
pub(crate) fn list() {
    for (kind, table) in [("", SCENARIOS), ("(on order) ", ON_ORDER), ("--benchmark ", BENCHMARKS)]
    {
        for scenario in table {
            let kernels: Vec<_> = scenario.kernels.iter().map(|kernel| kernel.name()).collect();
            let name = format!("{kind}{}", scenario.name);
            println!("{name:24} [{}]  {}", kernels.join(", "), scenario.summary);
        }
    }
}
