//! Steps that run test programs on this machine, and how any command of a step is run: its output
//! goes to a file, and is shown when it fails.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::{Session, Tally};

/// Lines of a failed command's output that are shown; all are in the file.
const SHOWN: usize = 200;

/// What runs in a guest, or is fed by one: memory errors here would be the guest's kernel's.
const GUEST_CODE: [&str; 5] =
    ["npa-abi", "shell-core", "npa-plugin-sdk", "virtio-net-plugin", "igbvf-plugin"];

/// Runs `command` in the workspace. Returns all that it printed, and whether it succeeded.
pub(super) fn logged(
    session: &Session<'_>,
    name: &str,
    command: &mut Command,
) -> Result<(String, bool)> {
    let folder = session.workspace.join(".lab/log");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(format!("{name}.log"));
    let file =
        fs::File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let status = command
        .current_dir(&session.workspace)
        .env("CARGO_TERM_COLOR", "never")
        .env("TERM", "dumb")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if !status.success() {
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(SHOWN)..] {
            // Indented, so that no one takes a runner's closing line in here for ours.
            println!("   | {line}");
        }
        println!("   ({status}; all of it: {})", path.display());
    }
    Ok((text, status.success()))
}

/// All tests of the workspace. Tests that this machine cannot run say so and count as skipped.
pub(super) fn host_tests(session: &mut Session<'_>) -> Result<Tally> {
    let mut command = Command::new("cargo");
    if which("cargo-nextest") {
        command.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
        command.args(["--success-output", "immediate", "--no-tests", "pass"]);
    } else {
        command.args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]);
        command.args(["--", "--nocapture"]);
    }
    let (text, succeeded) = logged(session, "tests", &mut command)?;
    Ok(Tally::of_runner(&text, succeeded))
}

/// Examples in documentation.
pub(super) fn documentation(session: &mut Session<'_>) -> Result<Tally> {
    let mut command = Command::new("cargo");
    command.args(["test", "--workspace", "--doc", "--no-fail-fast"]);
    let (text, succeeded) = logged(session, "documentation", &mut command)?;
    Ok(Tally::of_runner(&text, succeeded))
}

/// The tests of what runs in guests, once more under AddressSanitizer (nightly compilers only).
pub(super) fn sanitizer(session: &mut Session<'_>) -> Result<Tally> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let nightly = Command::new("rustup")
        .args(["run", "nightly", "cargo", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !nightly {
        return Ok(Tally::skip("AddressSanitizer: no nightly toolchain on this machine"));
    }
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "test", "--no-fail-fast", "--lib", "--tests"]);
    // With a target named, build scripts are left alone.
    command.args(["--target", TARGET, "--target-dir", "target/sanitizer"]);
    for package in GUEST_CODE {
        command.args(["-p", package]);
    }
    command.env("RUSTFLAGS", "-Zsanitizer=address").env_remove("RUSTUP_TOOLCHAIN");
    // What an outer cargo or rustup set for this process is for the other compiler.
    command.env_remove("RUSTC").env_remove("CARGO");
    let (text, succeeded) = logged(session, "sanitizer", &mut command)?;
    Ok(Tally::of_runner(&text, succeeded))
}

fn which(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}
