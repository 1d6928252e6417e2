//! A VM that never runs, for as long as the lab host lives. KVM changes its own code (static keys) when
//! the first VM comes, the last one goes, and a vCPU's interrupt controller leaves its state after
//! reset; an emulated CPU that runs a vCPU meanwhile may meet the breakpoint that this takes. With a VM
//! always there whose vCPU stays as it is after reset, none of that changes any more.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use kvm_ioctls::Kvm;

/// Names the process that holds it.
const MARK: &str = "/run/npa-held-vm";

/// Starts it, if it is not there.
pub(crate) fn start() -> Result<()> {
    if Path::new(MARK).exists() {
        return Ok(());
    }
    let held = Command::new("lab")
        .arg("held-vm")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(MARK).with_context(|| format!("cannot create {MARK}"))?)
        .process_group(0)
        .spawn()
        .context("cannot start lab held-vm")?;
    println!("a VM that never runs (process {})", held.id());
    Ok(())
}

/// Is that process.
pub(crate) fn run() -> Result<ExitCode> {
    let vm = Kvm::new().and_then(|kvm| kvm.create_vm()).context("cannot create a VM")?;
    vm.create_irq_chip().context("cannot create an interrupt controller")?;
    let _vcpu = vm.create_vcpu(0).context("cannot create a vCPU")?;
    loop {
        std::thread::park();
    }
}
