//! A VM moves between hosts whose devices have nothing in common: from an 82576's VF to a virtio
//! function in hardware, to a host that has none to give, and to an 82576's VF again. The guest has
//! one network card all the time, and no driver of either vendor.

use super::guest::{Guest, GuestOptions};
use super::host::Host;
use super::migration::{expect_vf, move_over};
use super::pool;
use super::traffic::Traffic;
use super::{Check, Context, Report};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::time::Duration;

/// How long the VM stays on a host, and on a path.
const DWELL: Duration = Duration::from_millis(500);
/// Switches to the virtio function and back, before the moves.
const SWITCHES: u32 = 3;

/// The scenario: `--set switches=N` changes how often the function is given and taken first.
pub(crate) fn scenario(context: &Context) -> Result<Report> {
    let switches: u32 =
        context.setting("switches", &SWITCHES.to_string()).parse().context("no number")?;
    Host::up()?;
    serve_virtio_function()?;
    let mut checks = vec![switched(context, switches)?];
    let mut guest = Guest::launch(options(context, "unlike-0"))?;
    guest.expect_traffic()?;
    guest.attach()?;
    let mut path = vec![seat(&guest)?];
    let traffic = Traffic::start(&guest)?;
    std::thread::sleep(DWELL);

    // To the virtio function.
    let (mut next, to_function) = move_over(guest, "unlike-1", &[])?;
    expect_vf(&next)?;
    path.push(seat(&next)?);
    std::thread::sleep(DWELL);

    // To a host that gives no VF, so the VM stays emulated.
    pool::drain(Host::First.pf())?;
    guest = next;
    let (emulated, to_nothing) = move_over(guest, "unlike-2", &[])?;
    next = emulated;
    std::thread::sleep(DWELL);
    path.push(seat(&next)?);

    // To an 82576 again, on the host that had the function.
    serve_vfs()?;
    guest = next;
    let (back, to_vf) = move_over(guest, "unlike-3", &[])?;
    // It wanted a VF all the time.
    expect_vf(&back)?;
    path.push(seat(&back)?);
    std::thread::sleep(DWELL);

    let report = traffic.stop(&back)?;
    back.expect_traffic()?;
    drop(back);
    pool::enable(Host::First.pf())?;
    let left: Vec<_> = [Host::First, Host::Second]
        .map(pool::expect_all_free_on)
        .into_iter()
        .filter_map(Result::err)
        .collect();
    let expected = ["igbvf", "virtio-net", "emulated", "igbvf"];
    checks.push(Check {
        what: "igbvf, virtio function, none, igbvf".to_owned(),
        passed: path == expected,
        seen: path.join(", "),
    });
    checks.push(Check {
        what: "no frame lost or reordered, TCP intact".to_owned(),
        passed: report.lost() == 0 && report.reordered() == 0 && report.tcp_intact(),
        seen: format!(
            "{} frames, {} lost, {} reordered, {} doubled (a function without a switch before it), \
             longest gap {:.0} ms, lost runs {:?} and {:?}",
            report.sent(),
            report.lost(),
            report.reordered(),
            report.duplicated(),
            report.longest_gap_ms(),
            report.guest.lost_runs,
            report.outside.lost_runs,
        ),
    });
    checks.push(Check {
        what: "no VF is held when the VM has ended".to_owned(),
        passed: left.is_empty(),
        seen: format!("{left:?}"),
    });
    let figures = json!({
        "kernel": context.kernel.name(),
        "path": path,
        "moves": [to_function, to_nothing, to_vf],
        "traffic": report,
    });
    Ok(Report { checks, figures })
}

/// The NIC goes to the virtio function and back, on one host, under traffic.
fn switched(context: &Context, switches: u32) -> Result<Check> {
    let mut promised = GuestOptions::new(context).named("promised");
    promised.host = Host::Second;
    let guest = Guest::launch(promised)?;
    let error = guest.ctl_refused(&["attach", "net0"])?;
    ensure!(error.contains("offloads=off"), "a function that does less is told as: {error}");
    guest.expect_traffic()?;
    drop(guest);

    let mut options = options(context, "function");
    options.host = Host::Second;
    let guest = Guest::launch(options)?;
    guest.expect_traffic()?;
    let traffic = Traffic::start(&guest)?;
    for round in 1..=switches {
        std::thread::sleep(DWELL);
        guest.attach().with_context(|| format!("switch {round}"))?;
        ensure!(seat(&guest)? == "virtio-net", "another plugin: {}", seat(&guest)?);
        std::thread::sleep(DWELL);
        guest.detach().with_context(|| format!("switch {round}"))?;
    }
    std::thread::sleep(DWELL);
    let report = traffic.stop(&guest)?;
    guest.expect_traffic()?;
    drop(guest);
    pool::expect_all_free_on(Host::Second)?;
    Ok(Check {
        what: format!("{switches} times to the virtio function and back, no frame lost"),
        passed: report.lost() == 0 && report.reordered() == 0 && report.tcp_intact(),
        seen: format!(
            "{} frames, {} lost, {} reordered, {} doubled, longest gap {:.0} ms, TCP {}, runs {:?} {:?}",
            report.sent(),
            report.lost(),
            report.reordered(),
            report.duplicated(),
            report.longest_gap_ms(),
            report.tcp_intact(),
            report.guest.lost_runs,
            report.outside.lost_runs,
        ),
    })
}

/// The lab's function computes no checksums, since nothing behind it on the wire would.
fn options(context: &Context, name: &str) -> GuestOptions {
    let mut options = GuestOptions::new(context).named(name);
    options.offloads = false;
    options
}

/// What the card is on: a plugin's name, or `emulated`.
fn seat(guest: &Guest) -> Result<String> {
    let status = guest.net_status()?;
    let name = match status["mode"].as_str() {
        Some("vf") => status["plugin"]["name"].as_str(),
        _ => Some("emulated"),
    };
    Ok(name.context("a VF without a plugin")?.to_owned())
}

/// The second host gets the virtio function instead of its card's VFs.
fn serve_virtio_function() -> Result<()> {
    pool::kill_daemon_on(Host::Second)?;
    Host::up_with_virtio_function()
}

/// The second host gets its card's VFs back.
fn serve_vfs() -> Result<()> {
    pool::kill_daemon_on(Host::Second)?;
    Host::up()
}
