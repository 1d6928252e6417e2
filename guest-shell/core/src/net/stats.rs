//! Counters of an interface. Plain numbers that only grow; frames are Ethernet frames, bytes are
//! frame bytes without FCS.

/// Counters of one path.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathStats {
    /// Frames delivered to the stack.
    pub rx_frames: u64,
    /// Bytes of these.
    pub rx_bytes: u64,
    /// Damaged frames, which the plugin gave back with length 0.
    pub rx_errors: u64,
    /// Frames sent (complete).
    pub tx_frames: u64,
    /// Bytes of these.
    pub tx_bytes: u64,
    /// Bursts handed to the plugin, each with at most one doorbell.
    pub tx_bursts: u64,
}

/// Counters of an interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The emulated path.
    pub emulated: PathStats,
    /// The VF paths, all since the start.
    pub vf: PathStats,
    /// Group-addressed frames dropped because the other path had delivered them.
    pub rx_group_duplicates: u64,
    /// Own frames that came back, dropped.
    pub rx_own_echoes: u64,
    /// Frames dropped because the interface was closed.
    pub rx_closed: u64,
    /// Times a receive buffer was wanted and not to be had.
    pub rx_no_buffer: u64,
    /// Frames given to the emulated path again after a VF was lost.
    pub tx_resubmitted: u64,
    /// Frames given up at stop.
    pub tx_given_up: u64,
    /// Times the stack was told to stop sending.
    pub tx_stops: u64,
    /// Times the network was told where the interface is.
    pub announcements: u64,
    /// Polls.
    pub polls: u64,
    /// Times the traffic moved to a VF.
    pub switches_to_vf: u64,
    /// Times the traffic moved back in good order.
    pub switches_back: u64,
    /// VFs lost without warning.
    pub revokes: u64,
    /// Plugins that broke a rule.
    pub plugin_faults: u64,
}
