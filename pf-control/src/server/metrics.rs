//! Counters and gauges for Prometheus.

use crate::lease::LeaseState;
use crate::ops::{DeviceClass, Op, OpError, VfEntry};
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;

/// The media type of the text: OpenMetrics, which Prometheus reads.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabels {
    op: &'static str,
    /// `ok`, or the error's name as the interface gives it.
    outcome: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OpLabels {
    op: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VfLabels {
    pf: String,
    class: &'static str,
    state: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PfLabels {
    pf: String,
}

/// What is counted, and what is looked up when somebody asks.
pub(super) struct Metrics {
    operations: Family<OperationLabels, Counter>,
    durations: Family<OpLabels, Histogram, fn() -> Histogram>,
    vfs: Family<VfLabels, Gauge>,
    maintenance: Family<PfLabels, Gauge>,
    waiting: Gauge,
    registry: Registry,
}

/// From 1 ms to some 4 s, the bound of an operation.
fn duration_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 13))
}

impl Default for Metrics {
    fn default() -> Self {
        let operations = Family::default();
        let durations = Family::new_with_constructor(duration_histogram as fn() -> Histogram);
        let (vfs, maintenance) = (Family::default(), Family::default());
        let mut registry = Registry::with_prefix("pf_control");
        let help = "Operations of the table, by what came of them";
        registry.register("operations", help, operations.clone());
        registry.register("operation_seconds", "How long operations took", durations.clone());
        registry.register("vfs", "VFs, by the state of their lease", vfs.clone());
        registry.register("maintenance", "1 while the PF is in maintenance", maintenance.clone());
        let waiting = Gauge::default();
        registry.register("waiting", "Devices that wait for a VF", waiting.clone());
        Self { operations, durations, vfs, maintenance, waiting, registry }
    }
}

impl Metrics {
    /// Counts an operation.
    pub(super) fn count(&self, op: Op, took: Duration, error: Option<&OpError>) {
        let outcome = error.map_or_else(|| "ok".to_owned(), name);
        let op = op.name();
        self.operations.get_or_create(&OperationLabels { op, outcome }).inc();
        self.durations.get_or_create(&OpLabels { op }).observe(took.as_secs_f64());
    }

    /// The text, with the VFs as they are.
    pub(super) fn render(&self, entries: &[VfEntry], waiting: usize) -> String {
        // What is not there any more is not shown any more.
        self.vfs.clear();
        self.maintenance.clear();
        for entry in entries {
            let class = match entry.class {
                DeviceClass::Net => "net",
                DeviceClass::Crypto => "crypto",
            };
            for state in LeaseState::ALL {
                let (pf, state_name) = (entry.pf.clone(), state.to_string());
                let gauge = self.vfs.get_or_create(&VfLabels { pf, class, state: state_name });
                gauge.inc_by(i64::from(entry.state == state));
            }
            let pf = entry.pf.clone();
            self.maintenance.get_or_create(&PfLabels { pf }).set(i64::from(entry.maintenance));
        }
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        text
    }
}

/// The error's name, as the interface gives it.
fn name(error: &OpError) -> String {
    let value = serde_json::to_value(error).unwrap_or_default();
    value["error"].as_str().unwrap_or("other").to_owned()
}
