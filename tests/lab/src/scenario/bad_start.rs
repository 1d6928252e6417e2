//! What an operator in a hurry does: a kernel, tap, disk or directory that is not there. `vmm run`
//! ends at once with an error that names the thing.

use super::Context;
use super::guest::GuestOptions;
use anyhow::{Context as _, Result, ensure};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The flag to change, its bad value, and a word that the error must hold.
const CASES: [(&str, &str, &str); 7] = [
    ("--kernel", "/nonexistent/vmlinuz", "/nonexistent/vmlinuz"),
    ("--kernel", "/proc/version", "kernel"),
    ("--initrd", "/nonexistent/initrd", "/nonexistent/initrd"),
    ("--net", "id=net0,tap=nosuchtap,mac=52:54:00:00:00:01", "nosuchtap"),
    ("--net", "id=net0,tap=tap0,mac=rubbish", "mac"),
    ("--plugins", "/nonexistent/plugins", "/nonexistent/plugins"),
    ("--memory", "1", "memory"),
];

pub(crate) fn run(context: &Context) -> Result<()> {
    for (flag, value, word) in CASES {
        let good = GuestOptions::new(context).named("bad-start").command();
        let mut arguments: Vec<_> = good.get_args().map(ToOwned::to_owned).collect();
        let at = arguments.iter().position(|argument| argument == flag).context("no such flag")?;
        arguments[at + 1] = value.into();
        let mut child = Command::new("vmm")
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                anyhow::bail!("vmm runs in spite of {flag} {value}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "vmm succeeds with {flag} {value}");
        ensure!(!error.contains("panicked"), "vmm panics with {flag} {value}: {error}");
        ensure!(
            error.to_lowercase().contains(word),
            "with {flag} {value} the error has no word of {word:?}: {error}"
        );
    }
    Ok(())
}
