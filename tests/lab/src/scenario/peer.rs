//! A guest under QEMU in the lab host, for comparison: the same kernel and image, the stock drivers.

use super::Context;
use super::guest::{self, RUN};
use super::measure::{Exits, Subject};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where KVM keeps its statistics, a folder for each VM.
const STATISTICS: &str = "/sys/kernel/debug/kvm";
/// The PF, and its VF that is taken: the pool gives the first one to our guest.
const PF: &str = "eth0";
const VF: u32 = 1;

/// What the guest's network card is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Card {
    /// A VF, handed through by plain VFIO, driven by the stock igbvf.
    Vf,
    /// virtio-net on a tap, emulated by QEMU.
    VirtioNet,
}

impl Card {
    /// Host number of the guest; ours is 0. Not the same for both: a VF keeps its address, and the PF
    /// would give it what is meant for the tap.
    fn number(self) -> u8 {
        match self {
            Self::VirtioNet => 1,
            Self::Vf => 2,
        }
    }
}

/// A running guest. Dropping it kills its QEMU.
pub(crate) struct PeerGuest {
    card: Card,
    child: Child,
    serial: PathBuf,
    log: PathBuf,
}

impl PeerGuest {
    /// Launches the guest and waits until its console answers and its network works.
    pub(crate) fn launch(context: &Context, card: Card) -> Result<Self> {
        fs::create_dir_all(RUN)?;
        let serial = Path::new(RUN).join("peer.serial");
        let log = Path::new(RUN).join("peer.log");
        let file = fs::File::create(&log)?;
        let mut command = qemu(context, &serial, card);
        let number = card.number();
        match card {
            Card::Vf => command
                .args(["-device", &format!("vfio-pci,host={}", prepare_vf(&guest::mac(number))?)]),
            Card::VirtioNet => command.args([
                "-netdev",
                &format!("tap,id=net0,ifname=tap{number},script=no,downscript=no"),
                "-device",
                &format!("virtio-net-pci,netdev=net0,mac={},romfile=", guest::mac(number)),
            ]),
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("cannot start QEMU")?;
        let mut peer = Self { card, child, serial, log };
        peer.expect_traffic().with_context(|| {
            let log = fs::read_to_string(&peer.log).unwrap_or_default();
            format!("the guest under QEMU did not come up; QEMU says:\n{log}")
        })?;
        if let Some(status) = peer.child.try_wait()? {
            bail!("QEMU ended with {status}");
        }
        Ok(peer)
    }

    fn expect_traffic(&self) -> Result<()> {
        self.run("ping -q -c 3 -i 0.2 -W 2 10.77.0.1 >/dev/null", Duration::from_secs(90)).map(drop)
    }

    fn run(&self, script: &str, limit: Duration) -> Result<String> {
        guest::run(&self.serial, script, limit)
    }
}

impl Subject for PeerGuest {
    fn address(&self) -> String {
        guest::address(self.card.number())
    }

    fn exec(&self, script: &str) -> Result<String> {
        self.run(script, Duration::from_secs(60))
    }

    fn exits(&self) -> Result<Exits> {
        let prefix = format!("{}-", self.child.id());
        for entry in
            fs::read_dir(STATISTICS).with_context(|| format!("cannot list {STATISTICS}"))?
        {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)) {
                let text = fs::read_to_string(path.join("exits"))?;
                return Ok(Exits { all: text.trim().parse()?, userspace: None });
            }
        }
        bail!("KVM keeps no statistics of QEMU's VM in {STATISTICS}")
    }
}

impl Drop for PeerGuest {
    fn drop(&mut self) {
        // Already ended is fine.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// QEMU by its own loader and libraries: the lab host has neither.
fn qemu(context: &Context, serial: &Path, card: Card) -> Command {
    let home = context.images.join("qemu");
    let mut command = Command::new(home.join("lib/ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(home.join("lib")).arg(home.join("qemu-system-x86_64"));
    command.arg("-L").arg(home.join("share"));
    command.args(["-M", "q35,accel=kvm", "-cpu", "host", "-smp", "1", "-m", "512"]);
    command.args(["-nodefaults", "-display", "none", "-no-reboot"]);
    command.arg("-kernel").arg(context.vmlinuz()).arg("-initrd").arg(context.initrd());
    command.args(["-append", &guest::cmdline(card.number(), false)]);
    command.arg("-serial").arg(format!("unix:{},server=on,wait=off", serial.display()));
    command
}

/// Gives the VF this MAC address and returns its PCI address. The pool has put it on vfio-pci.
fn prepare_vf(mac: &str) -> Result<String> {
    let status = Command::new("ip")
        .args(["link", "set", PF, "vf", &VF.to_string(), "mac", mac])
        .status()
        .context("cannot run ip")?;
    ensure!(status.success(), "cannot set the MAC address of VF {VF}");
    let link = format!("/sys/class/net/{PF}/device/virtfn{VF}");
    let target = fs::read_link(&link).with_context(|| format!("no VF {VF} at {link}"))?;
    target
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .with_context(|| format!("{link} leads nowhere"))
}
