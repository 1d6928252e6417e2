//! A guest under QEMU in the lab host, for comparison: the same kernel and image, the stock drivers.

mod moves;
mod qmp;

use self::qmp::Qmp;
use super::Context;
use super::guest::{self, RUN};
use super::host::Host;
use super::measure::{Exits, Subject};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where KVM keeps its statistics, a folder for each VM.
const STATISTICS: &str = "/sys/kernel/debug/kvm";
/// The VF that is taken, of each host: the pool gives the first one to our guest.
const VF: u32 = 1;
/// The address of that VF while it is nobody's.
const PARKED: &str = "02:00:00:77:00:01";

/// What the guest's network card is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Card {
    /// A VF, handed through by plain VFIO, driven by the stock igbvf.
    Vf,
    /// virtio-net on a tap, emulated by QEMU.
    VirtioNet,
    /// Both under one address: virtio-net as standby of a VF that QEMU unplugs to migrate.
    Failover,
}

impl Card {
    /// Host number of the guest; ours is 0. Not the same for all: a VF keeps its address, and the PF
    /// would give it what is meant for the tap.
    fn number(self) -> u8 {
        match self {
            Self::VirtioNet | Self::Failover => 1,
            Self::Vf => 2,
        }
    }
}

/// A running guest. Dropping it kills its QEMU.
pub(crate) struct PeerGuest {
    card: Card,
    host: Host,
    child: Child,
    serial: PathBuf,
    log: PathBuf,
    qmp: Qmp,
}

impl PeerGuest {
    /// Launches the guest and waits until its console answers and its network works.
    pub(crate) fn launch(context: &Context, card: Card) -> Result<Self> {
        let mut peer = Self::spawn(context, card, Host::First, None)?;
        let vf = match card {
            Card::Failover => peer.expect_primary(),
            Card::Vf | Card::VirtioNet => Ok(()),
        };
        let up = vf.and_then(|()| peer.expect_traffic());
        up.with_context(|| {
            format!("the guest under QEMU did not come up; QEMU says:\n{}", peer.log())
        })?;
        if let Some(status) = peer.child.try_wait()? {
            bail!("QEMU ended with {status}");
        }
        Ok(peer)
    }

    /// Starts QEMU on a host, for a new guest or for one that comes from `incoming`.
    fn spawn(context: &Context, card: Card, host: Host, incoming: Option<&str>) -> Result<Self> {
        fs::create_dir_all(RUN)?;
        let file = |kind: &str| Path::new(RUN).join(format!("peer-{host:?}.{kind}"));
        let (serial, control, log) = (file("serial"), file("qmp"), file("log"));
        // QEMU leaves its sockets behind.
        let _ = fs::remove_file(&control);
        let output = fs::File::create(&log)?;
        let mut command = qemu(context, host, &serial, card);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", control.display()));
        let (number, mac) = (card.number(), guest::mac(card.number()));
        if card != Card::Vf {
            let standby = if card == Card::Failover { ",failover=on" } else { "" };
            command.args([
                "-netdev",
                &format!("tap,id=net0,ifname=tap{number},script=no,downscript=no"),
                "-device",
                &format!("virtio-net-pci,netdev=net0,id=card0,mac={mac},romfile={standby}"),
            ]);
        }
        if card == Card::Vf || (card == Card::Failover && incoming.is_none()) {
            host.give_vf(&mac)?;
        }
        let address = host.vf_address()?;
        match card {
            Card::VirtioNet => {}
            Card::Vf => {
                command.args(["-device", &format!("vfio-pci,host={address}")]);
            }
            Card::Failover => {
                command.args(["-device", "pcie-root-port,id=port0,chassis=1,slot=1", "-device"]);
                command.arg(format!(
                    "vfio-pci,host={address},id=primary0,bus=port0,failover_pair_id=card0"
                ));
            }
        }
        if let Some(url) = incoming {
            command.args(["-incoming", url]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start QEMU")?;
        let qmp =
            Qmp::connect(&control).with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(Self { card, host, child, serial, log, qmp })
    }

    /// What QEMU printed.
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn expect_traffic(&self) -> Result<()> {
        self.run("ping -q -c 3 -i 0.2 -W 2 10.77.0.1 >/dev/null", Duration::from_secs(90)).map(drop)
    }

    fn run(&self, script: &str, limit: Duration) -> Result<String> {
        guest::run(self.host, &self.serial, script, limit)
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
        if self.card == Card::Failover {
            // Its tap has the same address. Where the lab host ends too, nobody minds.
            self.host.park_vf().ok();
        }
    }
}

/// QEMU by its own loader and libraries: the lab host has neither.
fn qemu(context: &Context, host: Host, serial: &Path, card: Card) -> Command {
    let home = context.images.join("qemu");
    let loader = home.join("lib/ld-linux-x86-64.so.2");
    let mut command = host.command(&loader.display().to_string());
    command.arg("--library-path").arg(home.join("lib")).arg(home.join("qemu-system-x86_64"));
    command.arg("-L").arg(home.join("share"));
    command.args(["-M", "q35,accel=kvm", "-cpu", "host", "-smp", "1", "-m", "512"]);
    command.args(["-nodefaults", "-display", "none", "-no-reboot"]);
    command.arg("-kernel").arg(context.vmlinuz()).arg("-initrd").arg(context.initrd());
    command.args(["-append", &guest::cmdline(card.number(), false)]);
    command.arg("-serial").arg(format!("unix:{},server=on,wait=off", serial.display()));
    command
}

impl Host {
    /// Gives the VF this address; the PF then sends it what comes for that.
    fn give_vf(self, mac: &str) -> Result<()> {
        let status = self
            .command("ip")
            .args(["link", "set", self.pf(), "vf", &VF.to_string(), "mac", mac])
            .status()
            .context("cannot run ip")?;
        ensure!(status.success(), "cannot set the MAC address of VF {VF} of {}", self.pf());
        Ok(())
    }

    /// Takes the VF's address away, so that what comes for it goes to the bridge.
    fn park_vf(self) -> Result<()> {
        self.give_vf(PARKED)
    }

    /// The VF's PCI address. The pool has put it on vfio-pci.
    fn vf_address(self) -> Result<String> {
        let link = format!("/sys/class/net/{}/device/virtfn{VF}", self.pf());
        let output = self.command("readlink").arg(&link).output().context("cannot run readlink")?;
        let target = String::from_utf8_lossy(&output.stdout);
        let address = target.trim().rsplit('/').next().filter(|address| !address.is_empty());
        address.map(str::to_owned).with_context(|| format!("no VF {VF} at {link}"))
    }
}
