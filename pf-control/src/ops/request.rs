//! What can be asked of the daemon.

use super::{MacAddr, PciAddress};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The handle of a lease.
///
/// It is made from the VF's address, so that a VMM's handle stays good when the daemon restarts.
/// It is no secret: each use is checked against the process that holds the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(transparent)]
#[cfg_attr(feature = "daemon", schema(value_type = String, example = "0000:01:10.0"))]
pub struct LeaseId(pub PciAddress);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What kind of device a VM asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DeviceClass {
    /// An Ethernet interface.
    Net,
    /// A cryptographic accelerator.
    Crypto,
}

/// A request for a VF by what it must be able to do, never by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct AcquireRequest {
    /// The VM's name, for people; 1 to [`limits::NAME`](super::limits::NAME) bytes.
    pub vm: String,
    /// The device's name within the VM, as `net0`; likewise.
    pub device: String,
    /// The wanted class.
    pub class: DeviceClass,
    /// The MTU, in bytes, that the VF must carry; at most the uplink's.
    pub mtu: u16,
    /// Queue pairs that the VF must offer, 1 to [`limits::QUEUES`](super::limits::QUEUES).
    pub queues: u16,
    /// The name of a profile of the host's operator that says what else it must be able to do.
    #[serde(default)]
    pub profile: Option<String>,
    /// Where none is free: wait for one in the queue, which goes by order of arrival. The answer is then
    /// [`OpError::Queued`](super::OpError::Queued); whoever waits asks again when the inventory tells
    /// of a free VF, and once a minute at least, lest it be forgotten.
    #[serde(default)]
    pub wait: bool,
}

/// One descriptor ring in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct Ring {
    /// Guest-physical address of the first descriptor.
    pub address: u64,
    /// Length in bytes.
    pub length: u32,
}

/// The rings that a VF will run on, in queue order. A VMM that leaves the rings to the guest
/// names none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct Rings {
    /// Transmit rings.
    pub tx: Vec<Ring>,
    /// Receive rings.
    pub rx: Vec<Ring>,
}

/// VLAN ids from `first` to `last`, both included, each 1 to 4094.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct VlanRange {
    /// Lowest id.
    pub first: u16,
    /// Highest id.
    pub last: u16,
}

/// Which frames beside those for its own address a VF receives. Promiscuous mode is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct RxMode {
    /// Broadcast frames.
    pub broadcast: bool,
    /// Every multicast frame, whatever the filters say.
    pub all_multicast: bool,
}

/// Which of a VF's frames a mirror copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum MirrorDirection {
    /// What the VF sends.
    Transmit,
    /// What the VF receives.
    Receive,
    /// Both.
    Both,
}

/// What a VMM says when it asks for the open IOMMU group of its VF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OpenRequest {
    /// Guest RAM that the VF is to reach, in bytes: as much may then be locked.
    pub memory: u64,
}

/// One operation with its arguments, as it goes over the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// Whether a VF of this class could be given, and which ops its vendor module serves.
    IsSupported {
        /// The class asked for.
        class: DeviceClass,
    },
    /// Take a VF out of the pool and put it under its placeholder address.
    Acquire(AcquireRequest),
    /// Ready the VF for the given rings.
    Init {
        /// The VF.
        lease: LeaseId,
        /// Its rings.
        rings: Rings,
    },
    /// Move `mac` onto the VF and the switch's entry for it to the uplink. The reply comes when
    /// the kernel has acknowledged both.
    Activate {
        /// The VF.
        lease: LeaseId,
        /// The VM's address.
        mac: MacAddr,
        /// The switch port of the VM's emulated path: the tap's name.
        port: String,
    },
    /// Give the address and the switch's entry back to the emulated path.
    Quiesce {
        /// The VF.
        lease: LeaseId,
    },
    /// Save the VF's opaque device state.
    SaveState {
        /// The VF.
        lease: LeaseId,
    },
    /// Give the VF back, from whatever state; the caller has closed it. Legal at any time.
    Release {
        /// The VF.
        lease: LeaseId,
    },
    /// Describe the VF and its lease.
    GetInfo {
        /// The VF.
        lease: LeaseId,
    },
    /// Set the receive-side-scaling indirection table.
    SetRssTable {
        /// The VF.
        lease: LeaseId,
        /// Queue index per hash bucket.
        table: Vec<u8>,
        /// Toeplitz key.
        key: Vec<u8>,
    },
    /// Read the counters of a queue.
    QueueStats {
        /// The VF.
        lease: LeaseId,
        /// Queue index.
        queue: u16,
    },
    /// Read the state of a queue.
    QueueStatus {
        /// The VF.
        lease: LeaseId,
        /// Queue index.
        queue: u16,
    },
    /// Change the address of an active VF.
    SetMac {
        /// The VF.
        lease: LeaseId,
        /// The new address.
        mac: MacAddr,
    },
    /// Replace the multicast filters.
    SetMulticast {
        /// The VF.
        lease: LeaseId,
        /// At most [`limits::MULTICAST_FILTERS`](super::limits::MULTICAST_FILTERS) addresses.
        addresses: Vec<MacAddr>,
    },
    /// Set the receive mode.
    SetRxMode {
        /// The VF.
        lease: LeaseId,
        /// The mode.
        mode: RxMode,
    },
    /// Accept tagged frames of these VLANs.
    AddVlanRange {
        /// The VF.
        lease: LeaseId,
        /// The ids.
        range: VlanRange,
    },
    /// No longer accept tagged frames of these VLANs.
    DelVlanRange {
        /// The VF.
        lease: LeaseId,
        /// The ids.
        range: VlanRange,
    },
    /// Tag everything that the VF sends, and strip the tag from what it receives.
    SetDefaultVlan {
        /// The VF.
        lease: LeaseId,
        /// VLAN id, 0 for none.
        vlan: u16,
        /// Priority, 0 to 7.
        priority: u8,
    },
    /// Drop frames whose source address is not the VF's.
    SetAntiSpoof {
        /// The VF.
        lease: LeaseId,
        /// On or off.
        enabled: bool,
    },
    /// Bound the rate of the VF's interrupts.
    SetInterruptModeration {
        /// The VF.
        lease: LeaseId,
        /// Least time between two interrupts of a vector, in microseconds; 0 for none.
        interval_us: u32,
    },
    /// Set the largest frame that the VF accepts.
    SetMtu {
        /// The VF.
        lease: LeaseId,
        /// MTU in bytes.
        mtu: u16,
    },
    /// Have the PF receive frames for `mac`.
    AddPfMacFilter {
        /// The PF's network interface.
        pf: String,
        /// The address.
        mac: MacAddr,
    },
    /// The opposite of [`Request::AddPfMacFilter`].
    DelPfMacFilter {
        /// The PF's network interface.
        pf: String,
        /// The address.
        mac: MacAddr,
    },
    /// Copy a VF's frames to the PF.
    Mirror {
        /// The VF.
        lease: LeaseId,
        /// Which frames, or `None` to stop.
        direction: Option<MirrorDirection>,
    },
}

/// The code of an operation: [`Request`] without arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each is described at the request of the same name")]
pub enum Op {
    IsSupported,
    Acquire,
    Init,
    Activate,
    Quiesce,
    SaveState,
    Release,
    GetInfo,
    SetRssTable,
    QueueStats,
    QueueStatus,
    SetMac,
    SetMulticast,
    SetRxMode,
    AddVlanRange,
    DelVlanRange,
    SetDefaultVlan,
    SetAntiSpoof,
    SetInterruptModeration,
    SetMtu,
    AddPfMacFilter,
    DelPfMacFilter,
    Mirror,
}

impl Op {
    /// All of the table, in its order.
    pub const ALL: [Self; 23] = [
        Self::IsSupported,
        Self::Acquire,
        Self::Init,
        Self::Activate,
        Self::Quiesce,
        Self::SaveState,
        Self::Release,
        Self::GetInfo,
        Self::SetRssTable,
        Self::QueueStats,
        Self::QueueStatus,
        Self::SetMac,
        Self::SetMulticast,
        Self::SetRxMode,
        Self::AddVlanRange,
        Self::DelVlanRange,
        Self::SetDefaultVlan,
        Self::SetAntiSpoof,
        Self::SetInterruptModeration,
        Self::SetMtu,
        Self::AddPfMacFilter,
        Self::DelPfMacFilter,
        Self::Mirror,
    ];

    /// The name used on the wire and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IsSupported => "is-supported",
            Self::Acquire => "acquire",
            Self::Init => "init",
            Self::Activate => "activate",
            Self::Quiesce => "quiesce",
            Self::SaveState => "save-state",
            Self::Release => "release",
            Self::GetInfo => "get-info",
            Self::SetRssTable => "set-rss-table",
            Self::QueueStats => "queue-stats",
            Self::QueueStatus => "queue-status",
            Self::SetMac => "set-mac",
            Self::SetMulticast => "set-multicast",
            Self::SetRxMode => "set-rx-mode",
            Self::AddVlanRange => "add-vlan-range",
            Self::DelVlanRange => "del-vlan-range",
            Self::SetDefaultVlan => "set-default-vlan",
            Self::SetAntiSpoof => "set-anti-spoof",
            Self::SetInterruptModeration => "set-interrupt-moderation",
            Self::SetMtu => "set-mtu",
            Self::AddPfMacFilter => "add-pf-mac-filter",
            Self::DelPfMacFilter => "del-pf-mac-filter",
            Self::Mirror => "mirror",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Request {
    /// The operation's code.
    pub fn op(&self) -> Op {
        match self {
            Self::IsSupported { .. } => Op::IsSupported,
            Self::Acquire(_) => Op::Acquire,
            Self::Init { .. } => Op::Init,
            Self::Activate { .. } => Op::Activate,
            Self::Quiesce { .. } => Op::Quiesce,
            Self::SaveState { .. } => Op::SaveState,
            Self::Release { .. } => Op::Release,
            Self::GetInfo { .. } => Op::GetInfo,
            Self::SetRssTable { .. } => Op::SetRssTable,
            Self::QueueStats { .. } => Op::QueueStats,
            Self::QueueStatus { .. } => Op::QueueStatus,
            Self::SetMac { .. } => Op::SetMac,
            Self::SetMulticast { .. } => Op::SetMulticast,
            Self::SetRxMode { .. } => Op::SetRxMode,
            Self::AddVlanRange { .. } => Op::AddVlanRange,
            Self::DelVlanRange { .. } => Op::DelVlanRange,
            Self::SetDefaultVlan { .. } => Op::SetDefaultVlan,
            Self::SetAntiSpoof { .. } => Op::SetAntiSpoof,
            Self::SetInterruptModeration { .. } => Op::SetInterruptModeration,
            Self::SetMtu { .. } => Op::SetMtu,
            Self::AddPfMacFilter { .. } => Op::AddPfMacFilter,
            Self::DelPfMacFilter { .. } => Op::DelPfMacFilter,
            Self::Mirror { .. } => Op::Mirror,
        }
    }

    /// The lease that the operation is about, if it is about one.
    pub fn lease(&self) -> Option<LeaseId> {
        match self {
            Self::IsSupported { .. }
            | Self::Acquire(_)
            | Self::AddPfMacFilter { .. }
            | Self::DelPfMacFilter { .. } => None,
            Self::Init { lease, .. }
            | Self::Activate { lease, .. }
            | Self::Quiesce { lease }
            | Self::SaveState { lease }
            | Self::Release { lease }
            | Self::GetInfo { lease }
            | Self::SetRssTable { lease, .. }
            | Self::QueueStats { lease, .. }
            | Self::QueueStatus { lease, .. }
            | Self::SetMac { lease, .. }
            | Self::SetMulticast { lease, .. }
            | Self::SetRxMode { lease, .. }
            | Self::AddVlanRange { lease, .. }
            | Self::DelVlanRange { lease, .. }
            | Self::SetDefaultVlan { lease, .. }
            | Self::SetAntiSpoof { lease, .. }
            | Self::SetInterruptModeration { lease, .. }
            | Self::SetMtu { lease, .. }
            | Self::Mirror { lease, .. } => Some(*lease),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_names_are_the_table_s_names() {
        for op in Op::ALL {
            assert_eq!(serde_json::to_value(op).unwrap(), op.name());
        }
    }

    #[test]
    fn request_carries_its_op_name() {
        let lease = LeaseId("0000:01:10.0".parse().unwrap());
        let value = serde_json::to_value(Request::Quiesce { lease }).unwrap();
        assert_eq!(value, serde_json::json!({"op": "quiesce", "lease": "0000:01:10.0"}));
        let back: Request = serde_json::from_value(value).unwrap();
        assert_eq!((back.op(), back.lease()), (Op::Quiesce, Some(lease)));
    }
}
