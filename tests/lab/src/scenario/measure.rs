//! Flat-out measurements of one data path: frames per second, bits per second, and what each
//! frame costs in exits. The same for every VMM, so that figures can be compared.

use super::outside::{self, ADDRESS, Program};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Seconds of each measurement.
const SECONDS: u32 = 2;

/// A guest that is measured.
pub(crate) trait Subject {
    /// Its address.
    fn address(&self) -> String;
    /// Runs a shell command in it and returns its output.
    fn exec(&self, script: &str) -> Result<String>;
    /// Exits of all its vCPUs until now.
    fn exits(&self) -> Result<Exits>;
}

/// One direction, flat out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Direction {
    /// Frames that arrived, per second, at 64 bytes on the wire.
    pub frames_per_s: f64,
    /// TCP payload, in gigabits per second.
    pub gbit_per_s: f64,
    /// KVM exits of all vCPUs per frame that the guest sent or received.
    pub exits_per_frame: f64,
    /// The part of them that went to userspace; `None` where the VMM does not count it.
    pub userspace_exits_per_frame: Option<f64>,
}

/// Both directions of one path. The flat figures are over both together.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PathFigures {
    pub frames_per_s: f64,
    pub gbit_per_s: f64,
    pub exits_per_frame: f64,
    pub userspace_exits_per_frame: Option<f64>,
    /// Guest to outside.
    pub send: Direction,
    /// Outside to guest.
    pub receive: Direction,
}

/// Exits of all vCPUs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exits {
    /// All that KVM took.
    pub(crate) all: f64,
    /// Those that went to the VMM; `None` where the VMM does not count them.
    pub(crate) userspace: Option<f64>,
}

/// What one direction costs while it is flat out.
struct Cost {
    exits_per_frame: f64,
    userspace_exits_per_frame: Option<f64>,
}

/// Measures the path that the NIC is on now.
pub(crate) fn path(guest: &impl Subject) -> Result<PathFigures> {
    let send = send(guest).context("sending")?;
    let receive = receive(guest).context("receiving")?;
    let mean = |pick: fn(&Direction) -> f64| (pick(&send) + pick(&receive)) / 2.0;
    // Per frame: weighted by how many frames each direction carried in its equal time.
    let weighted = |pick: fn(&Direction) -> Option<f64>| {
        let frames = send.frames_per_s + receive.frames_per_s;
        let (sent, received) = (pick(&send)?, pick(&receive)?);
        Some((sent * send.frames_per_s + received * receive.frames_per_s) / frames.max(1.0))
    };
    Ok(PathFigures {
        frames_per_s: mean(|direction| direction.frames_per_s),
        gbit_per_s: mean(|direction| direction.gbit_per_s),
        exits_per_frame: weighted(|direction| Some(direction.exits_per_frame)).unwrap_or(0.0),
        userspace_exits_per_frame: weighted(|direction| direction.userspace_exits_per_frame),
        send,
        receive,
    })
}

fn send(guest: &impl Subject) -> Result<Direction> {
    let sink = Program::start(&["stream", "sink", "--bind", &format!("{ADDRESS}:7002")])?;
    // The command returns at once and leaves the guest to the flood, so that the console's own
    // exits fall outside of what is counted.
    guest.exec(&in_background(
        "flood",
        &format!("sleep 1; stream flood --peer {ADDRESS}:7002 --duration {}", SECONDS + 2),
        "tx",
    ))?;
    let exits = window(guest)?;
    let report: Value = serde_json::from_str(guest.exec(&wait_for("flood"))?.trim())?;
    let sunk = sink.stop()?;
    ensure!(report["frames"].as_u64().unwrap_or(0) > 0, "the guest sent nothing: {report}");
    let cost = Cost::new(exits, frames_per_second(&guest.exec(WINDOW)?)?);
    Ok(Direction {
        frames_per_s: sunk["frames_per_s"].as_f64().unwrap_or(0.0),
        gbit_per_s: iperf(guest, false)?,
        exits_per_frame: cost.exits_per_frame,
        userspace_exits_per_frame: cost.userspace_exits_per_frame,
    })
}

fn receive(guest: &impl Subject) -> Result<Direction> {
    let address = guest.address();
    guest.exec(&in_background(
        "sink",
        &format!("stream sink --bind {address}:7002 --duration {}", SECONDS + 4),
        "rx",
    ))?;
    let seconds = (SECONDS + 3).to_string();
    let flood = Program::start(&[
        "stream",
        "flood",
        "--peer",
        &format!("{address}:7002"),
        "--duration",
        &seconds,
    ])?;
    let exits = window(guest)?;
    flood.finish()?;
    let report: Value = serde_json::from_str(guest.exec(&wait_for("sink"))?.trim())?;
    let cost = Cost::new(exits, frames_per_second(&guest.exec(WINDOW)?)?);
    Ok(Direction {
        frames_per_s: report["frames_per_s"].as_f64().unwrap_or(0.0),
        gbit_per_s: iperf(guest, true)?,
        exits_per_frame: cost.exits_per_frame,
        userspace_exits_per_frame: cost.userspace_exits_per_frame,
    })
}

/// Shell text that leaves `command` running, with its JSON in a file in the end, and beside it
/// counts the frames that the guest's card carries in the [`window`]: no exit is spent on it.
fn in_background(name: &str, command: &str, direction: &str) -> String {
    format!(
        "rm -f /tmp/{name}.json; \
         ({command} >/tmp/{name}.part; mv /tmp/{name}.part /tmp/{name}.json) \
         </dev/null >/dev/null 2>&1 & \
         (frames() {{ read up idle </proc/uptime; \
         read count </sys/class/net/eth0/statistics/{direction}_packets; echo $up $count; }}; \
         sleep 2; frames; sleep {SECONDS}; frames) </dev/null >/tmp/window 2>&1 &"
    )
}

/// Shell text that prints the guest's counts at both ends of the [`window`].
const WINDOW: &str = "cat /tmp/window";

/// Exits per second in the window in which the guest counts its frames.
fn window(guest: &impl Subject) -> Result<Exits> {
    std::thread::sleep(Duration::from_secs(2));
    let (before, start) = (guest.exits()?, Instant::now());
    std::thread::sleep(Duration::from_secs(SECONDS.into()));
    let (after, seconds) = (guest.exits()?, start.elapsed().as_secs_f64());
    Ok(Exits {
        all: (after.all - before.all) / seconds,
        userspace: after
            .userspace
            .zip(before.userspace)
            .map(|(after, before)| (after - before) / seconds),
    })
}

/// Frames per second in the window, from the guest's two counts: uptime in seconds and frames.
fn frames_per_second(counts: &str) -> Result<f64> {
    let numbers: Vec<f64> =
        counts.split_whitespace().map(str::parse).collect::<Result<_, _>>().unwrap_or_default();
    let [start, before, end, after] = numbers[..] else {
        anyhow::bail!("the guest counted no frames: {counts}");
    };
    ensure!(end > start && after > before, "nothing passed while it was counted: {counts}");
    Ok((after - before) / (end - start))
}

impl Cost {
    fn new(exits: Exits, frames: f64) -> Self {
        Self {
            exits_per_frame: exits.all / frames,
            userspace_exits_per_frame: exits.userspace.map(|exits| exits / frames),
        }
    }
}

/// Shell text that waits for a background program's JSON and prints it.
fn wait_for(name: &str) -> String {
    format!(
        "n=0; while [ ! -s /tmp/{name}.json ] && [ $n -lt 100 ]; do sleep 0.2; n=$((n+1)); done; \
         cat /tmp/{name}.json"
    )
}

/// One TCP stream by iperf3, in gigabits per second as the receiver saw it.
fn iperf(guest: &impl Subject, into_guest: bool) -> Result<f64> {
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

/// The median: the upper one of an even number of samples, 0 of none.
pub(crate) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_counts_give_a_rate() {
        assert_eq!(frames_per_second("10.5 100\n12.5 40100\n").unwrap(), 20_000.0);
        for bad in ["", "1 2", "1 2\n1 3", "1 2\n3 2", "sh: no such file", "1 2\n3 x"] {
            assert!(frames_per_second(bad).is_err(), "{bad}");
        }
    }
}
