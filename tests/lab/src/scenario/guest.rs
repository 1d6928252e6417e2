//! A guest under our `vmm` in the lab host: launched, driven over its serial console, controlled
//! over its API socket.

use super::Context;
use super::host::Host;
use super::measure::{Exits, Subject};
use crate::up;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// Where sockets and logs of a scenario's guests live.
pub(super) const RUN: &str = "/run/npa";

/// Longest time for one `vmm ctl`, in seconds: above a move of a busy VM in a slow lab host.
const CTL_LIMIT: &str = "180";

/// What a guest is launched with.
#[derive(Clone, Debug)]
pub(crate) struct GuestOptions {
    /// Where it runs.
    pub host: Host,
    /// Where it goes when it moves.
    pub away: Host,
    /// Names the sockets and the log; unique among running guests.
    pub name: String,
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// Host number: the last byte of its address, tap and MAC (10.77.0.`10 + n`, `tap<n>`).
    pub number: u8,
    /// Load the shell module; else the stock driver.
    pub shell: bool,
    /// Directory of the plugin blobs.
    pub plugins: PathBuf,
    /// pf-control's socket; the host's own when absent.
    pub pf_control: Option<PathBuf>,
    /// vCPUs.
    pub cpus: u8,
    /// Raw disk images to attach.
    pub disks: Vec<PathBuf>,
    /// Leave checksums and segmentation to the card.
    pub offloads: bool,
    /// Whether its card may be put on a VF: `auto`, `when-free`, `off`.
    pub acceleration: &'static str,
    /// The profile that its VF must fit.
    pub profile: Option<&'static str>,
    /// More kernel command line.
    pub cmdline: String,
    /// More options of `vmm run`.
    pub extra: Vec<String>,
}

impl GuestOptions {
    /// Guest number 0 with the shell, one vCPU and the blobs of this tree.
    pub(crate) fn new(context: &Context) -> Self {
        Self {
            host: Host::First,
            away: Host::Second,
            name: format!("guest-{}", context.kernel),
            kernel: context.vmlinuz(),
            initrd: context.initrd(),
            number: 0,
            shell: true,
            plugins: context.plugins(),
            pf_control: None,
            cpus: 1,
            disks: Vec::new(),
            offloads: true,
            acceleration: "auto",
            profile: None,
            cmdline: String::new(),
            extra: Vec::new(),
        }
    }

    /// The same guest under another name.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// The guest's address.
    pub(crate) fn address(&self) -> String {
        address(self.number)
    }

    /// The guest's MAC address.
    pub(crate) fn mac(&self) -> String {
        mac(self.number)
    }

    /// The `vmm` command that launches it, as the user that VMs run as.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.host.command("setpriv");
        command.args(["--reuid", up::VMM, "--regid", up::VMM, "--clear-groups", "vmm"]);
        command.args(self.arguments());
        command
    }

    /// The arguments of `vmm`.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        // Only to collect them.
        let mut command = Command::new("vmm");
        command.arg("run");
        command.arg("--kernel").arg(&self.kernel).arg("--initrd").arg(&self.initrd);
        let cmdline = cmdline(self.number, self.shell);
        command.arg("--cmdline").arg(format!("{cmdline} {}", self.cmdline));
        command.args(["--cpus", &self.cpus.to_string(), "--memory", "512M"]);
        let profile = self.profile.map(|name| format!(",profile={name}")).unwrap_or_default();
        command.arg("--net").arg(format!(
            "id=net0,tap=tap{},mac={},accel={},offloads={}{profile}",
            self.number,
            self.mac(),
            self.acceleration,
            if self.offloads { "on" } else { "off" }
        ));
        for disk in &self.disks {
            command.arg("--disk").arg(format!("path={}", disk.display()));
        }
        command.arg("--serial").arg(format!("socket:{}", self.socket("serial").display()));
        command.arg("--api-socket").arg(self.socket("api"));
        command.arg("--plugins").arg(&self.plugins);
        command.arg("--allow-unsigned-plugins");
        let own = self.host.pf_control();
        command.arg("--pf-control").arg(self.pf_control.as_ref().unwrap_or(&own));
        command.args(["--snapshots", RUN]);
        command.args(&self.extra);
        command.get_args().map(ToOwned::to_owned).collect()
    }

    fn socket(&self, kind: &str) -> PathBuf {
        Path::new(RUN).join(format!("{}.{kind}", self.name))
    }
}

/// Address of the guest with this number.
pub(super) fn address(number: u8) -> String {
    format!("10.77.0.{}", 10 + u32::from(number))
}

/// MAC address of the guest with this number.
pub(super) fn mac(number: u8) -> String {
    format!("52:54:00:4e:50:{:02x}", 0x10 + number)
}

/// Kernel command line of the guest with this number.
pub(super) fn cmdline(number: u8, shell: bool) -> String {
    format!(
        "console=ttyS0 quiet panic=-1 mitigations=off npa.ip={}/24 npa.shell={}",
        address(number),
        u8::from(shell)
    )
}

/// Runs a shell command in the guest behind a serial socket and returns its output.
pub(super) fn run(host: Host, serial: &Path, script: &str, limit: Duration) -> Result<String> {
    let output = try_run(host, serial, script, limit)?;
    ensure!(
        output.status.success(),
        "in the guest, `{script}` failed with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn try_run(host: Host, serial: &Path, script: &str, limit: Duration) -> Result<Output> {
    host.nearby("lab")
        .arg("guest-exec")
        .arg("--timeout")
        .arg(limit.as_secs().max(1).to_string())
        .arg(serial)
        .args(["--", "sh", "-c", script])
        .output()
        .context("cannot run lab guest-exec")
}

/// A running guest. Dropping it kills its `vmm`.
pub(crate) struct Guest {
    /// How it was launched.
    pub options: GuestOptions,
    child: Child,
    log: PathBuf,
}

impl Guest {
    /// Launches the guest and waits until its console answers.
    pub(crate) fn launch(options: GuestOptions) -> Result<Self> {
        let guest = Self::launch_only(options)?;
        guest
            .exec_within("true", Duration::from_secs(90))
            .with_context(|| format!("guest did not come up; vmm says:\n{}", guest.log_tail()))?;
        Ok(guest)
    }

    /// Launches the guest without waiting for it.
    pub(crate) fn launch_only(options: GuestOptions) -> Result<Self> {
        up::common_folder(Path::new(RUN))?;
        let log = options.socket("log");
        let file = std::fs::File::create(&log)?;
        let child = options
            .command()
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("cannot start vmm")?;
        Ok(Self { options, child, log })
    }

    /// Runs a shell command in the guest and returns its output.
    pub(crate) fn exec(&self, script: &str) -> Result<String> {
        self.exec_within(script, Duration::from_secs(60))
    }

    /// [`Guest::exec`] with another time limit.
    pub(crate) fn exec_within(&self, script: &str, limit: Duration) -> Result<String> {
        run(self.options.host, &self.options.socket("serial"), script, limit)
    }

    /// Runs a shell command in the guest, whatever its exit status.
    pub(crate) fn try_exec(&self, script: &str, limit: Duration) -> Result<Output> {
        try_run(self.options.host, &self.options.socket("serial"), script, limit)
    }

    /// Whether the guest's console answers so soon; nobody waits any longer.
    pub(crate) fn answers_within(&self, limit: Duration) -> Result<bool> {
        let seconds = limit.as_secs().max(1).to_string();
        let mut command = self.options.host.nearby("timeout");
        command.args([&seconds, "lab", "guest-exec"]).arg(self.options.socket("serial"));
        let output = command.args(["--", "true"]).output().context("cannot run timeout")?;
        Ok(output.status.success())
    }

    /// `vmm ctl`, not started yet.
    pub(crate) fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.options.host.nearby("vmm");
        command.arg("ctl").arg("--api-socket").arg(self.options.socket("api")).args(arguments);
        command
    }

    /// How far a move is, as the control interface says.
    pub(crate) fn migration(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ctl_ok(&["migration", "--json"])?)?)
    }

    /// Runs `vmm ctl` and returns its output, whatever its status.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> Result<Output> {
        // One that hangs costs itself and not the whole scenario.
        let mut command = self.options.host.nearby("timeout");
        command.args([CTL_LIMIT, "vmm", "ctl", "--api-socket"]).arg(self.options.socket("api"));
        command.args(arguments).output().context("cannot run vmm ctl")
    }

    /// Runs `vmm ctl` and fails unless it succeeds.
    pub(crate) fn ctl_ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.ctl(arguments)?;
        if !output.status.success() {
            bail!(
                "vmm ctl {} failed: {}\nvmm log:\n{}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim(),
                self.log_tail()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `vmm ctl`, which must fail, and returns its error text.
    pub(crate) fn ctl_refused(&self, arguments: &[&str]) -> Result<String> {
        let output = self.ctl(arguments)?;
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure!(!output.status.success(), "vmm ctl {} succeeded", arguments.join(" "));
        ensure!(!text.is_empty(), "vmm ctl {} failed without a word", arguments.join(" "));
        Ok(text)
    }

    /// `vmm ctl status --json`.
    pub(crate) fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ctl_ok(&["status", "--json"])?)?)
    }

    /// The status of the NIC.
    pub(crate) fn net_status(&self) -> Result<Value> {
        let status = self.status()?;
        status["devices"]
            .as_array()
            .and_then(|devices| devices.iter().find(|device| device["id"] == "net0"))
            .cloned()
            .with_context(|| format!("no device net0 in {status}"))
    }

    /// Puts the NIC on a VF.
    pub(crate) fn attach(&self) -> Result<()> {
        self.ctl_ok(&["attach", "net0"]).map(drop)?;
        self.expect_mode("vf")
    }

    /// Takes the VF away again.
    pub(crate) fn detach(&self) -> Result<()> {
        self.ctl_ok(&["detach", "net0"]).map(drop)?;
        self.expect_mode("emulated")
    }

    /// Fails unless the NIC is in `mode`, `vf` or `emulated`.
    pub(crate) fn expect_mode(&self, mode: &str) -> Result<()> {
        let status = self.net_status()?;
        ensure!(status["mode"] == mode, "NIC should be in mode {mode}: {status}");
        Ok(())
    }

    /// Fails unless the outside world answers the guest's pings.
    pub(crate) fn expect_traffic(&self) -> Result<()> {
        self.exec("ping -q -c 3 -i 0.2 -W 2 10.77.0.1 >/dev/null")
            .map(drop)
            .context("no traffic between guest and outside")
    }

    /// Waits for `vmm` to end and returns whether it did so with success.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<bool> {
        Ok(self.wait_for_status(limit)?.success())
    }

    /// Waits for `vmm` to end and returns how it did.
    pub(crate) fn wait_for_status(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "vmm still runs after {limit:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Fails if `vmm` has ended.
    pub(crate) fn expect_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("vmm ended with {status}; its log:\n{}", self.log_tail());
        }
        Ok(())
    }

    /// The number of its `vmm`'s process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Kills `vmm` with SIGKILL.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.kill_now()
    }

    /// The same; its log and its end can still be looked at.
    pub(crate) fn kill_now(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The last lines that `vmm` printed.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Subject for Guest {
    fn address(&self) -> String {
        self.options.address()
    }

    fn exec(&self, script: &str) -> Result<String> {
        Self::exec(self, script)
    }

    fn exits(&self) -> Result<Exits> {
        let status = self.status()?;
        let count = |name: &str| {
            status["exits"][name].as_f64().with_context(|| format!("no exits.{name} in {status}"))
        };
        Ok(Exits { all: count("kvm")?, userspace: Some(count("userspace")?) })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Already ended is fine.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
