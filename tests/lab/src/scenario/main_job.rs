//! The main job: a guest's NIC goes to a VF and back, again and again, while two-way traffic
//! flows. Nothing may be lost, doubled or reordered.

use super::guest::{Guest, GuestOptions};
use super::measure::{self, PathFigures};
use super::outside;
use super::traffic::{Traffic, TrafficReport};
use super::{Check, Context, Report};
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the NIC stays on each path.
const DWELL: Duration = Duration::from_millis(200);

/// A switch that the operator asked for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Switch {
    /// `attach` or `detach`.
    pub kind: &'static str,
    /// Unix time in seconds at which the operator asked.
    pub began_at: f64,
    /// Unix time at which the answer came.
    pub ended_at: f64,
}

/// Duration of one step over all cycles.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StepFigures {
    pub median_ms: f64,
    pub worst_ms: f64,
    pub samples: usize,
}

/// What one guest kernel showed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MainJobReport {
    pub kernel: String,
    pub cycles: u32,
    pub sent: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub longest_gap_ms: f64,
    pub tcp_intact: bool,
    pub tcp_bytes: u64,
    /// By step name, attach and detach steps alike, operator's wait included.
    pub steps: BTreeMap<String, StepFigures>,
    pub emulated: PathFigures,
    pub vf: PathFigures,
    pub switches: Vec<Switch>,
    pub traffic: TrafficReport,
}

/// Most exits to userspace per frame on the VF (timers and console).
const USERSPACE_EXITS: f64 = 0.001;

/// The scenario: `--set cycles=N` changes how often.
pub(crate) fn scenario(context: &Context) -> Result<Report> {
    let cycles = context.setting("cycles", "20").parse().context("cycles is not a number")?;
    let report = run(context, cycles)?;
    let check =
        |what: &str, passed: bool, seen: String| Check { what: what.to_owned(), passed, seen };
    let stream = report.traffic.expect_clean();
    let checks = vec![
        check(
            "no frame lost, doubled or reordered, TCP intact",
            stream.is_ok(),
            stream.err().map_or_else(
                || {
                    format!(
                        "{} frames, {} cycles, longest gap {:.1} ms",
                        report.sent, report.cycles, report.longest_gap_ms
                    )
                },
                |error| format!("{error:#}"),
            ),
        ),
        check(
            "exits to userspace per frame on the VF",
            [&report.vf.send, &report.vf.receive].iter().all(|direction| {
                direction.userspace_exits_per_frame.is_some_and(|exits| exits <= USERSPACE_EXITS)
            }),
            format!(
                "{:.5} sent, {:.5} received (at most {USERSPACE_EXITS})",
                report.vf.send.userspace_exits_per_frame.unwrap_or(f64::NAN),
                report.vf.receive.userspace_exits_per_frame.unwrap_or(f64::NAN)
            ),
        ),
    ];
    // Figures, not a verdict: they depend on how much of this machine the lab host gets. The
    // `data-path` benchmark measures the stock driver beside ours.
    println!(
        "        KVM exits per frame on the VF: {:.4} sent, {:.4} received",
        report.vf.send.exits_per_frame, report.vf.receive.exits_per_frame
    );
    Ok(Report { checks, figures: serde_json::to_value(report)? })
}

/// Runs `cycles` attach-detach cycles under traffic, then measures both paths flat out.
fn run(context: &Context, cycles: u32) -> Result<MainJobReport> {
    let kernel = context.kernel.name();
    let mut guest = Guest::launch(GuestOptions::new(context))?;
    guest.expect_traffic()?;
    eprintln!("guest {kernel} is up on the emulated path");

    let traffic = Traffic::start(&guest)?;
    let mut switches = Vec::new();
    let mut steps = BTreeMap::<String, Vec<f64>>::new();
    for cycle in 1..=cycles {
        std::thread::sleep(DWELL);
        switches.push(switch(&guest, "attach", &mut steps)?);
        std::thread::sleep(DWELL);
        switches.push(switch(&guest, "detach", &mut steps)?);
        eprintln!("guest {kernel}: cycle {cycle} of {cycles}");
    }
    std::thread::sleep(DWELL);
    let traffic = traffic.stop(&guest)?;
    guest.expect_alive()?;
    if traffic.lost() > 0 {
        eprintln!(
            "guest {kernel}: frames were lost; who counted drops:\n{}",
            drop_counters(&guest)
        );
    }

    eprintln!("guest {kernel}: measuring the emulated path flat out");
    let emulated = measure::path(&guest).context("measuring the emulated path")?;
    guest.attach()?;
    eprintln!("guest {kernel}: measuring the VF flat out");
    let vf = measure::path(&guest).context("measuring the VF path")?;
    guest.detach()?;
    guest.expect_traffic()?;
    guest.ctl_ok(&["shutdown"])?;
    guest.wait(Duration::from_secs(30)).context("the guest should shut down")?;

    Ok(MainJobReport {
        kernel: kernel.to_owned(),
        cycles,
        sent: traffic.sent(),
        lost: traffic.lost(),
        duplicated: traffic.duplicated(),
        reordered: traffic.reordered(),
        longest_gap_ms: traffic.longest_gap_ms(),
        tcp_intact: traffic.tcp_intact(),
        tcp_bytes: traffic.guest_tcp.received_bytes + traffic.outside_tcp.received_bytes,
        steps: steps.into_iter().map(|(name, samples)| (name, figures(samples))).collect(),
        emulated,
        vf,
        switches,
        traffic,
    })
}

/// Every counter on the way of a frame that is not zero and may tell of a drop.
fn drop_counters(guest: &Guest) -> String {
    const COUNTERS: &str = "for c in $(ls /sys/class/net); do \
         ethtool -S $c 2>/dev/null | grep -E 'drop|miss|err|no_buf|fifo|closed|given|resub' | grep -v ': 0$'; \
         for f in /sys/class/net/$c/statistics/*; do case $f in *drop*|*err*|*miss*) \
         [ $(cat $f) = 0 ] || echo $f $(cat $f);; esac; done; done; grep Udp: /proc/net/snmp; \
         cat /proc/net/softnet_stat";
    let run = |what: &str, output: std::io::Result<std::process::Output>| match output {
        Ok(output) => format!("[{what}]\n{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => format!("[{what}] {error}\n"),
    };
    let here = std::process::Command::new("sh").args(["-c", COUNTERS]).output();
    let inside = guest.exec(COUNTERS).unwrap_or_else(|error| format!("{error:#}"));
    run("lab host", here)
        + &run("outside", outside::command(&["sh", "-c", COUNTERS]).output())
        + &format!("[guest]\n{inside}\n")
        + &format!("[vmm]\n{}", guest.ctl_ok(&["status"]).unwrap_or_default())
}

/// Switches and notes when, and how long each step took by the VMM's own record.
fn switch(
    guest: &Guest,
    kind: &'static str,
    steps: &mut BTreeMap<String, Vec<f64>>,
) -> Result<Switch> {
    let began_at = now();
    match kind {
        "attach" => guest.attach()?,
        _ => guest.detach()?,
    }
    let ended_at = now();
    steps
        .entry(format!("{kind}: whole, as the operator waits"))
        .or_default()
        .push((ended_at - began_at) * 1e3);
    let status = guest.net_status()?;
    let last = status["last_switch"]["steps"].as_array().cloned().unwrap_or_default();
    anyhow::ensure!(!last.is_empty(), "the VMM recorded no step of the {kind}: {status}");
    for step in last {
        if let (Some(name), Some(ms)) = (step["name"].as_str(), step["ms"].as_f64()) {
            steps.entry(format!("{kind}: {name}")).or_default().push(ms);
        }
    }
    Ok(Switch { kind, began_at, ended_at })
}

fn figures(samples: Vec<f64>) -> StepFigures {
    StepFigures {
        worst_ms: samples.iter().copied().fold(0.0, f64::max),
        samples: samples.len(),
        median_ms: measure::median(samples),
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
