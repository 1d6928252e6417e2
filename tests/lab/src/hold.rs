//! A VM that never runs, for as long as the lab host lives. KVM changes its own code (static keys) when
//! the first VM comes, the last one goes, and a vCPU's interrupt controller leaves its state after
//! reset; an emulated CPU that runs a vCPU meanwhile may meet the breakpoint that this takes. With a VM
//! always there whose vCPU stays as it is after reset, none of that changes any more.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use kvm_ioctls::Kvm;

/// There once it is held; has the number of the process that holds it.
const MARK: &str = "/run/npa-held-vm";

/// Starts it, if it is not there.
pub(crate) fn start() -> Result<()> {
    if Path::new(MARK).exists() {
        return Ok(());
    }
    let mut holder = Command::new("lab")
        .arg("held-vm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("cannot start lab held-vm")?;
    let said = holder.stdout.take().context("lab held-vm has no output")?;
    let mut word = String::new();
    BufReader::new(said).read_line(&mut word)?;
    if word.is_empty() {
        bail!("no VM is held: lab held-vm ended ({})", holder.wait()?);
    }
    fs::write(MARK, holder.id().to_string()).with_context(|| format!("cannot write {MARK}"))?;
    println!("a VM that never runs (process {})", holder.id());
    Ok(())
}

/// Is that process.
pub(crate) fn run() -> Result<ExitCode> {
    let vm = Kvm::new().and_then(|kvm| kvm.create_vm()).context("cannot create a VM")?;
    vm.create_irq_chip().context("cannot create an interrupt controller")?;
    let _vcpu = vm.create_vcpu(0).context("cannot create a vCPU")?;
    println!("held");
    loop {
        std::thread::park();
    }
}
