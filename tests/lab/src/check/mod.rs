//! `cargo lab test`.
use std::process::ExitCode;

use anyhow::{Result, bail};

/// Options of `cargo lab test`.
#[derive(Debug, clap::Args)]
pub(crate) struct TestArguments {
    /// Only these steps
    #[arg(long)]
    pub(crate) only: Vec<String>,
}

pub(crate) fn run(_arguments: &TestArguments) -> Result<ExitCode> {
    bail!("not yet")
}
