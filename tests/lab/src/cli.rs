//! The command line, on the build machine and in the lab host.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::host::cards::Cards;
use crate::host::{self, HostOptions, Job};
use crate::setup::{self, SetupOptions};
use crate::{agent, bench, check, demo, guest, hold, packages, scenario, there, up};

/// The nested-KVM lab of npa-kvm
#[derive(Debug, Parser)]
#[command(name = "lab")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install tools and build images (build machine)
    Prepare {
        /// Look for newer kernels and build everything again
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        setup: SetupOptions,
    },
    /// An interactive lab host (build machine)
    Shell {
        #[command(flatten)]
        host: HostOptions,
        #[command(flatten)]
        setup: SetupOptions,
        /// Network cards of the lab host
        #[arg(long, value_enum, default_value = "unlike-hosts")]
        cards: Cards,
    },
    /// Run a script in a lab host and exit with its status (build machine)
    Exec(ExecArguments),
    /// Run all checks and scenarios (build machine)
    Test(check::TestArguments),
    /// Show the main job: a guest's card moved to a VF and back, under traffic (build machine)
    Demo(demo::DemoArguments),
    /// Measure ours beside its peers (build machine)
    Bench(bench::BenchArguments),
    /// Build Debian packages of pf-control, vmm and the device plugin (build machine)
    Packages(packages::PackagesArguments),
    /// Make PF, VFs, bridge, taps and pf-control ready (lab host)
    Up(up::UpArguments),
    /// Run a command in a guest over its serial console (lab host)
    GuestExec(guest::GuestExecArguments),
    /// Run one scenario (lab host)
    Scenario(scenario::ScenarioArguments),
    /// List the scenarios
    Scenarios,
    /// Run a program on the second machine (lab host with `--cards two-machines`)
    There {
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Hold a VM that never runs
    #[command(hide = true)]
    HeldVm,
    /// Be the second machine
    #[command(hide = true)]
    SecondMachine,
    /// What this host holds while no VM runs, as JSON
    #[command(hide = true)]
    Footprint {
        /// Where its pf-control listens
        socket: PathBuf,
    },
    /// Run what the build machine ordered (lab host, started by its /init)
    #[command(hide = true)]
    Agent,
}

#[derive(Debug, clap::Args)]
struct ExecArguments {
    #[command(flatten)]
    host: HostOptions,
    #[command(flatten)]
    setup: SetupOptions,
    /// Network cards of the lab host
    #[arg(long, value_enum, default_value = "unlike-hosts")]
    cards: Cards,
    /// Longest time for the script, in seconds
    #[arg(long, default_value_t = 1800)]
    timeout: u64,
    /// Folder for what the script writes to /out (default: in the run's folder)
    #[arg(long)]
    out: Option<PathBuf>,
    /// Open a shell in the lab host when the script has ended
    #[arg(long)]
    keep: bool,
    /// The script; run by bash when it names no interpreter
    script: PathBuf,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Parses the command line and does what it says.
pub(crate) fn run() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Prepare { force, setup } => {
            let setup = setup::prepare(setup, force)?;
            for kernel in &setup.images.kernels {
                println!("kernel {:5} {}", kernel.series, kernel.release);
            }
            println!("images {}", setup.images.guest.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Shell { host, setup, cards } => {
            host::shell(&setup::prepare(setup, false)?, &host, cards)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Exec(arguments) => exec(&arguments),
        Command::Test(arguments) => check::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Packages(arguments) => packages::run(&arguments),
        Command::Up(arguments) => up::run(&arguments),
        Command::GuestExec(arguments) => guest::run(&arguments),
        Command::Scenario(arguments) => scenario::run(&arguments),
        Command::Scenarios => {
            scenario::list();
            Ok(ExitCode::SUCCESS)
        }
        Command::There { words } => there::run(&words),
        Command::HeldVm => hold::run(),
        Command::SecondMachine => there::serve(),
        Command::Footprint { socket } => scenario::print_footprint(&socket),
        Command::Agent => agent::run(),
    }
}

fn exec(arguments: &ExecArguments) -> Result<ExitCode> {
    let setup = setup::prepare(arguments.setup, false)?;
    let mut argv = vec!["/lab/script".to_owned()];
    argv.extend_from_slice(&arguments.arguments);
    let job = Job {
        argv,
        script: Some(arguments.script.clone()),
        cards: arguments.cards,
        timeout: Duration::from_secs(arguments.timeout),
        out: arguments.out.clone(),
        keep: arguments.keep,
    };
    let outcome = host::run(&setup, &arguments.host, &job)?;
    if let Some(complaint) = outcome.complaint() {
        eprintln!("lab: {complaint}");
    }
    eprintln!(
        "lab: exit status {}, {:.1} s, {} restarts, /out is {}",
        outcome.status(),
        outcome.time.as_secs_f64(),
        outcome.restarts,
        outcome.out.display()
    );
    Ok(ExitCode::from(outcome.status()))
}
