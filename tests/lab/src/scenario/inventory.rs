//! What pf-control shows of the host is so, whoever watches hears when it changes, and a VM gets
//! what its profile says or hears why not.

use super::guest::{Guest, GuestOptions};
use super::host::Host;
use super::{Context, pool};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// The lab host's PF.
const PF: &str = "eth0";
/// How long a change may take to be told: the card takes some seconds to come up.
const NEWS: Duration = Duration::from_secs(20);

pub(crate) fn run(context: &Context) -> Result<()> {
    let text = pool::show(&[PF, "--json"])?;
    let found: Value = serde_json::from_str(&text)?;
    let adapter = &found[0];
    for (key, expected) in [
        ("interface", Value::from(PF)),
        ("module", "igb".into()),
        ("driver", "igb".into()),
        ("link_up", true.into()),
        ("speed_mbit", 1000.into()),
        ("vfs", 2.into()),
        ("free", 2.into()),
        ("health", "enabled".into()),
    ] {
        ensure!(adapter[key] == expected, "{key} should be {expected}: {adapter}");
    }
    let address = adapter["address"].as_str().context("an adapter without an address")?;
    ensure!(pool::show(&[address])?.contains("igb"), "not found by its address, {address}");
    let vf = pool::vfs()?[0]["vf"].as_str().context("a VF without an address")?.to_owned();
    ensure!(pool::show(&[&vf])?.contains("igbvf"), "not found by its address, {vf}");
    ensure!(pool::show(&["eth7"]).is_err(), "eth7 was found");

    let found = pool::scan()?;
    let physical = found.iter().find(|found| found["interface"] == PF).context("no PF found")?;
    ensure!(physical["kind"]["physical"]["vfs"] == 2, "scan shows the PF as {physical}");
    let virtual_function = found.iter().find(|found| found["address"] == vf.as_str());
    let virtual_function = virtual_function.context("no VF found")?;
    ensure!(
        virtual_function["kind"]["virtual"]["of"] == physical["address"]
            && virtual_function["driver"] == "vfio-pci"
            && virtual_function["group_size"] == 1,
        "scan shows the VF as {virtual_function}"
    );

    let watch = Watch::start()?;
    watch.until("link_up", true)?;
    link("down")?;
    watch.until("link_up", false).context("the PF was put down")?;
    ensure!(pool::list()?.contains("down"), "list does not tell: {}", pool::list()?);
    link("up")?;
    watch.until("link_up", true).context("the PF was put up again")?;
    pool::drain(PF)?;
    watch.until("maintenance", true)?;
    ensure!(pool::list()?.contains("maintenance"), "list does not tell: {}", pool::list()?);
    pool::enable(PF)?;
    watch.until("maintenance", false)?;

    for (profile, fits) in [("gigabit", true), ("fast", false), ("unheard-of", false)] {
        let options = GuestOptions::new(context).named(profile);
        let guest = Guest::launch(GuestOptions { profile: Some(profile), ..options })?;
        if fits {
            guest.attach()?;
            guest.expect_traffic()?;
            continue;
        }
        let refused = guest.ctl_refused(&["attach", "net0"])?;
        let why = if profile == "fast" { "1000 Mbit/s" } else { "gigabit" };
        ensure!(refused.contains(why), "attach with profile {profile} says: {refused}");
        guest.expect_traffic()?;
    }
    pool::expect_all_free()?;
    described(context).context("a card that a file describes")
}

/// The same card once more, as one that only a file knows.
fn described(context: &Context) -> Result<()> {
    pool::kill_daemon()?;
    pool::restart_daemon_with_description()?;
    let shown = pool::show(&[PF])?;
    ensure!(shown.contains("example-82576"), "the family is not shown: {shown}");
    let guest = Guest::launch(GuestOptions::new(context).named("described"))?;
    guest.attach()?;
    guest.expect_traffic()?;
    guest.detach()?;
    guest.expect_traffic()?;
    drop(guest);
    pool::expect_all_free()
}

fn link(state: &str) -> Result<()> {
    let status = Command::new("ip").args(["link", "set", PF, state]).status();
    ensure!(status.context("cannot run ip")?.success(), "ip link set {PF} {state} failed");
    Ok(())
}

/// `pf-control watch`.
struct Watch {
    child: Child,
    news: Receiver<Value>,
}

impl Watch {
    fn start() -> Result<Self> {
        let mut child = Command::new("pf-control")
            .args(["watch", "--socket"])
            .arg(Host::First.pf_control())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run pf-control watch")?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let (sender, news) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Ok(entry) = serde_json::from_str(&line) else { return };
                if sender.send(entry).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, news })
    }

    /// Waits until VF 0 is told of with `key` being `value`.
    fn until(&self, key: &str, value: bool) -> Result<()> {
        loop {
            let entry = self.news.recv_timeout(NEWS);
            let entry = entry.with_context(|| format!("nothing tells of {key}: {value}"))?;
            if entry["index"] == 0 && entry[key] == value {
                return Ok(());
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself, with the daemon.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
