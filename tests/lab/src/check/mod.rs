//! `cargo lab test`: everything that has to hold, in one command. Each step is a section with its
//! time; a failing step does not keep the next from running; the last line sums up.

mod dependencies;
mod licence;
mod runner;
mod source;
mod steps;
mod tally;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::host::HostOptions;
use crate::setup::{Setup, SetupOptions};
use crate::{scenario, setup, workspace};
pub(crate) use tally::Tally;

/// Options of `cargo lab test`.
#[derive(Debug, clap::Args)]
pub(crate) struct TestArguments {
    /// Run only this step (may be given several times): see --list
    #[arg(long)]
    only: Vec<String>,
    /// Run only this scenario (may be given several times)
    #[arg(long)]
    scenario: Vec<String>,
    /// List the steps and end
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    host: HostOptions,
    #[command(flatten)]
    setup: SetupOptions,
}

/// What steps work with.
struct Session<'a> {
    arguments: &'a TestArguments,
    workspace: std::path::PathBuf,
    /// Programs and images, made by the first step that needs them.
    setup: Option<Setup>,
    /// Lab hosts that were lost and replaced.
    restarts: u32,
}

impl Session<'_> {
    fn setup(&mut self) -> Result<&Setup> {
        if self.setup.is_none() {
            self.setup = Some(setup::prepare(self.arguments.setup, false)?);
        }
        self.setup.as_ref().ok_or_else(|| anyhow::anyhow!("no programs and images"))
    }
}

/// One part of the test.
struct Step {
    name: &'static str,
    what: &'static str,
    run: fn(&mut Session<'_>) -> Result<Tally>,
}

const STEPS: &[Step] = &[
    Step { name: "format", what: "source format", run: source::format },
    Step { name: "lint", what: "lints, warnings denied", run: source::lint },
    Step {
        name: "dependencies",
        what: "one version of each rust-vmm crate; licences",
        run: source::dependencies,
    },
    Step {
        name: "tests",
        what: "unit, property and model tests on this machine",
        run: runner::host_tests,
    },
    Step { name: "documentation", what: "examples in documentation", run: runner::documentation },
    Step {
        name: "sanitizer",
        what: "guest code's tests under AddressSanitizer",
        run: runner::sanitizer,
    },
    Step { name: "images", what: "programs, kernels, images", run: steps::images },
    Step { name: "plugins", what: "plugin images verify", run: steps::plugins },
    Step {
        name: "module",
        what: "shell module for each kernel, without warnings",
        run: steps::module,
    },
    Step {
        name: "packages",
        what: "Debian packages build, systemd understands their units",
        run: steps::packages,
    },
    Step { name: "scenarios", what: "end to end in lab hosts", run: steps::scenarios },
];

/// Runs the steps and sums up.
pub(crate) fn run(arguments: &TestArguments) -> Result<ExitCode> {
    if arguments.list {
        for step in STEPS {
            println!("{:14} {}", step.name, step.what);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let steps = chosen(&arguments.only, &arguments.scenario)?;
    let mut session =
        Session { arguments, workspace: workspace::root()?, setup: None, restarts: 0 };
    let start = Instant::now();
    let mut sum = Tally::default();
    let mut table = Vec::new();
    for step in steps {
        println!("\n== {}: {}", step.name, step.what);
        let begin = Instant::now();
        let tally = (step.run)(&mut session).unwrap_or_else(|error| {
            println!("FAILED: {error:#}");
            Tally::failure()
        });
        for reason in &tally.skip_reasons {
            println!("SKIPPED: {reason}");
        }
        let line =
            format!("{:14} {} in {:.1} s", step.name, tally.brief(), begin.elapsed().as_secs_f64());
        println!("-- {line}");
        table.push(line);
        sum.add(tally);
    }
    println!("\n== summary, {:.0} s", start.elapsed().as_secs_f64());
    for line in table {
        println!("   {line}");
    }
    if session.restarts > 0 {
        println!("   lab hosts lost and replaced: {}", session.restarts);
    }
    println!("{sum}");
    Ok(if sum.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(only: &[String], scenarios: &[String]) -> Result<Vec<&'static Step>> {
    for name in scenarios {
        scenario::find(name)?;
    }
    for name in only {
        if !STEPS.iter().any(|step| step.name == name) {
            bail!("no step {name}: `cargo lab test --list` lists them");
        }
    }
    let wanted = |step: &&Step| match (only.is_empty(), scenarios.is_empty()) {
        (true, true) => true,
        (true, false) => step.name == "scenarios",
        (false, _) => only.iter().any(|name| name == step.name),
    };
    Ok(STEPS.iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(only: &[&str]) -> Result<Vec<&'static str>> {
        let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
        Ok(chosen(&only, &[])?.iter().map(|step| step.name).collect())
    }

    #[test]
    fn all_steps_run_unless_some_are_named() {
        assert_eq!(names(&[]).unwrap().len(), STEPS.len());
        assert_eq!(names(&["lint", "format"]).unwrap(), ["format", "lint"]);
        assert!(names(&["nothing"]).unwrap_err().to_string().contains("--list"));
    }
}
