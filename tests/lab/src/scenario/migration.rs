//! A VM goes to and fro between two hosts, from VF to VF, under two-way traffic, and nothing is
//! lost.

use super::footprint::Footprint;
use super::guest::{Guest, GuestOptions};
use super::host::Host;
use super::measure;
use super::pool;
use super::traffic::{Traffic, TrafficReport};
use super::{Check, Context, Report};
use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long the VM stays on a host.
const DWELL: Duration = Duration::from_millis(500);

/// How long a VM may take to get a VF where it came to.
const VF_LIMIT: Duration = Duration::from_secs(15);

/// How long a `vmm` may take until it waits for a VM.
const ARRANGE_LIMIT: Duration = Duration::from_secs(20);

/// Where machines wait for VMs.
const PORT: u16 = 4000;

/// What the moves were like.
#[derive(Debug, Serialize)]
struct MigrationReport {
    kernel: &'static str,
    migrations: u32,
    verified: usize,
    downtime_ms: Spread,
    brownout_ms: Spread,
    total_ms: Spread,
    handed_over: u64,
    /// What the moves themselves say was lost; absent if one did not know.
    told_lost: Option<u64>,
    sent: u64,
    lost: u64,
    duplicated: u64,
    reordered: u64,
    longest_gap_ms: f64,
    tcp_intact: bool,
    /// What each host held before the VM was there, and after.
    footprints: Vec<(Footprint, Footprint)>,
    /// As `vmm ctl migrate --json` printed them.
    moves: Vec<Value>,
    traffic: TrafficReport,
}

/// Median and worst.
#[derive(Debug, Serialize)]
struct Spread {
    median: f64,
    worst: f64,
}

impl Spread {
    fn of(moves: &[Value], figure: &str) -> Self {
        let all: Vec<f64> = moves.iter().filter_map(|report| report[figure].as_f64()).collect();
        Self { worst: all.iter().copied().fold(0.0, f64::max), median: measure::median(all) }
    }
}

/// The scenario with two hosts in one lab host.
pub(crate) fn scenario(context: &Context) -> Result<Report> {
    Host::up()?;
    between(context, [Host::First, Host::Second])
}

/// The scenario with two machines that share nothing but a wire.
pub(crate) fn machines(context: &Context) -> Result<Report> {
    between(context, [Host::First, Host::Machine])
}

/// `--set migrations=N` changes how often, `--set fallback=early` when the VF goes, and
/// `--set verify=no` leaves the comparison of memory out, which is the better part of each stop.
fn between(context: &Context, hosts: [Host; 2]) -> Result<Report> {
    let count: u32 = context.setting("migrations", "6").parse().context("no number of moves")?;
    let verify = context.setting("verify", "yes") == "yes";
    let mut options = vec!["--fallback", context.setting("fallback", "late")];
    if verify {
        options.push("--verify");
    }
    let footprints = || hosts.iter().map(|host| Footprint::of(*host)).collect::<Result<Vec<_>>>();
    let before = footprints()?;
    let mut options_here = GuestOptions::new(context).named("moving-0");
    options_here.away = hosts[1];
    let mut guest = Guest::launch(options_here)?;
    guest.expect_traffic()?;
    guest.attach()?;
    let traffic = Traffic::start(&guest)?;
    let mut moves = Vec::new();
    for number in 1..=count {
        std::thread::sleep(DWELL);
        let (next, report) = move_on(guest, &format!("moving-{number}"), &options)
            .with_context(|| format!("move {number} of {count}"))?;
        guest = next;
        let downtime = report["downtime_ms"].as_f64().unwrap_or(f64::NAN);
        eprintln!("move {number} of {count}: stopped for {downtime:.1} ms");
        moves.push(report);
    }
    std::thread::sleep(DWELL);
    let traffic = traffic.stop(&guest)?;
    guest.expect_traffic()?;
    let announced = guest.exec("ethtool -S eth0 | sed -n 's/^ *announcements: //p'")?;
    let announced: u32 = announced.trim().parse().context("no count of announcements")?;
    let (here, there) = (pool::held_on(guest.options.host)?, pool::held_on(guest.options.away)?);
    guest.ctl_ok(&["shutdown"])?;
    guest.wait(Duration::from_secs(30)).context("the guest should shut down")?;
    drop(guest);
    let left: Vec<_> =
        hosts.map(pool::expect_all_free_on).into_iter().filter_map(Result::err).collect();

    let footprints: Vec<_> = before.into_iter().zip(footprints()?).collect();
    let leaks: Vec<_> = footprints.iter().flat_map(|(before, after)| before.leaks(after)).collect();

    let clean = traffic.expect_clean();
    let report = MigrationReport {
        kernel: context.kernel.name(),
        migrations: count,
        verified: moves.iter().filter(|report| report["verified"] == true).count(),
        downtime_ms: Spread::of(&moves, "downtime_ms"),
        brownout_ms: Spread::of(&moves, "brownout_ms"),
        total_ms: Spread::of(&moves, "total_ms"),
        handed_over: moves.iter().filter_map(|report| report["handed_over"].as_u64()).sum(),
        told_lost: moves.iter().map(|report| report["frames_lost"].as_u64()).sum(),
        sent: traffic.sent(),
        lost: traffic.lost(),
        duplicated: traffic.duplicated(),
        reordered: traffic.reordered(),
        longest_gap_ms: traffic.longest_gap_ms(),
        tcp_intact: traffic.tcp_intact(),
        footprints,
        moves,
        traffic,
    };
    let check =
        |what: &str, passed: bool, seen: String| Check { what: what.to_owned(), passed, seen };
    let checks = vec![
        check(
            "no frame lost, doubled or reordered, TCP intact",
            clean.is_ok(),
            clean.err().map_or_else(
                || {
                    format!(
                        "{} frames, {count} moves, longest gap {:.1} ms, stopped for {:.1} ms \
                         (median, worst {:.1}), {} frames handed over",
                        report.sent,
                        report.longest_gap_ms,
                        report.downtime_ms.median,
                        report.downtime_ms.worst,
                        report.handed_over
                    )
                },
                |error| format!("{error:#}"),
            ),
        ),
        check(
            "the moves know of no frame that is lost",
            report.told_lost == Some(0),
            format!("{:?}", report.told_lost),
        ),
        check(
            "memory equal at both ends",
            !verify || report.verified == count as usize,
            format!("{} of {count} moves compared it", report.verified),
        ),
        check(
            "the guest announced itself after each move",
            announced == count,
            format!("{announced} times"),
        ),
        check(
            "one VF held where the VM is, none where it was, none when it has ended",
            here.len() == 1 && there.is_empty() && left.is_empty(),
            format!("{here:?}, {there:?}, {left:?}"),
        ),
        check(
            "nothing leaks: files and memory of the pf-controls, processes, taps, memory",
            leaks.is_empty(),
            format!("{leaks:?}; {:?}", report.footprints),
        ),
    ];
    Ok(Report { checks, figures: serde_json::to_value(report)? })
}

/// A `vmm` that waits for a VM.
pub(super) struct Meeting {
    /// The VM to be.
    pub(super) guest: Guest,
    /// Where it is awaited.
    pub(super) url: String,
}

impl Meeting {
    /// Waits for `guest` on the other host, under `name`.
    pub(super) fn arrange(guest: &Guest, name: &str) -> Result<Self> {
        let mut options = guest.options.clone().named(name);
        (options.host, options.away) = (guest.options.away, guest.options.host);
        let url = match (options.host, options.away) {
            (Host::Machine, _) | (_, Host::Machine) => {
                format!("tcp:{}:{PORT}", options.host.address())
            }
            _ => format!("unix:/run/npa/meeting-{name}.sock"),
        };
        options.extra = vec!["--incoming".to_owned(), url.clone()];
        let mut next = Guest::launch_only(options)?;
        let deadline = Instant::now() + ARRANGE_LIMIT;
        while !next.log_tail().contains("waiting for a VM") {
            next.expect_alive()?;
            ensure!(Instant::now() < deadline, "no VM is awaited at {url}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { guest: next, url })
    }
}

/// Waits until the NIC is on a VF.
pub(super) fn expect_vf(guest: &Guest) -> Result<()> {
    let deadline = Instant::now() + VF_LIMIT;
    while guest.net_status()?["mode"] != "vf" {
        ensure!(Instant::now() < deadline, "no VF; vmm says:\n{}", guest.log_tail());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Moves the guest to the other host, under `name`, and waits until it has a VF there.
pub(super) fn move_on(guest: Guest, name: &str, options: &[&str]) -> Result<(Guest, Value)> {
    let moved = move_over(guest, name, options)?;
    expect_vf(&moved.0)?;
    Ok(moved)
}

/// Moves the guest to the other host, under `name`. Whatever that has to give it, it gets by itself.
pub(super) fn move_over(mut guest: Guest, name: &str, options: &[&str]) -> Result<(Guest, Value)> {
    let Meeting { guest: next, url } = Meeting::arrange(&guest, name)?;
    let arguments = [&["migrate", url.as_str(), "--json"], options].concat();
    let report = guest
        .ctl_ok(&arguments)
        .with_context(|| format!("the other end says:\n{}", next.log_tail()))?;
    let report: Value = serde_json::from_str(&report)?;
    ensure!(guest.wait(Duration::from_secs(10))?, "the source failed:\n{}", guest.log_tail());
    // The source gives its VF back meanwhile.
    let deadline = Instant::now() + Duration::from_secs(5);
    while next.status()?["state"] != "running" {
        ensure!(Instant::now() < deadline, "it does not run:\n{}", next.log_tail());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((next, report))
}
