//! QEMU's own live migration of a guest from one host to the other, with what a management program
//! would do beside it.

use super::super::{Context, guest};
use super::{Card, PeerGuest, RUN};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a migration may take.
const LIMIT: Duration = Duration::from_secs(120);
/// No limit on what is sent per second, as with our VMM's default: 10 GB.
const BANDWIDTH: u64 = 10_000_000_000;

/// What QEMU's move was like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerMove {
    /// How long nobody ran the VM: from the event that it is stopped to the event that it goes on.
    pub(crate) stopped_ms: f64,
    /// What QEMU says of that.
    pub(crate) reported_ms: f64,
    /// From the command to its completion.
    pub(crate) total_ms: f64,
}

impl PeerGuest {
    /// Moves the guest to the other host and waits until its card is there what it was here.
    pub(crate) fn move_on(mut self, context: &Context) -> Result<(Self, PeerMove)> {
        let stream = Path::new(RUN).join(format!("peer-{:?}.migration", self.host));
        let uri = format!("unix:{}", stream.display());
        let mut next = Self::spawn(context, self.card, self.host.other(), Some(&uri))?;
        // Answers once the machine is made and waits.
        next.qmp.run("query-status", &json!({}))?;
        let began = Instant::now();
        self.qmp.run("migrate-set-parameters", &json!({ "max-bandwidth": BANDWIDTH }))?;
        self.qmp.run("migrate", &json!({ "uri": uri }))?;
        if self.card == Card::Failover {
            // QEMU has the guest give the VF up first; what comes for it then goes to the tap.
            self.wait_while(&["setup", "wait-unplug"])?;
            self.host.park_vf()?;
        }
        let stopped = self.qmp.wait_for("STOP", LIMIT)?;
        let resumed = next.qmp.wait_for("RESUME", LIMIT)?;
        if self.card == Card::Failover {
            next.host.give_vf(&guest::mac(self.card.number()))?;
        }
        let status = self.wait_while(&["active", "device", "pre-switchover"])?;
        let total_ms = began.elapsed().as_secs_f64() * 1e3;
        ensure!(status["status"] == "completed", "QEMU's migration failed: {status}");
        let reported_ms = status["downtime"].as_f64().context("QEMU says no downtime")?;
        if self.card == Card::Failover {
            next.expect_primary()?;
        }
        Ok((next, PeerMove { stopped_ms: (resumed - stopped) * 1e3, reported_ms, total_ms }))
    }

    /// Waits while the migration is in one of these states; answers the next one's particulars.
    fn wait_while(&mut self, states: &[&str]) -> Result<serde_json::Value> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let status = self.qmp.run("query-migrate", &json!({}))?;
            let now = status["status"].as_str().unwrap_or_default();
            if !now.is_empty() && !states.contains(&now) {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "QEMU's migration is still {now}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the guest has its VF and a link on it.
    pub(super) fn expect_primary(&self) -> Result<()> {
        let script = "n=0; while [ $n -lt 200 ]; do for i in /sys/class/net/*; do \
                      case $(readlink $i/device/driver) in */igbvf) \
                      [ \"$(cat $i/carrier 2>/dev/null)\" = 1 ] && exit 0;; esac; done; \
                      sleep 0.1; n=$((n+1)); done; ip link; exit 1";
        match self.run(script, Duration::from_secs(60)) {
            Ok(_) => Ok(()),
            Err(error) => bail!("the guest has no VF: {error:#}"),
        }
    }
}
