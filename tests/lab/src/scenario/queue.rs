//! Four VMs on two VFs: who finds none free is served by the emulated path, waits in pf-control's
//! queue, and is put on a VF when its turn comes, without loss.

use super::guest::{Guest, GuestOptions};
use super::pool;
use super::traffic::Traffic;
use super::{Check, Context, Report};
use anyhow::{Context as _, Result, ensure};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// VMs; the host has half as many VFs.
const VMS: u8 = 4;
/// How long the next one may take to be on a VF that became free.
const TURN: Duration = Duration::from_secs(15);

pub(crate) fn scenario(context: &Context) -> Result<Report> {
    let status = Command::new("lab").args(["up", "--taps", &VMS.to_string()]).status();
    ensure!(status.context("cannot run lab up")?.success(), "the taps are not there");
    let launch = |number: u8| {
        let name = format!("queue-{number}");
        let options = GuestOptions { number, ..GuestOptions::new(context).named(&name) };
        let guest = Guest::launch(options)?;
        guest.expect_traffic()?;
        Ok(guest)
    };
    let guests: Vec<Guest> = (0..VMS).map(launch).collect::<Result<_>>()?;
    let [mut first, mut second, mut third, mut fourth] =
        <[Guest; VMS as usize]>::try_from(guests).ok().context("there are four")?;
    first.attach()?;
    second.attach()?;
    let traffic = Traffic::start(&third)?;
    for waiting in [&third, &fourth] {
        let refused = waiting.ctl_refused(&["attach", "net0"])?;
        ensure!(refused.contains("no VF is free"), "attach says: {refused}");
        waiting.ctl_ok(&["attach", "net0", "--when-free"])?;
        wait_until(|| Ok(pool::waiting()?.iter().any(|who| who.contains(&process(waiting)))))?;
        expect_waiting(waiting)?;
    }

    // The first gives its VF up: the third gets it, which has waited longer than the fourth.
    first.detach()?;
    wait_for_vf(&third).context("the third")?;
    expect_waiting(&fourth)?;
    // Who has just detached comes last.
    first.ctl_ok(&["attach", "net0", "--when-free"])?;
    // The second dies: the fourth gets its VF.
    second.kill_now()?;
    wait_for_vf(&fourth).context("the fourth")?;
    expect_waiting(&first)?;
    // The third gives its up: the first's turn again.
    third.detach()?;
    wait_for_vf(&first).context("the first, again")?;
    ensure!(pool::waiting()?.is_empty(), "still waiting: {:?}", pool::waiting()?);

    let report = traffic.stop(&third)?;
    for guest in [&mut first, &mut third, &mut fourth] {
        guest.expect_traffic()?;
        guest.expect_alive()?;
    }
    first.detach()?;
    fourth.detach()?;
    pool::expect_all_free()?;

    // One that is to have a VF from its start on has it as soon as its shell is there.
    drop(first);
    let options = GuestOptions::new(context).named("queue-eager");
    let eager = Guest::launch(GuestOptions { acceleration: "when-free", ..options })?;
    wait_for_vf(&eager).context("a VM that is started with accel=when-free")?;
    eager.detach()?;
    pool::expect_all_free()?;
    let checks = vec![
        Check {
            what: "each VM gets a VF in its turn".to_owned(),
            passed: true,
            seen: "third, fourth, first".to_owned(),
        },
        Check {
            what: "the third VM, emulated, on a VF, and emulated again, loses no frame".to_owned(),
            passed: report.lost() == 0 && report.reordered() == 0 && report.tcp_intact(),
            seen: report.particulars(),
        },
    ];
    Ok(Report { checks, figures: serde_json::to_value(&report)? })
}

/// How pf-control tells which process waits.
fn process(guest: &Guest) -> String {
    format!("(process {})", guest.process())
}

fn expect_waiting(guest: &Guest) -> Result<()> {
    guest.expect_mode("emulated")?;
    guest.expect_traffic()?;
    let status = guest.net_status()?;
    ensure!(status["waits_for_vf"] == true, "the device does not wait: {status}");
    Ok(())
}

fn wait_for_vf(guest: &Guest) -> Result<()> {
    wait_until(|| Ok(guest.net_status()?["mode"] == "vf"))?;
    guest.expect_traffic()
}

fn wait_until(condition: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + TURN;
    while !condition()? {
        ensure!(Instant::now() < deadline, "not within {} s", TURN.as_secs());
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
