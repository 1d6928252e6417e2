//! How an accelerated device stands, for operators. A snapshot; changes nothing.

use serde::Serialize;

use super::core::State;
use super::history::{StepSummary, SwitchRecord};
use super::switch::Phase;

/// Which path carries a device's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The emulated one.
    Emulated,
    /// A VF.
    Vf,
    /// It is moving.
    Switching,
}

/// A snapshot of one device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Which path carries the traffic.
    pub mode: Mode,
    /// State that the guest sees.
    pub state: &'static str,
    /// The host's phase.
    pub phase: &'static str,
    /// A shell driver is registered, so that the device can be attached.
    pub shell: bool,
    /// Offers so far.
    pub generation: u32,
    /// Times that the guest lost a VF by force, or had it reset.
    pub resets: u32,
    /// PCI address of the VF that is held.
    pub vf: Option<String>,
    /// Name of the plugin that is used.
    pub plugin: Option<String>,
    /// Its version.
    pub plugin_version: Option<String>,
    /// A VF waits for its daemon to take it back.
    pub release_pending: bool,
    /// Why the last switch did not end where it should.
    pub last_failure: Option<String>,
    /// Attaches, detaches, and switches that failed or were forced.
    pub switches: SwitchCounts,
    /// Median and worst of every step.
    pub steps: Vec<StepSummary>,
    /// The last switches, oldest first.
    pub history: Vec<SwitchRecord>,
}

/// How many switches there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SwitchCounts {
    /// To a VF.
    pub attached: u64,
    /// Back, as it should be.
    pub detached: u64,
    /// Failed, or back by force.
    pub failed: u64,
}

impl Status {
    pub(super) fn of(state: &State) -> Self {
        let phase = state.switch.phase();
        let (attached, detached, failed) = state.history.counts();
        let (plugin, plugin_version) = state.plugin.clone().unzip();
        Self {
            mode: match phase {
                Phase::Active => Mode::Vf,
                Phase::Unregistered
                | Phase::Emulated
                | Phase::Preparing
                | Phase::Failed { .. }
                | Phase::Withdrawing { .. } => Mode::Emulated,
                _ => Mode::Switching,
            },
            state: phase.view().state.name(),
            phase: phase.name(),
            shell: phase.registered(),
            generation: state.switch.generation(),
            resets: state.switch.resets(),
            vf: state.vf.map(|vf| vf.to_string()),
            plugin,
            plugin_version,
            release_pending: state.release_pending,
            last_failure: state.last_failure.as_ref().map(ToString::to_string),
            switches: SwitchCounts { attached, detached, failed },
            steps: state.history.summary(),
            history: state.history.records().cloned().collect(),
        }
    }
}
