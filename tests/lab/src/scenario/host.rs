//! The hosts in a lab host: its own network, and a namespace with a card and a pf-control of its
//! own. They share a wire, a kernel and a file system, and nothing else.

use crate::up::SECOND_HOST;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::Command;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// The lab host itself.
    First,
    /// The namespace.
    Second,
}

impl Host {
    /// Makes the second host, or the part of it that is missing.
    pub(crate) fn up() -> Result<()> {
        Self::up_with(&[])
    }

    /// The same; its pf-control, if that does not run, serves the virtio function.
    pub(crate) fn up_with_virtio_function() -> Result<()> {
        Self::up_with(&["--virtio-function"])
    }

    fn up_with(options: &[&str]) -> Result<()> {
        let status = Command::new("lab")
            .args(["up", "--second-host"])
            .args(options)
            .status()
            .context("cannot run lab up")?;
        ensure!(status.success(), "the second host was not made");
        Ok(())
    }

    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// Where its pf-control listens.
    pub(crate) fn pf_control(self) -> PathBuf {
        match self {
            Self::First => "/run/npa/pf-control.sock".into(),
            Self::Second => "/run/npa/second/pf-control.sock".into(),
        }
    }

    /// A command that runs there; its process is the program's own.
    pub(crate) fn command(self, program: &str) -> Command {
        match self {
            Self::First => Command::new(program),
            Self::Second => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", SECOND_HOST, program]);
                command
            }
        }
    }
}
