//! The world beyond the uplink: processes in the network namespace `outside`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::{Child, Command, Stdio};

/// Address of the outside world.
pub(crate) const ADDRESS: &str = "10.77.0.1";

/// A command outside. Runs on the CPU that guests never use in an emulated lab host: what is outside takes no time from
/// the VMM that is measured.
pub(super) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", "ip", "netns", "exec", "outside"]).args(arguments);
    command
}

/// A program that runs outside and prints one JSON object when it ends.
pub(crate) struct Program {
    child: Option<Child>,
    name: String,
}

impl Program {
    /// Starts `arguments` outside.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        let name = arguments.join(" ");
        let child = command(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("cannot start `{name}` outside"))?;
        Ok(Self { child: Some(child), name })
    }

    /// Asks it to end and returns what it printed.
    pub(crate) fn stop(self) -> Result<Value> {
        if let Some(child) = &self.child {
            let pid = rustix::process::Pid::from_child(child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .with_context(|| format!("cannot stop `{}`", self.name))?;
        }
        self.finish()
    }

    /// Waits for its end and returns what it printed.
    pub(crate) fn finish(mut self) -> Result<Value> {
        let child = self.child.take().context("program already ended")?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "`{}` failed with {}: {text}", self.name, output.status);
        serde_json::from_str(text.trim())
            .with_context(|| format!("`{}` printed no JSON: {text}", self.name))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
