//! pf-control dies at each of its fault points in turn, in the midst of attach, drain and detach,
//! while frames flow; whoever supervises it starts it again. Every step comes to its end all the
//! same, no VF is left over, and no frame is lost.

use super::guest::{Guest, GuestOptions};
use super::pool;
use super::traffic::Traffic;
use super::{Check, Context, Report};
use anyhow::{Context as _, Result, ensure};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The lab host's PF.
const PF: &str = "eth0";
/// How long the supervisor takes to see that the daemon has died: as systemd's default.
const NOTICE: Duration = Duration::from_millis(100);
/// How long a device may take to have its VF again once its PF is in use again.
const RETURN: Duration = Duration::from_secs(20);
/// Points that are not on the way: a failed lease is released only where a step has failed. The
/// pool's own test dies at these.
const ELSEWHERE: [&str; 2] = ["before-reset-vf", "after-reset-vf"];

/// The scenario: `--set only=TEXT` takes the points with that in their name.
pub(crate) fn scenario(context: &Context) -> Result<Report> {
    let only = context.setting("only", "");
    let points = pool::fault_points()?;
    let points: Vec<_> = points.iter().filter(|point| point.contains(only)).collect();
    ensure!(!points.is_empty(), "no fault point has '{only}' in its name");
    let mut guest = Guest::launch(GuestOptions::new(context).named("daemon-faults"))?;
    guest.expect_traffic()?;
    let traffic = Traffic::start(&guest)?;
    let mut checks = Vec::new();
    for point in points {
        pool::kill_daemon()?;
        pool::start_mortal_daemon(point)?;
        let (outcome, died) = supervised(|| cycle(&guest));
        let expected = !ELSEWHERE.contains(&point.as_str());
        let passed = outcome.is_ok() && died.as_ref().is_ok_and(|died| *died == expected);
        let seen = match (&outcome, died) {
            (Err(error), _) => format!("{error:#}"),
            (_, Err(error)) => format!("the daemon was not started again: {error:#}"),
            (_, Ok(true)) => "died there, and every step came to its end".to_owned(),
            (_, Ok(false)) => "not on the way".to_owned(),
        };
        println!("{point}: {seen}");
        checks.push(Check {
            what: format!("pf-control dies {}", point.replace('-', " ")),
            passed,
            seen,
        });
        if outcome.is_err() {
            break;
        }
    }
    let report = traffic.stop(&guest)?;
    checks.push(Check {
        what: "no frame lost or reordered, TCP intact".to_owned(),
        passed: report.lost() == 0 && report.reordered() == 0 && report.tcp_intact(),
        seen: report.particulars(),
    });
    guest.expect_traffic()?;
    guest.expect_alive()?;
    let figures = serde_json::to_value(&report)?;
    Ok(Report { checks, figures })
}

/// Attach, drain, the end of the maintenance, detach.
fn cycle(guest: &Guest) -> Result<()> {
    guest.attach().context("attach")?;
    insist(|| pool::drain(PF)).context("drain")?;
    guest.expect_mode("emulated").context("after the drain")?;
    pool::expect_all_free().context("after the drain")?;
    insist(|| pool::enable(PF)).context("enable")?;
    let deadline = Instant::now() + RETURN;
    while let Err(error) = guest.expect_mode("vf") {
        ensure!(Instant::now() < deadline, "the VM does not get a VF again: {error}");
        thread::sleep(Duration::from_millis(50));
    }
    guest.detach().context("detach")?;
    pool::expect_all_free().context("after the detach")
}

/// An operator whose command broke off gives it again.
fn insist(command: impl Fn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        match command() {
            Err(error) if Instant::now() < deadline => {
                println!("once more, since: {error:#}");
                thread::sleep(Duration::from_millis(500));
            }
            outcome => return outcome,
        }
    }
}

/// Does `work` while somebody starts the daemon again when it dies; also answers whether it did.
fn supervised<T>(work: impl FnOnce() -> T) -> (T, Result<bool>) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let supervisor = scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                if !pool::runs() {
                    return pool::restart_daemon().map(|()| true);
                }
                thread::sleep(NOTICE);
            }
            Ok(false)
        });
        let outcome = work();
        over.store(true, Ordering::Release);
        let died = supervisor.join().unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked")));
        (outcome, died)
    })
}
