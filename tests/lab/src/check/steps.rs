//! Steps that need programs and images: building them, checking plugin images and modules, and
//! the scenarios.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use images::Progress;

use super::runner::logged;
use super::{Session, Tally};
use crate::host::{self, Job};
use crate::packages;
use crate::scenario::{self, ON_ORDER, SCENARIOS, Scenario};

/// Everything that the lab boots builds.
pub(super) fn images(session: &mut Session<'_>) -> Result<Tally> {
    session.setup()?;
    Ok(Tally::one(true))
}

/// Each plugin image passes the tool's checks.
pub(super) fn plugins(session: &mut Session<'_>) -> Result<Tally> {
    let setup = session.setup()?.clone();
    let mut tally = Tally::default();
    for (package, file) in images::BLOBS {
        let mut command = Command::new(setup.binaries.path("npa-plugin"));
        command.arg("verify").arg(setup.layout.plugins().join(file));
        let (_, succeeded) = logged(session, &format!("verify-{package}"), &mut command)?;
        println!("{file}: {}", if succeeded { "ok" } else { "FAILED" });
        tally.add(Tally::one(succeeded));
    }
    Ok(tally)
}

/// The shell module builds for each kernel; a warning is an error.
pub(super) fn module(session: &mut Session<'_>) -> Result<Tally> {
    let setup = session.setup()?;
    let progress = Progress::default();
    let object = images::build_shell_object(&setup.layout, &progress)?;
    let mut tally = Tally::default();
    for kernel in &setup.images.kernels {
        let built = images::build_shell_module(&setup.layout, kernel, &object, &progress);
        match &built {
            Ok(_) => println!("{}: ok, no warnings", kernel.release),
            Err(error) => println!("{}: FAILED: {error}", kernel.release),
        }
        tally.add(Tally::one(built.is_ok()));
    }
    Ok(tally)
}

/// The Debian packages.
pub(super) fn packages(session: &mut Session<'_>) -> Result<Tally> {
    let out = session.workspace.join("target/debian");
    let built = packages::build(&session.workspace, &out)?;
    let mut tally = Tally::default();
    for package in built {
        println!("{}: ok", package.display());
        tally.add(Tally::one(true));
    }
    Ok(tally)
}

/// Every scenario, with every guest kernel that it is for, each in a lab host of its own.
pub(super) fn scenarios(session: &mut Session<'_>) -> Result<Tally> {
    let wanted = &session.arguments.scenario;
    let mut tally = Tally::default();
    let named = |scenario: &&Scenario| wanted.iter().any(|name| name == scenario.name);
    let usual = SCENARIOS.iter().filter(|scenario| wanted.is_empty() || named(scenario));
    for scenario in usual.chain(ON_ORDER.iter().filter(named)) {
        for kernel in scenario.kernels {
            println!("\n-- scenario {} with kernel {kernel}: {}", scenario.name, scenario.summary);
            let passed = run_scenario(session, scenario, *kernel).unwrap_or_else(|error| {
                println!("FAILED: {error:#}");
                false
            });
            tally.add(Tally::one(passed));
        }
    }
    Ok(tally)
}

fn run_scenario(
    session: &mut Session<'_>,
    scenario: &Scenario,
    kernel: images::Series,
) -> Result<bool> {
    let options = session.arguments.host.clone();
    let setup = session.setup()?;
    let out: PathBuf =
        setup.layout.cache().join("results").join(format!("{}-{kernel}", scenario.name));
    let job = Job {
        argv: scenario::command(scenario, kernel, &[], scenario::REPORT),
        script: None,
        cards: scenario.cards,
        timeout: Duration::from_secs(scenario.timeout),
        out: Some(out),
        keep: false,
    };
    let outcome = host::run(setup, &options, &job).context("cannot run a lab host")?;
    session.restarts += outcome.restarts;
    if let Some(complaint) = outcome.complaint() {
        println!("FAILED: {complaint}");
    }
    let passed = outcome.status() == 0;
    println!(
        "-- {} with kernel {kernel}: {} in {:.1} s{}",
        scenario.name,
        if passed { "ok" } else { "FAILED" },
        outcome.time.as_secs_f64(),
        match outcome.restarts {
            0 => String::new(),
            restarts => format!(", after {restarts} lost lab hosts"),
        }
    );
    Ok(passed)
}
