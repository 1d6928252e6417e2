//! The two-way stream and the checked TCP transfer that go on while a scenario switches.

use super::measure::Subject;
use super::outside::{ADDRESS, Program};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// Frames per second each way: above the 1,000 that the main job asks for.
const RATE: &str = "1100";

/// One end's view of the stream, as `stream udp` prints it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct StreamReport {
    pub sent: u64,
    pub started_at: f64,
    pub received: u64,
    pub peer_sent: Option<u64>,
    pub lost: u64,
    pub lost_runs: Vec<(u64, u64)>,
    pub duplicated: u64,
    pub reordered: u64,
    /// The first of these: number, and how far behind.
    pub late: Vec<(u64, u64)>,
    pub longest_gap_ms: f64,
    pub longest_gap_at_s: f64,
    pub bin_ms: u64,
    pub timeline: Vec<u32>,
}

/// One end's view of the transfer, as `stream tcp` prints it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct TransferReport {
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub content_ok: bool,
    pub error: Option<String>,
}

impl TransferReport {
    fn broken(error: &anyhow::Error) -> Self {
        let error = Some(format!("{error:#}"));
        Self { sent_bytes: 0, received_bytes: 0, content_ok: false, error }
    }
}

/// What both ends saw.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TrafficReport {
    /// The guest's end: what came in.
    pub guest: StreamReport,
    /// The outside end: what went out.
    pub outside: StreamReport,
    /// The guest's end of the TCP transfer.
    pub guest_tcp: TransferReport,
    /// The outside end.
    pub outside_tcp: TransferReport,
}

impl TrafficReport {
    pub(crate) fn sent(&self) -> u64 {
        self.guest.sent + self.outside.sent
    }
    pub(crate) fn lost(&self) -> u64 {
        self.guest.lost + self.outside.lost
    }
    pub(crate) fn duplicated(&self) -> u64 {
        self.guest.duplicated + self.outside.duplicated
    }
    pub(crate) fn reordered(&self) -> u64 {
        self.guest.reordered + self.outside.reordered
    }
    pub(crate) fn longest_gap_ms(&self) -> f64 {
        self.guest.longest_gap_ms.max(self.outside.longest_gap_ms)
    }
    pub(crate) fn tcp_intact(&self) -> bool {
        self.guest_tcp.content_ok
            && self.outside_tcp.content_ok
            && self.guest_tcp.received_bytes == self.outside_tcp.sent_bytes
            && self.outside_tcp.received_bytes == self.guest_tcp.sent_bytes
            && self.guest_tcp.received_bytes > 0
            && self.outside_tcp.received_bytes > 0
    }

    /// Fails unless every frame and byte arrived once and in order.
    pub(crate) fn expect_clean(&self) -> Result<()> {
        ensure!(
            self.guest.peer_sent.is_some() && self.outside.peer_sent.is_some(),
            "an end of the stream never heard the other's end"
        );
        ensure!(
            self.lost() == 0 && self.duplicated() == 0 && self.reordered() == 0,
            "{}",
            self.particulars()
        );
        self.expect_tcp_intact()
    }

    /// What became of the stream, in one line: enough to see when and on which way it broke.
    pub(crate) fn particulars(&self) -> String {
        let end = |end: &StreamReport| {
            format!(
                "{} received, {} lost {:?}, {} duplicated, {} reordered {:?}, longest gap {} ms at {} s",
                end.received,
                end.lost,
                end.lost_runs,
                end.duplicated,
                end.reordered,
                end.late,
                end.longest_gap_ms,
                end.longest_gap_at_s
            )
        };
        format!(
            "stream: {} sent; into the guest: {}; out of it: {}",
            self.sent(),
            end(&self.guest),
            end(&self.outside)
        )
    }

    /// Fails unless the TCP transfer was intact.
    pub(crate) fn expect_tcp_intact(&self) -> Result<()> {
        ensure!(
            self.tcp_intact(),
            "TCP: guest {:?}, outside {:?}",
            self.guest_tcp,
            self.outside_tcp
        );
        Ok(())
    }
}

/// Traffic in progress.
pub(crate) struct Traffic {
    udp: Program,
    tcp: Program,
}

impl Traffic {
    /// Starts the stream and the transfer between the guest and the outside world.
    pub(crate) fn start(guest: &impl Subject) -> Result<Self> {
        let address = guest.address();
        guest.exec(&format!(
            "rm -f /tmp/udp.json /tmp/tcp.json; \
             (stream udp --bind {address}:7000 --peer {ADDRESS}:7000 --rate {RATE} --follow \
              >/tmp/udp.part 2>/tmp/udp.err; mv /tmp/udp.part /tmp/udp.json) </dev/null & \
             (stream tcp-serve --bind {address}:7001 --mbit 8 \
              >/tmp/tcp.part 2>/tmp/tcp.err; mv /tmp/tcp.part /tmp/tcp.json) </dev/null & sleep 0.3"
        ))?;
        let udp = Program::start(&[
            "stream",
            "udp",
            "--bind",
            &format!("{ADDRESS}:7000"),
            "--peer",
            &format!("{address}:7000"),
            "--rate",
            RATE,
        ])?;
        let tcp = Program::start(&[
            "stream",
            "tcp",
            "--peer",
            &format!("{address}:7001"),
            "--mbit",
            "8",
        ])?;
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self { udp, tcp })
    }

    /// Ends the traffic and returns what both ends saw; the guest may have moved to `guest`.
    pub(crate) fn stop(self, guest: &impl Subject) -> Result<TrafficReport> {
        let outside_tcp = self.tcp.stop()?;
        let outside = self.udp.stop()?;
        let collect = |name: &str| -> Result<Value> {
            let text = guest
                .exec(&format!(
                    "n=0; while [ ! -s /tmp/{name}.json ] && [ $n -lt 100 ]; do sleep 0.2; \
                     n=$((n+1)); done; cat /tmp/{name}.err >&2; cat /tmp/{name}.json"
                ))
                .with_context(|| format!("the guest's end of the {name} traffic"))?;
            Ok(serde_json::from_str(text.trim())?)
        };
        Ok(TrafficReport {
            guest: serde_json::from_value(collect("udp")?)?,
            outside: serde_json::from_value(outside)?,
            // A transfer that does not end with its peer is one that broke.
            guest_tcp: match collect("tcp") {
                Ok(report) => serde_json::from_value(report)?,
                Err(error) => TransferReport::broken(&error),
            },
            outside_tcp: serde_json::from_value(outside_tcp)?,
        })
    }
}
