//! Live migration beside its peers: ours with the VF kept until the last pass and given up before the
//! first, QEMU's of the same guest with virtio-net, and QEMU's failover, which unplugs the VF and plugs
//! another one in. All in one lab host, under the same stream.

use super::guest::{Guest, GuestOptions};
use super::host::Host;
use super::measure::{self, Subject};
use super::migration::move_on;
use super::peer::{Card, PeerGuest};
use super::traffic::{Traffic, TrafficReport};
use super::{Check, Context, Report};
use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long traffic flows before a move, and after the guest has its card again.
const DWELL: Duration = Duration::from_secs(1);

const LATE: &str = "vmm, late";
const EARLY: &str = "vmm, early";
const PLAIN: &str = "QEMU, virtio-net";
const FAILOVER: &str = "QEMU, failover";

/// The longest part of the pre-copy time that `late` may be without its VF.
const BROWNOUT: f64 = 0.05;

/// One move.
#[derive(Clone, Debug, Serialize)]
struct Move {
    /// How long nobody ran the VM.
    stopped_ms: f64,
    /// What the VMM itself says of that.
    reported_ms: f64,
    /// All of the move.
    total_ms: f64,
    /// The part of the pre-copy time without a VF; for our own moves.
    brownout: Option<f64>,
    /// The longest time in which one end of the stream got nothing.
    longest_gap_ms: f64,
    sent: u64,
    lost: u64,
    duplicated: u64,
    reordered: u64,
    tcp_intact: bool,
    traffic: TrafficReport,
}

impl Move {
    fn new(traffic: &TrafficReport, stopped_ms: f64, reported_ms: f64, total_ms: f64) -> Self {
        Self {
            stopped_ms,
            reported_ms,
            total_ms,
            brownout: None,
            longest_gap_ms: traffic.longest_gap_ms(),
            sent: traffic.sent(),
            lost: traffic.lost(),
            duplicated: traffic.duplicated(),
            reordered: traffic.reordered(),
            tcp_intact: traffic.tcp_intact(),
            traffic: traffic.clone(),
        }
    }
}

/// Medians of a subject's moves, and what all of them lost.
#[derive(Clone, Debug, Serialize)]
struct Medians {
    stopped_ms: f64,
    reported_ms: f64,
    total_ms: f64,
    longest_gap_ms: f64,
    brownout: Option<f64>,
    lost: f64,
    tcp_intact: usize,
}

impl Medians {
    fn of(moves: &[Move]) -> Self {
        let median = |figure: fn(&Move) -> f64| measure::median(moves.iter().map(figure).collect());
        let brownouts: Option<Vec<f64>> = moves.iter().map(|one| one.brownout).collect();
        Self {
            stopped_ms: median(|one| one.stopped_ms),
            reported_ms: median(|one| one.reported_ms),
            total_ms: median(|one| one.total_ms),
            longest_gap_ms: median(|one| one.longest_gap_ms),
            brownout: brownouts.map(measure::median),
            lost: median(|one| one.lost as f64),
            tcp_intact: moves.iter().filter(|one| one.tcp_intact).count(),
        }
    }
}

#[derive(Debug, Serialize)]
struct MigrationBench {
    kernel: &'static str,
    rounds: usize,
    medians: BTreeMap<&'static str, Medians>,
    moves: BTreeMap<&'static str, Vec<Move>>,
}

/// The benchmark: `--set rounds=N` changes how often each subject moves.
pub(crate) fn scenario(context: &Context) -> Result<Report> {
    let rounds: usize = context.setting("rounds", "3").parse().context("rounds is not a number")?;
    Host::up()?;
    let mut moves = BTreeMap::new();
    for (subject, fallback) in [(LATE, "late"), (EARLY, "early")] {
        moves.insert(subject, ours(context, rounds, fallback).context(subject)?);
        eprintln!("{subject}: {rounds} moves");
    }
    for (subject, card) in [(PLAIN, Card::VirtioNet), (FAILOVER, Card::Failover)] {
        moves.insert(subject, peers(context, rounds, card).context(subject)?);
        eprintln!("{subject}: {rounds} moves");
    }
    let medians: BTreeMap<_, _> =
        moves.iter().map(|(subject, moves)| (*subject, Medians::of(moves))).collect();
    print!("{}", table(&medians, rounds));
    let checks = judge(&medians, &moves);
    let report = MigrationBench { kernel: context.kernel.name(), rounds, medians, moves };
    Ok(Report { checks, figures: serde_json::to_value(report)? })
}

/// Our guest, from VF to VF.
fn ours(context: &Context, rounds: usize, fallback: &str) -> Result<Vec<Move>> {
    let mut guest = Guest::launch(GuestOptions::new(context).named(&format!("{fallback}-0")))?;
    guest.expect_traffic()?;
    guest.attach()?;
    let mut moves = Vec::new();
    for round in 1..=rounds {
        let (next, moved) = under_traffic(guest, |guest: Guest| {
            move_on(guest, &format!("{fallback}-{round}"), &["--fallback", fallback])
        })
        .with_context(|| format!("move {round}"))?;
        let (traffic, report) = moved;
        let figure = |name: &str| report[name].as_f64().with_context(|| format!("no {name}"));
        let stopped = figure("downtime_ms")?;
        let mut one = Move::new(&traffic, stopped, stopped, figure("total_ms")?);
        one.brownout = Some(figure("brownout_ms")? / figure("precopy_ms")?);
        moves.push(one);
        guest = next;
    }
    guest.ctl_ok(&["shutdown"])?;
    guest.wait(Duration::from_secs(30))?;
    Ok(moves)
}

/// The same guest under QEMU.
fn peers(context: &Context, rounds: usize, card: Card) -> Result<Vec<Move>> {
    let mut guest = PeerGuest::launch(context, card)?;
    let mut moves = Vec::new();
    for round in 1..=rounds {
        let (next, (traffic, moved)) =
            under_traffic(guest, |guest: PeerGuest| guest.move_on(context))
                .with_context(|| format!("move {round}"))?;
        moves.push(Move::new(&traffic, moved.stopped_ms, moved.reported_ms, moved.total_ms));
        guest = next;
    }
    Ok(moves)
}

/// Moves a guest while traffic flows; answers what that saw, and what the move itself says.
fn under_traffic<G: Subject, R>(
    guest: G,
    moves: impl FnOnce(G) -> Result<(G, R)>,
) -> Result<(G, (TrafficReport, R))> {
    let traffic = Traffic::start(&guest)?;
    std::thread::sleep(DWELL);
    let (guest, report) = moves(guest)?;
    std::thread::sleep(DWELL);
    let traffic = traffic.stop(&guest)?;
    ensure!(traffic.sent() > 0, "no traffic");
    Ok((guest, (traffic, report)))
}

fn judge(
    medians: &BTreeMap<&'static str, Medians>,
    moves: &BTreeMap<&'static str, Vec<Move>>,
) -> Vec<Check> {
    let figure =
        |subject: &str, pick: fn(&Medians) -> f64| medians.get(subject).map_or(f64::NAN, pick);
    let at_most = |what: &str, aim: f64, ours: f64, theirs: f64| Check {
        what: what.to_owned(),
        passed: ours <= aim * theirs,
        seen: format!("{ours:.1} ms to {theirs:.1} ms, {:.3} (aim: {aim})", ours / theirs),
    };
    let stopped: fn(&Medians) -> f64 = |medians| medians.stopped_ms;
    let gap: fn(&Medians) -> f64 = |medians| medians.longest_gap_ms;
    let brownout = figure(LATE, |medians| medians.brownout.unwrap_or(f64::NAN));
    let mut checks = vec![
        at_most("stop, to QEMU's plain", 0.5, figure(LATE, stopped), figure(PLAIN, stopped)),
        at_most("longest gap, to failover's", 0.05, figure(LATE, gap), figure(FAILOVER, gap)),
        Check {
            what: "time without a VF in late, of the pre-copy time".to_owned(),
            passed: brownout < BROWNOUT,
            seen: format!("{:.1} % (aim: {:.0} %)", brownout * 100.0, BROWNOUT * 100.0),
        },
    ];
    for subject in [LATE, EARLY] {
        let all = moves.get(subject).map_or(&[][..], Vec::as_slice);
        let sum = |pick: fn(&Move) -> u64| all.iter().map(pick).sum::<u64>();
        let (lost, twice, late) =
            (sum(|one| one.lost), sum(|one| one.duplicated), sum(|one| one.reordered));
        checks.push(Check {
            what: format!("{subject}: no frame lost, doubled or reordered, TCP intact"),
            passed: lost + twice + late == 0 && all.iter().all(|one| one.tcp_intact),
            seen: format!("{lost} lost, {twice} doubled, {late} reordered of {}", sum(|m| m.sent)),
        });
    }
    checks
}

/// One line per subject.
fn table(medians: &BTreeMap<&'static str, Medians>, rounds: usize) -> String {
    let mut table = format!(
        "{:<18} {:>12} {:>12} {:>12} {:>12} {:>10} {:>9} {:>8}\n",
        format!("medians of {rounds}"),
        "stopped, ms",
        "as reported",
        "longest gap",
        "total, ms",
        "brownout",
        "lost",
        "TCP"
    );
    for (subject, medians) in medians {
        let brownout =
            medians.brownout.map_or("-".to_owned(), |part| format!("{:.1} %", part * 100.0));
        table += &format!(
            "{subject:<18} {:>12.1} {:>12.1} {:>12.1} {:>12.0} {brownout:>10} {:>9} {:>8}\n",
            medians.stopped_ms,
            medians.reported_ms,
            medians.longest_gap_ms,
            medians.total_ms,
            medians.lost,
            format!("{}/{rounds}", medians.tcp_intact),
        );
    }
    table
}
