//! Network interfaces and the VF attributes of a PF's interface.

use super::{Netlink, NetlinkError};
use crate::ops::MacAddr;
use crate::vendor::VfLink;
use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage, LinkVfInfo, VfInfo, VfInfoLinkState,
    VfInfoMac, VfInfoRate, VfInfoSpoofCheck, VfInfoTrust, VfInfoVlan, VfLinkState,
};

/// A network interface as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Hardware address, for Ethernet interfaces.
    pub mac: Option<MacAddr>,
    /// The bridge (or other upper device) that it is a port of.
    pub controller: Option<u32>,
    /// Addresses of the VFs, by VF number; empty for an interface that is no PF.
    pub vf_macs: Vec<(u32, MacAddr)>,
    /// Least and most Mbit/s that VFs may send, likewise; 0 for none.
    pub vf_rates: Vec<(u32, (u32, u32))>,
}

impl Netlink {
    /// The interface called `name`, with its VFs.
    ///
    /// # Errors
    /// [`NetlinkError`]; [`NetlinkError::is_absent`] when there is none.
    pub fn link(&self, name: &str) -> Result<Link, NetlinkError> {
        let work = async {
            let mut links = self
                .handle
                .link()
                .get()
                .match_name(name)
                .set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::Vf])
                .execute();
            links.try_next().await?.ok_or(rtnetlink::Error::RequestFailed)
        };
        self.run(|| format!("looking up interface {name}"), work).map(|message| read(&message))
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_up(&self, index: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.run(
            || format!("bringing interface {index} up"),
            self.handle.link().set(message).execute(),
        )
    }

    /// Gives VF `vf` of the PF interface `pf` the address `mac`.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_vf_mac(&self, pf: u32, vf: u32, mac: MacAddr) -> Result<(), NetlinkError> {
        let info = VfInfo::Mac(VfInfoMac::new(vf, &mac.0));
        self.set_vf(pf, info, || format!("setting address {mac} on VF {vf}"))
    }

    /// Puts VF `vf` into port VLAN `vlan` (0 for none) with `priority`.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_vf_vlan(
        &self,
        pf: u32,
        vf: u32,
        vlan: u16,
        priority: u8,
    ) -> Result<(), NetlinkError> {
        let info = VfInfo::Vlan(VfInfoVlan::new(vf, vlan.into(), priority.into()));
        self.set_vf(pf, info, || format!("setting VLAN {vlan} on VF {vf}"))
    }

    /// Switches the source address check of VF `vf` on or off.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_vf_spoof_check(&self, pf: u32, vf: u32, enabled: bool) -> Result<(), NetlinkError> {
        let info = VfInfo::SpoofCheck(VfInfoSpoofCheck::new(vf, enabled));
        self.set_vf(pf, info, || format!("setting the spoof check of VF {vf}"))
    }

    /// Has the driver trust VF `vf`, or not.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_vf_trust(&self, pf: u32, vf: u32, trusted: bool) -> Result<(), NetlinkError> {
        let info = VfInfo::Trust(VfInfoTrust::new(vf, trusted));
        self.set_vf(pf, info, || format!("setting the trust of VF {vf}"))
    }

    /// Lets VF `vf` send `least` Mbit/s always and `most` at most; 0 for no limit.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_vf_rate(&self, pf: u32, vf: u32, least: u32, most: u32) -> Result<(), NetlinkError> {
        let info = VfInfo::Rate(VfInfoRate::new(vf, least, most));
        self.set_vf(pf, info, || format!("setting the rate of VF {vf} to {least}..{most} Mbit/s"))
    }

    /// Sets the link of VF `vf`.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_vf_link(&self, pf: u32, vf: u32, link: VfLink) -> Result<(), NetlinkError> {
        let state = match link {
            VfLink::Auto => VfLinkState::Auto,
            VfLink::Enable => VfLinkState::Enable,
            VfLink::Disable => VfLinkState::Disable,
        };
        let info = VfInfo::LinkState(VfInfoLinkState::new(vf, state));
        self.set_vf(pf, info, || format!("setting the link of VF {vf}"))
    }

    fn set_vf(
        &self,
        pf: u32,
        info: VfInfo,
        request: impl Fn() -> String,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = pf;
        message.attributes.push(LinkAttribute::VfInfoList(vec![LinkVfInfo(vec![info])]));
        self.run(request, self.handle.link().set(message).execute())
    }
}

fn read(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        mac: None,
        controller: None,
        vf_macs: Vec::new(),
        vf_rates: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(octets) => {
                link.mac = octets.as_slice().try_into().ok().map(MacAddr);
            }
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::VfInfoList(vfs) => {
                let infos = || vfs.iter().flat_map(|vf| &vf.0);
                link.vf_macs = infos().filter_map(vf_mac).collect();
                link.vf_rates = infos().filter_map(vf_rate).collect();
            }
            _ => {}
        }
    }
    link
}

fn vf_rate(info: &VfInfo) -> Option<(u32, (u32, u32))> {
    match info {
        VfInfo::Rate(rate) => Some((rate.vf_id, (rate.min_tx_rate, rate.max_tx_rate))),
        _ => None,
    }
}

fn vf_mac(info: &VfInfo) -> Option<(u32, MacAddr)> {
    match info {
        VfInfo::Mac(info) => info.mac.first_chunk().map(|octets| (info.vf_id, MacAddr(*octets))),
        _ => None,
    }
}
