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

use crate::hold;
use crate::host::cards::{FIRST_MAC, OUTSIDE_MAC, SECOND_MAC};

/// The bridge that carries emulated cards.
const BRIDGE: &str = "br0";
/// The outside world's card and namespace.
const OUTSIDE_CARD: &str = "eth1";
const OUTSIDE: &str = "outside";
/// Its address with prefix length.
const OUTSIDE_ADDRESS: &str = "10.77.0.1/24";

/// A host in a lab host: the first is the lab host's own network, the second a namespace.
struct HostPlan {
    /// The physical function.
    pf: &'static str,
    /// Address of its bridge.
    address: &'static str,
    /// The folder of its pf-control's socket and log.
    folder: &'static str,
}

/// Addresses of the first host and of the second.
pub(crate) const FIRST_ADDRESS: &str = "10.77.0.254";
pub(crate) const SECOND_ADDRESS: &str = "10.77.0.253";

const FIRST: HostPlan = HostPlan { pf: "eth0", address: FIRST_ADDRESS, folder: "/run/npa" };

/// The namespace that the second host is, where it is no machine.
pub(crate) const SECOND_HOST: &str = "second";
/// Its card, address and folder there.
const SECOND: HostPlan =
    HostPlan { pf: "eth2", address: SECOND_ADDRESS, folder: "/run/npa/second" };
/// The same of a second host that is a machine.
const SECOND_MACHINE: HostPlan =
    HostPlan { pf: "eth0", address: SECOND.address, folder: FIRST.folder };

impl HostPlan {
    /// Where its pf-control listens.
    fn socket(&self) -> String {
        format!("{}/pf-control.sock", self.folder)
    }

    fn log(&self) -> String {
        format!("{}/pf-control.log", self.folder)
    }
}
/// The user, and its group, as which VMs run.
pub(crate) const VMM: &str = "vmm";

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

/// What guests may ask for: one that the lab's cards are, and one that they are not.
const PROFILES: &str = r#"
[profiles.gigabit]
class = "net"
min-bandwidth-mbit = 1000

[profiles.fast]
class = "net"
min-bandwidth-mbit = 10000
"#;

/// The addresses that the lab's guests have, on any port.
const PORTS: &str = r#"
[default]
macs = ["52:54:00:4e:50:00/40"]
"#;

/// A port whose guest has another address, and one that is allowed everything.
const STRICT_PORTS: &str = r#"
[ports.tap0]
macs = ["52:54:00:00:00:00/40"]

[ports.tap1]
macs = ["52:54:00:4e:50:11"]
trust = true
max-tx-mbit = 500
"#;

/// The lab's card, described.
const FAMILIES: &str = include_str!("../../../packaging/etc/families.toml");

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
    /// Let pf-control die at this point (`pf-control fault-points` prints them)
    #[arg(long, value_name = "POINT", hide = true)]
    pf_control_dies_at: Option<String>,
    /// Let port tap0 have other addresses than its guest's, and tap1 all that there is
    #[arg(long, hide = true)]
    strict_ports: bool,
    /// Let pf-control know the card by a description in a file
    #[arg(long, hide = true)]
    describe_card: bool,
    /// Make a second host beside the first: a namespace with a card, bridge, taps and pf-control
    #[arg(long)]
    second_host: bool,
    /// Let the second host's pf-control serve the virtio function instead of its card's VFs
    #[arg(long, requires = "second_host")]
    virtio_function: bool,
    /// Make this machine the second host of two
    #[arg(long, hide = true, conflicts_with_all = ["second_host", "inside_second_host"])]
    second_machine: bool,
    /// Make the host of the namespace that this runs in
    #[arg(long, hide = true)]
    inside_second_host: bool,
}

/// Brings everything up.
pub(crate) fn run(arguments: &UpArguments) -> Result<ExitCode> {
    let host = match (arguments.inside_second_host, arguments.second_machine) {
        (true, _) => &SECOND,
        (false, true) => &SECOND_MACHINE,
        (false, false) => &FIRST,
    };
    modules()?;
    hold::start()?;
    huge_pages()?;
    softirqs_first()?;
    physical_function(host)?;
    bridge(host)?;
    for index in 0..arguments.taps {
        tap(&format!("tap{index}"))?;
    }
    know_others(host)?;
    if !arguments.inside_second_host && !arguments.second_machine {
        outside()?;
    }
    common_folder(Path::new(FIRST.folder))?;
    if !arguments.no_pf_control {
        pf_control(host, arguments)?;
    }
    if arguments.second_host && !arguments.inside_second_host {
        second_host(arguments)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The same once more, in a namespace with a card of its own. Nothing of the network is shared
/// with the first host but the wire.
fn second_host(arguments: &UpArguments) -> Result<()> {
    if !Path::new("/run/netns").join(SECOND_HOST).exists() {
        let pf = SECOND.pf;
        wait_for(&format!("network card {pf}"), || exists(pf))?;
        tool("ip", &["netns", "add", SECOND_HOST])?;
        tool("ip", &["link", "set", pf, "netns", SECOND_HOST])?;
        tool("ip", &["-n", SECOND_HOST, "link", "set", "lo", "up"])?;
        println!("namespace {SECOND_HOST} with {pf}");
    }
    let (vfs, taps) = (arguments.vfs.to_string(), arguments.taps.to_string());
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", SECOND_HOST, "lab", "up", "--inside-second-host"]);
    inside.args(["--vfs", &vfs, "--taps", &taps]);
    if arguments.virtio_function {
        inside.args(["--second-host", "--virtio-function"]);
    }
    if arguments.no_pf_control {
        inside.arg("--no-pf-control");
    }
    let status = inside.status().context("cannot start ip: is this a lab host?")?;
    if !status.success() {
        bail!("the second host was not made ({status})");
    }
    Ok(())
}

/// A folder in which everybody may make files and sockets, and remove his own.
pub(crate) fn common_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o1777))
        .with_context(|| format!("cannot open up {}", path.display()))
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

fn physical_function(host: &HostPlan) -> Result<()> {
    let pf = host.pf;
    wait_for(&format!("network card {pf}"), || exists(pf))?;
    if is_up(pf) {
        return Ok(());
    }
    quiet(pf);
    long_rings(pf)?;
    // No timer of the emulator's between a frame's arrival and the driver.
    tool("ethtool", &["-C", pf, "rx-usecs", "0"])?;
    tool("ip", &["link", "set", pf, "up"])?;
    wait_for(&format!("link of {pf}"), || attribute(pf, "carrier") == "1")?;
    println!("{pf} up, MAC {}", attribute(pf, "address"));
    Ok(())
}

/// Rings for a second of traffic: the emulated machine may not look at them for that long, and the
/// scenarios measure the switch, not this host's scheduling.
fn long_rings(card: &str) -> Result<()> {
    tool("ethtool", &["-G", card, "rx", "4096", "tx", "4096"])
}

/// The bridge carries the PF's own MAC. Left alone it would take a port's lowest one, a tap's
/// perhaps, and then nothing passes between a VF and this host.
fn bridge(host: &HostPlan) -> Result<()> {
    let HostPlan { pf, address, .. } = host;
    if !exists(BRIDGE) {
        let mac = attribute(pf, "address");
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
        println!("{BRIDGE} with the MAC of {pf}");
    }
    if !is_port(pf) {
        tool("ip", &["link", "set", pf, "master", BRIDGE])?;
        // The emulated card gives a sender its own broadcasts back. A bridge that learns from
        // them believes that its guests are outside.
        tool("bridge", &["link", "set", "dev", pf, "learning", "off"])?;
        println!("{pf} is a port of {BRIDGE}, not learning");
    }
    if !is_up(BRIDGE) {
        tool("ip", &["address", "replace", &format!("{address}/24"), "dev", BRIDGE])?;
        tool("ip", &["link", "set", BRIDGE, "up"])?;
        println!("{BRIDGE} up, {address}");
    }
    Ok(())
}

fn tap(name: &str) -> Result<()> {
    if exists(name) {
        return Ok(());
    }
    tool("ip", &["tuntap", "add", name, "mode", "tap", "user", VMM, "vnet_hdr"])?;
    quiet(name);
    tool("ip", &["link", "set", name, "txqueuelen", "4096", "master", BRIDGE, "up"])?;
    println!("{name} is a port of {BRIDGE}");
    Ok(())
}

/// The bridge does not learn who is out there, so it is told: what goes to these need not be asked
/// of all guests, which may have no time for it.
fn know_others(host: &HostPlan) -> Result<()> {
    let own = attribute(host.pf, "address");
    for mac in [FIRST_MAC, OUTSIDE_MAC, SECOND_MAC].into_iter().filter(|mac| *mac != own) {
        tool("bridge", &["fdb", "replace", mac, "dev", host.pf, "master", "static"])?;
    }
    Ok(())
}

fn outside() -> Result<()> {
    if Path::new("/run/netns").join(OUTSIDE).exists() {
        return Ok(());
    }
    wait_for(&format!("network card {OUTSIDE_CARD}"), || exists(OUTSIDE_CARD))?;
    long_rings(OUTSIDE_CARD)?;
    tool("ip", &["netns", "add", OUTSIDE])?;
    tool("ip", &["link", "set", OUTSIDE_CARD, "netns", OUTSIDE])?;
    let inside = |arguments: &[&str]| tool("ip", &[&["-n", OUTSIDE], arguments].concat());
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

fn pf_control(host: &HostPlan, arguments: &UpArguments) -> Result<()> {
    let (socket, log_path) = (host.socket(), host.log());
    let ready = || std::os::unix::net::UnixStream::connect(&socket).is_ok();
    if ready() {
        return Ok(());
    }
    let folder = host.folder;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {folder}"))?;
    let log = File::options().create(true).append(true).open(&log_path);
    let log = log.with_context(|| format!("cannot create {log_path}"))?;
    let vfs = if arguments.virtio_function { 0 } else { arguments.vfs };
    let profiles = format!("{folder}/profiles.toml");
    fs::write(&profiles, PROFILES).with_context(|| format!("cannot write {profiles}"))?;
    let ports = format!("{folder}/ports.toml");
    let text = if arguments.strict_ports { STRICT_PORTS } else { PORTS };
    fs::write(&ports, text).with_context(|| format!("cannot write {ports}"))?;
    let mut command = Command::new("setpriv");
    // As the unit says, a drop-in.
    let more = if arguments.virtio_function { ",+sys_admin" } else { "" };
    let capabilities = format!("{}{more}", unit_capabilities()?);
    command.args(["--bounding-set", &capabilities, "pf-control"]);
    command.args(["serve", "--socket", &socket, "--bridge", BRIDGE, "--profiles", &profiles]);
    command.args(["--group", VMM, "--ports", &ports]);
    if arguments.virtio_function {
        command.args(["--function", &virtio_function()?, "--uplink", host.pf]);
    } else {
        command.args(["--pf", host.pf, "--vfs", &vfs.to_string()]);
    }
    if arguments.describe_card {
        let families = format!("{folder}/families.toml");
        fs::write(&families, FAMILIES).with_context(|| format!("cannot write {families}"))?;
        command.args(["--families", &families]);
    }
    if let Some(point) = &arguments.pf_control_dies_at {
        command.args(["--die-at", point]);
    }
    let mut daemon = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start pf-control: build it and see that it is on PATH")?;
    let start = Instant::now();
    while !ready() {
        if let Some(status) = daemon.try_wait()? {
            bail!("pf-control ended ({status}); {log_path} says:\n{}", read(&log_path));
        }
        if start.elapsed() > PATIENCE {
            bail!("pf-control does not answer on {socket}; {log_path} says:\n{}", read(&log_path));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("pf-control (process {}) on {socket}", daemon.id());
    for index in 0..vfs {
        println!("vf {index} {}", vf_address(host.pf, index));
    }
    Ok(())
}

/// The capabilities that the daemon has as a service, in setpriv's words: it has to do with these here.
fn unit_capabilities() -> Result<String> {
    const UNIT: &str = include_str!("../../../packaging/systemd/pf-control.service");
    let line = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.context("the unit limits no capabilities")?.split_ascii_whitespace();
    let names = names.filter_map(|name| name.strip_prefix("CAP_"));
    Ok(names.fold("-all".to_owned(), |set, name| format!("{set},+{}", name.to_lowercase())))
}

/// Address of the virtio network function that guests may get.
fn virtio_function() -> Result<String> {
    let devices = "/sys/bus/pci/devices";
    for entry in fs::read_dir(devices).with_context(|| format!("cannot list {devices}"))? {
        let path = entry?.path();
        let id = |name: &str| read(&path.join(name).to_string_lossy()).trim().to_owned();
        if (id("vendor").as_str(), id("device").as_str()) == ("0x1af4", "0x1041") {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            return name.context("a device without a name");
        }
    }
    bail!("this lab host has no virtio network function")
}

fn vf_address(pf: &str, index: u32) -> String {
    fs::read_link(format!("/sys/class/net/{pf}/device/virtfn{index}"))
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
