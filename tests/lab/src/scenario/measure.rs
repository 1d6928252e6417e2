//! Flat-out measurements of one data path: frames per second, bits per second, and what each
//! frame costs in exits.

use super::guest::Guest;
use super::outside::{self, ADDRESS, Program};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// Seconds of each measurement.
const SECONDS: u32 = 2;

/// One direction, flat out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Direction {
    /// Frames that arrived, per second, at 64 bytes on the wire.
    pub frames_per_s: f64,
    /// TCP payload, in gigabits per second.
    pub gbit_per_s: f64,
    /// KVM exits of all vCPUs per frame that the guest sent or received.
    pub exits_per_frame: f64,
    /// The part of them that went to userspace.
    pub userspace_exits_per_frame: f64,
}

/// Both directions of one path. The flat figures are over both together.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PathFigures {
    pub frames_per_s: f64,
    pub gbit_per_s: f64,
    pub exits_per_frame: f64,
    pub userspace_exits_per_frame: f64,
    /// Guest to outside.
    pub send: Direction,
    /// Outside to guest.
    pub receive: Direction,
}

#[derive(Clone, Copy)]
struct Exits {
    all: f64,
    userspace: f64,
}

impl Exits {
    fn read(guest: &Guest) -> Result<Self> {
        let status = guest.status()?;
        let count = |name: &str| {
            status["exits"][name].as_f64().with_context(|| format!("no exits.{name} in {status}"))
        };
        Ok(Self { all: count("kvm")?, userspace: count("userspace")? })
    }

    fn per_frame_since(self, earlier: Self, frames: f64) -> (f64, f64) {
        let frames = frames.max(1.0);
        ((self.all - earlier.all) / frames, (self.userspace - earlier.userspace) / frames)
    }
}

/// Measures the path that the NIC is on now.
pub(crate) fn path(guest: &Guest) -> Result<PathFigures> {
    let send = send(guest)?;
    let receive = receive(guest)?;
    let mean = |pick: fn(&Direction) -> f64| (pick(&send) + pick(&receive)) / 2.0;
    // Per frame: weighted by how many frames each direction carried in its equal time.
    let weighted = |pick: fn(&Direction) -> f64| {
        let frames = send.frames_per_s + receive.frames_per_s;
        (pick(&send) * send.frames_per_s + pick(&receive) * receive.frames_per_s) / frames.max(1.0)
    };
    Ok(PathFigures {
        frames_per_s: mean(|direction| direction.frames_per_s),
        gbit_per_s: mean(|direction| direction.gbit_per_s),
        exits_per_frame: weighted(|direction| direction.exits_per_frame),
        userspace_exits_per_frame: weighted(|direction| direction.userspace_exits_per_frame),
        send,
        receive,
    })
}

fn send(guest: &Guest) -> Result<Direction> {
    let sink = Program::start(&["stream", "sink", "--bind", &format!("{ADDRESS}:7002")])?;
    // The command returns at once and leaves the guest to the flood, so that the console's own
    // exits fall outside of what is counted.
    guest.exec(&format!(
        "rm -f /tmp/flood.json; (sleep 1; stream flood --peer {ADDRESS}:7002 --duration {} \
         >/tmp/flood.part; mv /tmp/flood.part /tmp/flood.json) </dev/null >/dev/null 2>&1 &",
        SECONDS + 2
    ))?;
    std::thread::sleep(Duration::from_secs(2));
    let (before, frames_before) = (Exits::read(guest)?, transmitted(guest)?);
    std::thread::sleep(Duration::from_secs(SECONDS.into()));
    let (after, frames_after) = (Exits::read(guest)?, transmitted(guest)?);
    let report: Value = serde_json::from_str(guest.exec(&wait_for("flood"))?.trim())?;
    let sunk = sink.stop()?;
    ensure!(report["frames"].as_u64().unwrap_or(0) > 0, "the guest sent nothing: {report}");
    let (exits_per_frame, userspace_exits_per_frame) =
        after.per_frame_since(before, frames_after - frames_before);
    Ok(Direction {
        frames_per_s: sunk["frames_per_s"].as_f64().unwrap_or(0.0),
        gbit_per_s: iperf(guest, false)?,
        exits_per_frame,
        userspace_exits_per_frame,
    })
}

fn receive(guest: &Guest) -> Result<Direction> {
    let address = guest.options.address();
    guest.exec(&format!(
        "rm -f /tmp/sink.json; (stream sink --bind {address}:7002 --duration {} \
         >/tmp/sink.part; mv /tmp/sink.part /tmp/sink.json) </dev/null >/dev/null 2>&1 &",
        SECONDS + 3
    ))?;
    let seconds = (SECONDS + 2).to_string();
    let flood = Program::start(&[
        "stream",
        "flood",
        "--peer",
        &format!("{address}:7002"),
        "--duration",
        &seconds,
    ])?;
    std::thread::sleep(Duration::from_secs(1));
    let (before, frames_before) = (Exits::read(guest)?, received(guest)?);
    std::thread::sleep(Duration::from_secs(SECONDS.into()));
    let (after, frames_after) = (Exits::read(guest)?, received(guest)?);
    flood.finish()?;
    let report: Value = serde_json::from_str(guest.exec(&wait_for("sink"))?.trim())?;
    let (exits_per_frame, userspace_exits_per_frame) =
        after.per_frame_since(before, frames_after - frames_before);
    Ok(Direction {
        frames_per_s: report["frames_per_s"].as_f64().unwrap_or(0.0),
        gbit_per_s: iperf(guest, true)?,
        exits_per_frame,
        userspace_exits_per_frame,
    })
}

/// Shell text that waits for a background program's JSON and prints it.
fn wait_for(name: &str) -> String {
    format!(
        "n=0; while [ ! -s /tmp/{name}.json ] && [ $n -lt 100 ]; do sleep 0.2; n=$((n+1)); done; \
         cat /tmp/{name}.json"
    )
}

/// One TCP stream by iperf3, in gigabits per second as the receiver saw it.
fn iperf(guest: &Guest, into_guest: bool) -> Result<f64> {
    let mut server = outside::command(&["iperf3", "-s", "-1"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .context("cannot start iperf3")?;
    std::thread::sleep(Duration::from_millis(400));
    let reverse = if into_guest { "-R" } else { "" };
    let result = guest.exec(&format!("iperf3 -c {ADDRESS} -t {SECONDS} -J {reverse}"));
    server.kill().ok();
    server.wait().ok();
    let report: Value = serde_json::from_str(&result?).context("iperf3 printed no JSON")?;
    report["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .map(|bits| bits / 1e9)
        .with_context(|| format!("iperf3 measured nothing: {}", report["error"]))
}

/// Frames that the guest sent, on either path. From outside the guest: no exit is spent on it.
fn transmitted(guest: &Guest) -> Result<f64> {
    counter(guest, "sent")
}

fn received(guest: &Guest) -> Result<f64> {
    counter(guest, "received")
}

/// A frame counter summed over the paths. While a VF is attached the VF's own counters are the
/// only witness, since its traffic does not pass the VMM.
fn counter(guest: &Guest, name: &str) -> Result<f64> {
    let status = guest.net_status()?;
    let of = |path: &str| status[path][name].as_f64();
    let on_vf = if status["vf_path"].is_null() { Some(0.0) } else { of("vf_path") };
    of("emulated")
        .zip(on_vf)
        .map(|(emulated, vf)| emulated + vf)
        .with_context(|| format!("no count of frames {name} in {status}"))
}
