//! Steps that look at the source only.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::runner::logged;
use super::{Session, Tally, dependencies};

/// The source is formatted.
pub(super) fn format(session: &mut Session<'_>) -> Result<Tally> {
    let mut command = Command::new("cargo");
    command.args(["fmt", "--all", "--check"]);
    let (_, succeeded) = logged(session, "format", &mut command)?;
    Ok(Tally::one(succeeded))
}

/// No lint finds anything.
pub(super) fn lint(session: &mut Session<'_>) -> Result<Tally> {
    let mut command = Command::new("cargo");
    command.args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]);
    let (_, succeeded) = logged(session, "lint", &mut command)?;
    Ok(Tally::one(succeeded))
}

/// Versions and licences of what we depend on.
pub(super) fn dependencies(session: &mut Session<'_>) -> Result<Tally> {
    let output = Command::new("cargo")
        .current_dir(&session.workspace)
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout).context("cargo's metadata is no text")?;
    let mut tally = Tally::default();
    for problems in dependencies::check(&text).context("cannot read cargo's metadata")? {
        for problem in &problems {
            println!("{problem}");
        }
        tally.add(Tally::one(problems.is_empty()));
    }
    Ok(tally)
}
