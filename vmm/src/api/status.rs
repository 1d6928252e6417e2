//! What the interface says about a VM and its devices.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::virtio::PathCounters;

/// Whether the VM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// Its vCPUs run guest code.
    Running,
    /// Its vCPUs are held.
    Paused,
    /// It has ended.
    Stopped,
    /// It is expected from another host.
    Incoming,
}

/// Exits of all vCPUs since the VM was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExitCounts {
    /// All exits that KVM took; absent when the kernel does not count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kvm: Option<u64>,
    /// Those of them that reached the VMM.
    pub userspace: u64,
    /// Of these: port accesses.
    pub io: u64,
    /// Of these: accesses to device memory.
    pub mmio: u64,
    /// Of these: everything else.
    pub other: u64,
}

/// A VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VmStatus {
    /// Whether it runs.
    pub state: VmState,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Guest RAM in MiB.
    pub memory_mib: u64,
    /// Milliseconds since it was started.
    pub uptime_ms: u64,
    /// Exits of its vCPUs.
    pub exits: ExitCounts,
    /// Its devices with a replaceable data path.
    pub devices: Vec<DeviceStatus>,
}

/// Which data path carries a device's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The VMM.
    Emulated,
    /// A virtual function of a device.
    Vf,
}

/// The plugin that drives a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PluginInfo {
    /// Name in the image's header.
    pub name: String,
    /// Version in the image's header.
    pub version: String,
}

/// Traffic of one data path. For a network card a unit is a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PathStatus {
    /// Units that reached the guest.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Units for the guest that were dropped.
    pub received_dropped: u64,
    /// Units that the guest sent.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Units of the guest that were dropped.
    pub sent_dropped: u64,
}

impl From<PathCounters> for PathStatus {
    fn from(counters: PathCounters) -> Self {
        Self {
            received: counters.received,
            received_bytes: counters.received_bytes,
            received_dropped: counters.received_dropped,
            sent: counters.sent,
            sent_bytes: counters.sent_bytes,
            sent_dropped: counters.sent_dropped,
        }
    }
}

/// A step of a switch and how long it took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepTime {
    /// An action of the host (`pf-activate`) or a half of the guest (`guest-load`).
    pub name: String,
    /// Milliseconds.
    pub ms: f64,
}

/// One switch of a device's data path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SwitchReport {
    /// `attach`, `detach`, or `revoke` for a detach that the guest did not help with.
    pub kind: String,
    /// When it began, in milliseconds since 1970.
    pub began_ms: u64,
    /// Milliseconds that all of it took.
    pub total_ms: f64,
    /// Its steps, in the order in which they ended.
    pub steps: Vec<StepTime>,
    /// Why it did not end where it should, if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Median and worst duration of a step over the recent switches that went well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepSummary {
    /// Kind of switch.
    pub kind: String,
    /// The step, or `total`.
    pub name: String,
    /// How often it was done.
    pub count: u64,
    /// Median in milliseconds.
    pub median_ms: f64,
    /// Longest in milliseconds.
    pub worst_ms: f64,
}

/// How many switches a device has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SwitchCounts {
    /// To a VF.
    pub attach: u64,
    /// Back from one.
    pub detach: u64,
    /// Failed or forced.
    pub failed: u64,
}

/// A device with a replaceable data path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceStatus {
    /// The name that users gave it.
    pub id: String,
    /// Device class: `net`, `crypto`.
    pub class: String,
    /// Which data path carries its traffic.
    pub mode: Mode,
    /// State of the switch, like `emulated`, `loading`, `active`.
    pub state: String,
    /// The plugin in the guest; none while the built-in one serves the emulated path.
    pub plugin: Option<PluginInfo>,
    /// PCI address of the VF.
    pub vf: Option<String>,
    /// It is to have a VF and has none: it gets one as soon as one is free.
    pub waits_for_vf: bool,
    /// The last switch.
    pub last_switch: Option<SwitchReport>,
    /// Durations of recent switches.
    pub steps: Vec<StepSummary>,
    /// How many switches there were.
    pub switches: SwitchCounts,
    /// Traffic of the emulated path.
    pub emulated: PathStatus,
    /// Traffic of VFs as far as the host can see it; absent when it cannot.
    pub vf_path: Option<PathStatus>,
    /// Accesses of the guest to the device that reached the VMM.
    pub exits: u64,
    /// Doorbells of the emulated path.
    pub kicks: u64,
    /// Interrupts of the emulated path.
    pub interrupts: u64,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

impl DeviceStatus {
    /// The status of an emulated device that never switched.
    pub fn emulated(id: &str, class: &str, counters: PathCounters) -> Self {
        Self {
            id: id.to_owned(),
            class: class.to_owned(),
            mode: Mode::Emulated,
            state: "emulated".to_owned(),
            plugin: None,
            vf: None,
            waits_for_vf: false,
            last_switch: None,
            steps: Vec::new(),
            switches: SwitchCounts::default(),
            emulated: counters.into(),
            vf_path: None,
            exits: 0,
            kicks: counters.kicks,
            interrupts: counters.interrupts,
            last_error: None,
        }
    }
}
