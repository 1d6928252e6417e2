//! `lab up`: makes a lab host look like a server with an SR-IOV network card. The PF is a
//! bridge's uplink beside taps for emulated cards; the second card stands for the outside world
//! in a namespace of its own; pf-control owns the VFs. Does only what is not done yet, and says
//! what it made.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The bridge that carries emulated cards.
const BRIDGE: &str = "br0";
/// The physical function.
const PF: &str = "eth0";
/// The outside world's card and namespace.
const OUTSIDE_CARD: &str = "eth1";
const OUTSIDE: &str = "outside";
/// Addresses with prefix length.
const HOST_ADDRESS: &str = "10.77.0.254/24";
const OUTSIDE_ADDRESS: &str = "10.77.0.1/24";
/// Where pf-control listens.
const SOCKET: &str = "/run/npa/pf-control.sock";
const LOG: &str = "/run/npa/pf-control.log";
/// How long pf-control may take to make its VFs.
const PATIENCE: Duration = Duration::from_secs(20);

const MODULES: [&str; 10] = [
    "kvm_amd",
    // Comes with it; named here so that a lab host without it is none.
    "npa_lab_quirk",
    "kvm_intel",
    "vfio_pci",
    "vfio_iommu_type1",
    "igb",
    "tun",
    "bridge",
    "vhost_net",
    "veth",
];

/// Options of `lab up`.
#[derive(Debug, clap::Args)]
pub(crate) struct UpArguments {
    /// Number of VFs
    #[arg(long, default_value_t = 2)]
    vfs: u32,
    /// Number of taps (tap0, tap1, ...)
    #[arg(long, default_value_t = 2)]
    taps: u32,
    /// Leave pf-control out (then there are no VFs)
    #[arg(long)]
    no_pf_control: bool,
}

/// Brings everything up.
pub(crate) fn run(arguments: &UpArguments) -> Result<ExitCode> {
    modules()?;
    huge_pages()?;
    softirqs_first()?;
    physical_function()?;
    bridge()?;
    for index in 0..arguments.taps {
        tap(&format!("tap{index}"))?;
    }
    outside()?;
    if !arguments.no_pf_control {
        pf_control(arguments.vfs)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn modules() -> Result<()> {
    for module in MODULES {
        let folder = Path::new("/sys/module").join(module);
        if folder.exists() {
            continue;
        }
        // Only one of the two loads, whichever CPU this is.
        let optional = module.starts_with("kvm_");
        match tool("modprobe", &[module]) {
            Ok(()) => println!("module {module}"),
            Err(_) if optional => {}
            Err(error) => return Err(error),
        }
    }
    let kvm = Path::new("/dev/kvm");
    if !kvm.exists() {
        bail!("no /dev/kvm: the lab host's CPU has no virtualization");
    }
    // As udev sets them on a server; whom a tap lets in is the tap's own matter.
    for device in [kvm, Path::new("/dev/net/tun")] {
        fs::set_permissions(device, fs::Permissions::from_mode(0o666))
            .with_context(|| format!("cannot open up {}", device.display()))?;
    }
    Ok(())
}

/// The kernel's network work before everybody else's: on two emulated CPUs that guests and traffic
/// programs keep busy, what is left to `ksoftirqd` would else wait for tenths of a second, as it
/// does on no server.
fn softirqs_first() -> Result<()> {
    for entry in fs::read_dir("/proc").context("cannot list /proc")? {
        let path = entry?.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let (true, Some(pid)) = (name.starts_with("ksoftirqd/"), path.file_name()) else {
            continue;
        };
        tool("chrt", &["-f", "-p", "1", &pid.to_string_lossy()])?;
    }
    Ok(())
}

/// Guest RAM in huge pages. Not for speed only: QEMU's igb takes a buffer to send only if it is
/// contiguous behind the IOMMU, and drops the frame without a word if not. A frame that crosses
/// from one small page to the next would be lost.
fn huge_pages() -> Result<()> {
    let path = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let present = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    if present.contains("[advise]") {
        return Ok(());
    }
    fs::write(path, "advise").with_context(|| format!("cannot write {path}"))?;
    println!("huge pages for guest RAM");
    Ok(())
}

fn physical_function() -> Result<()> {
    wait_for(&format!("network card {PF}"), || exists(PF))?;
    if is_up(PF) {
        return Ok(());
    }
    quiet(PF);
    long_rings(PF)?;
    // No timer of the emulator's between a frame's arrival and the driver.
    tool("ethtool", &["-C", PF, "rx-usecs", "0"])?;
    tool("ip", &["link", "set", PF, "up"])?;
    wait_for(&format!("link of {PF}"), || attribute(PF, "carrier") == "1")?;
    println!("{PF} up, MAC {}", attribute(PF, "address"));
    Ok(())
}

/// Rings for a second of traffic: the emulated machine may not look at them for that long, and the
/// scenarios measure the switch, not this host's scheduling.
fn long_rings(card: &str) -> Result<()> {
    tool("ethtool", &["-G", card, "rx", "4096", "tx", "4096"])
}

/// The bridge carries the PF's own MAC. Left alone it would take a port's lowest one, a tap's
/// perhaps, and then nothing passes between a VF and this host.
fn bridge() -> Result<()> {
    if !exists(BRIDGE) {
        let mac = attribute(PF, "address");
        tool(
            "ip",
            &[
                "link",
                "add",
                BRIDGE,
                "address",
                &mac,
                "type",
                "bridge",
                "stp_state",
                "0",
                "forward_delay",
                "0",
                "mcast_snooping",
                "0",
            ],
        )?;
        quiet(BRIDGE);
        println!("{BRIDGE} with the MAC of {PF}");
    }
    if !is_port(PF) {
        tool("ip", &["link", "set", PF, "master", BRIDGE])?;
        // The emulated card gives a sender its own broadcasts back. A bridge that learns from
        // them believes that its guests are outside.
        tool("bridge", &["link", "set", "dev", PF, "learning", "off"])?;
        println!("{PF} is a port of {BRIDGE}, not learning");
    }
    if !is_up(BRIDGE) {
        tool("ip", &["address", "replace", HOST_ADDRESS, "dev", BRIDGE])?;
        tool("ip", &["link", "set", BRIDGE, "up"])?;
        println!("{BRIDGE} up, {HOST_ADDRESS}");
    }
    Ok(())
}

fn tap(name: &str) -> Result<()> {
    if exists(name) {
        return Ok(());
    }
    tool("ip", &["tuntap", "add", name, "mode", "tap", "user", "vmm", "vnet_hdr"])?;
    quiet(name);
    tool("ip", &["link", "set", name, "txqueuelen", "4096", "master", BRIDGE, "up"])?;
    println!("{name} is a port of {BRIDGE}");
    Ok(())
}

fn outside() -> Result<()> {
    if Path::new("/run/netns").join(OUTSIDE).exists() {
        return Ok(());
    }
    wait_for(&format!("network card {OUTSIDE_CARD}"), || exists(OUTSIDE_CARD))?;
    let mac = attribute(OUTSIDE_CARD, "address");
    long_rings(OUTSIDE_CARD)?;
    tool("ip", &["netns", "add", OUTSIDE])?;
    tool("ip", &["link", "set", OUTSIDE_CARD, "netns", OUTSIDE])?;
    let inside = |arguments: &[&str]| tool("ip", &[&["-n", OUTSIDE], arguments].concat());
    // The bridge does not learn who is outside, and need not ask all guests.
    tool("bridge", &["fdb", "replace", &mac, "dev", PF, "master", "static"])?;
    inside(&["link", "set", "lo", "up"])?;
    let off = format!("echo 1 >/proc/sys/net/ipv6/conf/{OUTSIDE_CARD}/disable_ipv6");
    tool("ip", &["netns", "exec", OUTSIDE, "sh", "-c", &off])?;
    inside(&["address", "add", OUTSIDE_ADDRESS, "dev", OUTSIDE_CARD])?;
    inside(&["link", "set", OUTSIDE_CARD, "up"])?;
    let carrier = || {
        let output = Command::new("ip")
            .args(["-n", OUTSIDE, "link", "show", OUTSIDE_CARD])
            .output()
            .map(|output| output.stdout)
            .unwrap_or_default();
        String::from_utf8_lossy(&output).contains("LOWER_UP")
    };
    wait_for(&format!("link of {OUTSIDE_CARD}"), carrier)?;
    println!("namespace {OUTSIDE} with {OUTSIDE_CARD}, {OUTSIDE_ADDRESS}");
    Ok(())
}

fn pf_control(vfs: u32) -> Result<()> {
    let ready = || std::os::unix::net::UnixStream::connect(SOCKET).is_ok();
    if ready() {
        return Ok(());
    }
    let folder = Path::new("/run/npa");
    fs::create_dir_all(folder).context("cannot create /run/npa")?;
    let log = File::create(LOG).with_context(|| format!("cannot create {LOG}"))?;
    let mut daemon = Command::new("pf-control")
        .args(["serve", "--socket", SOCKET, "--pf", PF, "--bridge", BRIDGE])
        .args(["--vfs", &vfs.to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start pf-control: build it and see that it is on PATH")?;
    let start = Instant::now();
    while !ready() {
        if let Some(status) = daemon.try_wait()? {
            bail!("pf-control ended ({status}); {LOG} says:\n{}", read(LOG));
        }
        if start.elapsed() > PATIENCE {
            bail!("pf-control does not answer on {SOCKET}; {LOG} says:\n{}", read(LOG));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("pf-control (process {}) on {SOCKET}", daemon.id());
    for index in 0..vfs {
        println!("vf {index} {}", vf_address(index));
    }
    Ok(())
}

fn vf_address(index: u32) -> String {
    fs::read_link(format!("/sys/class/net/{PF}/device/virtfn{index}"))
        .ok()
        .and_then(|target| target.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "is missing".to_owned())
}

/// Keeps the kernel from sending frames of its own: they would disturb counts.
fn quiet(link: &str) {
    // Without IPv6 in the kernel there is nothing to switch off.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "1");
}

fn exists(link: &str) -> bool {
    Path::new("/sys/class/net").join(link).exists()
}

fn is_port(link: &str) -> bool {
    Path::new("/sys/class/net").join(link).join("master").exists()
}

fn is_up(link: &str) -> bool {
    let flags = attribute(link, "flags");
    u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or(0) & 1 == 1
}

fn attribute(link: &str, name: &str) -> String {
    read(&format!("/sys/class/net/{link}/{name}")).trim().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn wait_for(what: &str, there: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !there() {
        if start.elapsed() > PATIENCE {
            bail!("waited {} s for {what} in vain", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn tool(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot start {program}: is this a lab host?"))?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "`{program} {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    )
}
