//! The 82576 VF's control: reset handshake, filters, events.

use super::Timing;
use super::mailbox::{Mailbox, Words};
use super::registers::{
    CTRL, CTRL_RST, MAILBOX_VECTOR, MSG_CTS, MSG_LPE, MSG_MULTICAST, MSG_NACK, MSG_PROMISC,
    MSG_RESET, MSG_VLAN, MULTICAST_HASHES, PFSTS, PROMISC_MULTICAST, QUEUES, RSTD, RSTI, RXDCTL,
    STATUS, STATUS_LU, TXDCTL, VFGORC, VFGOTC, VFGPRC, VFGPTC, VFMPRC, VLAN_ADD, VTEIMS,
};
use crate::ops::MacAddr;
use crate::vf_control::{
    ControlRegion, VfConfig, VfControl, VfControlError, VfEvent, VfIdentity, VfStats,
};
use std::collections::BTreeSet;
use std::time::Instant;

/// Bytes of a frame beside its payload: Ethernet header, VLAN tag, FCS.
const FRAME_OVERHEAD: u32 = 14 + 4 + 4;
/// MTUs that IPv4 needs at least, and that the device can carry (datasheet 8.10.5, RLPML: 9.5 KB).
const MTU_RANGE: std::ops::RangeInclusive<u16> = 68..=9216;

/// An 82576 VF, seen through its control registers.
pub struct IgbVf<R> {
    mailbox: Mailbox<R>,
    /// What the PF's driver was told and must be told to drop again.
    vlans: BTreeSet<u16>,
    /// The PF's driver was told to pass every multicast frame.
    all_multicast: bool,
    /// The last link state reported.
    link: bool,
    /// A PF reset was reported as begun and not yet as done.
    resetting: bool,
    /// The handshake has succeeded and nothing has undone it.
    ready: bool,
    /// Removal was reported; it is reported once.
    gone: bool,
}

impl<R: ControlRegion> IgbVf<R> {
    /// Takes the VF's BAR0. Nothing is read or written until [`VfControl::init`].
    pub fn new(region: R) -> Self {
        Self::with_timing(region, Timing::default())
    }

    pub(crate) fn with_timing(region: R, timing: Timing) -> Self {
        Self {
            mailbox: Mailbox::new(region, timing),
            vlans: BTreeSet::new(),
            all_multicast: false,
            link: false,
            resetting: false,
            ready: false,
            gone: false,
        }
    }

    /// Resets the VF and greets the PF.
    fn handshake(&mut self, deadline: Instant) -> Result<VfIdentity, VfControlError> {
        self.mailbox.wait_pf_ready(deadline)?;
        self.reset_function();
        self.mailbox.wait_pf_ready(deadline)?;
        self.mailbox.forget();
        let reply = self.mailbox.exchange("VF_RESET", &[MSG_RESET], deadline)?;
        // A NACK here only says that no address was assigned: the PF has enabled the VF.
        let mac = Some(MacAddr(address_in(&reply)))
            .filter(|mac| reply[0] & MSG_NACK == 0 && mac.is_station());
        Ok(VfIdentity { mac })
    }

    fn apply(&mut self, config: &VfConfig, deadline: Instant) -> Result<(), VfControlError> {
        let frame = u32::from(config.mtu) + FRAME_OVERHEAD;
        self.request("SET_LPE", &[MSG_LPE, frame], deadline)?;

        let groups: Vec<_> = config.multicast.iter().filter(|mac| mac.0 != [0xff; 6]).collect();
        let fits = groups.len() <= MULTICAST_HASHES;
        let message = multicast_message(if fits { &groups } else { &[] });
        self.request("SET_MULTICAST", &message, deadline)?;
        if self.all_multicast == fits {
            let promisc = if fits { 0 } else { PROMISC_MULTICAST };
            self.request("SET_PROMISC", &[MSG_PROMISC | promisc], deadline)?;
            self.all_multicast = !fits;
        }

        let wanted: BTreeSet<u16> = config.vlans.iter().copied().collect();
        for &vlan in wanted.difference(&self.vlans.clone()) {
            self.request("SET_VLAN", &[MSG_VLAN | VLAN_ADD, vlan.into()], deadline)?;
            self.vlans.insert(vlan);
        }
        for vlan in self.vlans.clone().difference(&wanted) {
            self.request("SET_VLAN", &[MSG_VLAN, u32::from(*vlan)], deadline)?;
            self.vlans.remove(vlan);
        }
        Ok(())
    }

    /// Sends a message that the PF must grant.
    fn request(
        &mut self,
        name: &'static str,
        message: &[u32],
        deadline: Instant,
    ) -> Result<(), VfControlError> {
        let reply = self.mailbox.exchange(name, message, deadline)?;
        if reply[0] & MSG_NACK == 0 {
            return Ok(());
        }
        Err(VfControlError::Refused { message: name })
    }

    /// Resets the VF's own function: queues and interrupts off, DMA stopped. The queues are switched
    /// off one by one as well: not every device's reset clears their registers, and a queue that
    /// stayed enabled would write to where its last user had its ring as soon as the PF enables the
    /// VF again.
    fn reset_function(&mut self) {
        self.ready = false;
        self.vlans.clear();
        self.all_multicast = false;
        let region = self.mailbox.region();
        for queue in 0..QUEUES {
            region.write32(RXDCTL + 0x100 * queue, 0);
            region.write32(TXDCTL + 0x100 * queue, 0);
        }
        region.write32(CTRL, region.read32(CTRL) | CTRL_RST);
    }

    /// Looks for a reset of the PF, or for its message that it has forgotten this VF.
    fn reset_event(&mut self) -> Result<Option<VfEvent>, VfControlError> {
        let flags = self.mailbox.flags()?;
        if flags & RSTI != 0 {
            let first = !self.resetting;
            self.resetting = true;
            self.ready = false;
            return Ok(first.then_some(VfEvent::ResetBegan));
        }
        self.mailbox.use_up(RSTD);
        if self.resetting {
            self.resetting = false;
            return Ok(Some(VfEvent::ResetDone));
        }
        let mut lost = self.ready && flags & RSTD != 0;
        if flags & PFSTS != 0 {
            self.mailbox.use_up(PFSTS);
            let deadline = Instant::now() + self.mailbox.timing().exchange;
            let message = self.mailbox.receive("a message of the PF", deadline)?;
            lost |= self.ready && message[0] & MSG_CTS == 0;
        }
        // Told in two steps like one that was seen going on: a driver that says it has forgotten
        // its VFs is about to reset the PF.
        if lost {
            self.resetting = true;
            self.ready = false;
            return Ok(Some(VfEvent::ResetBegan));
        }
        Ok(None)
    }
}

impl<R: ControlRegion + Send> VfControl for IgbVf<R> {
    fn init(&mut self, config: &VfConfig) -> Result<VfIdentity, VfControlError> {
        check(config)?;
        let deadline = Instant::now() + self.mailbox.timing().init;
        let identity = loop {
            let outcome = self
                .handshake(deadline)
                .and_then(|identity| self.apply(config, deadline).map(|()| identity));
            match outcome {
                // The PF went away under the handshake: it starts again when the PF is back. Or an
                // exchange was lost: the PF's driver writes its pings over a message that it has
                // not read yet, and then waits for the next one as we wait for a reply.
                Err(VfControlError::PfReset { .. } | VfControlError::TimedOut { .. })
                    if Instant::now() < deadline => {}
                other => break other?,
            }
        };
        self.mailbox.use_up(RSTD);
        self.resetting = false;
        self.ready = true;
        self.link = self.link_up();
        Ok(identity)
    }

    fn reconfigure(&mut self, config: &VfConfig) -> Result<(), VfControlError> {
        check(config)?;
        let deadline = Instant::now() + self.mailbox.timing().init;
        self.apply(config, deadline)
    }

    fn force_quiesce(&mut self) {
        self.reset_function();
        self.mailbox.forget();
    }

    fn poll_event(&mut self) -> Option<VfEvent> {
        match self.reset_event() {
            Ok(Some(event)) => return Some(event),
            Err(VfControlError::Gone) => {
                let first = !self.gone;
                self.gone = true;
                return first.then_some(VfEvent::Gone);
            }
            // Its message could not be taken (the PF keeps the mailbox): the PF will ping again.
            Err(_) | Ok(None) => {}
        }
        let up = self.link_up();
        (self.ready && up != self.link).then(|| {
            self.link = up;
            VfEvent::LinkChanged { up }
        })
    }

    fn rearm(&mut self) {
        self.mailbox.region().write32(VTEIMS, 1 << MAILBOX_VECTOR);
    }

    fn link_up(&self) -> bool {
        let status = self.mailbox.region().read32(STATUS);
        status != u32::MAX && status & STATUS_LU != 0
    }

    fn stats(&self) -> VfStats {
        let region = self.mailbox.region();
        VfStats {
            rx_frames: region.read32(VFGPRC),
            rx_bytes: region.read32(VFGORC),
            rx_multicast: region.read32(VFMPRC),
            tx_frames: region.read32(VFGPTC),
            tx_bytes: region.read32(VFGOTC),
        }
    }
}

fn check(config: &VfConfig) -> Result<(), VfControlError> {
    if !MTU_RANGE.contains(&config.mtu) {
        let (least, most) = (MTU_RANGE.start(), MTU_RANGE.end());
        return Err(VfControlError::Config(format!(
            "MTU {} is not in {least} to {most}",
            config.mtu
        )));
    }
    if let Some(vlan) = config.vlans.iter().find(|vlan| !(1..=4094).contains(*vlan)) {
        return Err(VfControlError::Config(format!("VLAN {vlan} is not in 1 to 4094")));
    }
    if let Some(mac) = config.multicast.iter().find(|mac| !mac.is_group()) {
        return Err(VfControlError::Config(format!("{mac} is not a multicast address")));
    }
    Ok(())
}

/// The address in words 1 and 2 of a VF_RESET reply, in memory order.
fn address_in(reply: &Words) -> [u8; 6] {
    let [a, b, c, d] = reply[1].to_le_bytes();
    let [e, f, ..] = reply[2].to_le_bytes();
    [a, b, c, d, e, f]
}

/// SET_MULTICAST for at most [`MULTICAST_HASHES`] groups: two 12-bit hashes to a word.
fn multicast_message(groups: &[&MacAddr]) -> Words {
    let mut message = [0; super::registers::VMBMEM_WORDS];
    message[0] = MSG_MULTICAST | (groups.len() as u32) << 16;
    for (i, group) in groups.iter().enumerate() {
        message[1 + i / 2] |= u32::from(multicast_hash(group)) << (16 * (i % 2));
    }
    message
}

/// The hash of the PF's multicast table in its default mode (datasheet 8.10.2, MO = 00b).
fn multicast_hash(mac: &MacAddr) -> u16 {
    let [.., low, high] = mac.0;
    (u16::from(low) >> 4 | u16::from(high) << 4) & 0xfff
}

#[cfg(test)]
#[path = "control_test.rs"]
mod tests;
