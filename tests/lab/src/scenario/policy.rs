//! What a port's policy allows is in force at the card, and what it does not is refused, told, and
//! written down; in emulation as on a VF the guest goes on.

use super::guest::{Guest, GuestOptions};
use super::host::Host;
use super::{Context, pool};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::process::Command;

pub(crate) fn run(context: &Context) -> Result<()> {
    pool::kill_daemon()?;
    pool::restart_daemon_with_strict_ports()?;

    // Port tap1: its own address, trust, a rate.
    let named = GuestOptions { number: 1, ..GuestOptions::new(context).named("named") };
    let guest = Guest::launch(named)?;
    guest.attach()?;
    guest.expect_traffic()?;
    let set = vf_of(&guest)?;
    for (key, expected) in [("trust", true), ("spoofchk", true)] {
        ensure!(set[key] == expected, "{key} should be {expected}: {set}");
    }
    ensure!(set["rate"]["max_tx"] == 500, "the rate should be 500: {set}");
    guest.detach()?;
    drop(guest);

    // Port tap0: addresses of another range.
    let guest = Guest::launch(GuestOptions::new(context).named("stranger"))?;
    let refused = guest.ctl_refused(&["attach", "net0"])?;
    ensure!(refused.contains("policy of port 'tap0'"), "the refusal says: {refused}");
    ensure!(refused.contains(&guest.options.mac()), "the address is not named: {refused}");
    guest.expect_traffic()?;
    pool::expect_all_free()?;
    drop(guest);

    let log = pool::daemon_log()?;
    let audited = |words: &[&str]| {
        log.lines()
            .filter(|line| line.contains("audit"))
            .any(|line| words.iter().all(|word| line.contains(word)))
    };
    for words in [
        ["open-port", "tap1", "allowed"],
        ["activate", "tap1", "allowed"],
        ["activate", "tap0", "refused"],
    ] {
        ensure!(audited(&words), "no line of {words:?} in:\n{log}");
    }

    // The next one has what nobody asked for.
    pool::kill_daemon()?;
    pool::restart_daemon()?;
    let guest = Guest::launch(GuestOptions::new(context).named("plain"))?;
    guest.attach()?;
    guest.expect_traffic()?;
    let set = vf_of(&guest)?;
    ensure!(set["trust"] == false && set["spoofchk"] == true, "a plain port has {set}");
    ensure!(set["rate"]["max_tx"] == 0, "a plain port has a rate: {set}");
    drop(guest);
    pool::expect_all_free()
}

/// The VF that carries the guest's address, as the PF's driver has it.
fn vf_of(guest: &Guest) -> Result<Value> {
    let output = Command::new("ip").args(["-json", "link", "show", Host::First.pf()]).output();
    let links: Value = serde_json::from_slice(&output.context("cannot run ip")?.stdout)?;
    let vfs = links[0]["vfinfo_list"].as_array().context("the PF shows no VFs")?;
    let its =
        |vf: &&Value| vf["address"] == guest.options.mac() || vf["mac"] == guest.options.mac();
    vfs.iter().find(its).cloned().with_context(|| format!("no VF has the address: {vfs:?}"))
}
