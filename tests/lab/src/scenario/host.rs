//! The hosts: the lab host's own network; a namespace beside it with a card and a pf-control of its own,
//! which shares wire, kernel and file system with it; or a machine of its own, which shares the wire.

use crate::up;
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
    /// The second machine.
    Machine,
}

impl Host {
    /// Makes the namespace, or the part of it that is missing.
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

    /// The other one of the two in this lab host.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second | Self::Machine => Self::First,
        }
    }

    /// Its physical function.
    pub(crate) fn pf(self) -> &'static str {
        match self {
            Self::First | Self::Machine => "eth0",
            Self::Second => "eth2",
        }
    }

    /// Has the PF's driver reset it, and with it the VFs: their rings and interrupts are gone.
    pub(crate) fn reset_pf(self) -> Result<()> {
        for mtu in ["1496", "1500"] {
            let status = self
                .command("ip")
                .args(["link", "set", self.pf(), "mtu", mtu])
                .status()
                .context("cannot run ip")?;
            ensure!(status.success(), "the MTU of {} could not be changed", self.pf());
        }
        Ok(())
    }

    /// Where its pf-control listens.
    pub(crate) fn pf_control(self) -> PathBuf {
        match self {
            Self::First | Self::Machine => "/run/npa/pf-control.sock".into(),
            Self::Second => "/run/npa/second/pf-control.sock".into(),
        }
    }

    /// Its address.
    pub(crate) fn address(self) -> &'static str {
        match self {
            Self::First => up::FIRST_ADDRESS,
            Self::Second | Self::Machine => up::SECOND_ADDRESS,
        }
    }

    /// A command that runs there, in its network; its process is the program's own, or stands for it.
    pub(crate) fn command(self, program: &str) -> Command {
        match self {
            Self::First | Self::Machine => self.nearby(program),
            Self::Second => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", up::SECOND_HOST, program]);
                command
            }
        }
    }

    /// A command that runs where its files and sockets are.
    pub(crate) fn nearby(self, program: &str) -> Command {
        match self {
            Self::First | Self::Second => Command::new(program),
            Self::Machine => {
                let mut command = Command::new("lab");
                command.args(["there", program]);
                command
            }
        }
    }
}
