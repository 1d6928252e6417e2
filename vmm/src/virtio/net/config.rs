//! The NIC's feature bits and configuration space (VIRTIO 1.2, sections 5.1.3 and 5.1.4).

use std::fmt;
use std::str::FromStr;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_ANNOUNCE,
    VIRTIO_NET_S_LINK_UP,
};

use super::backend::ReceiveOffloads;

/// What the NIC offers to every guest.
pub(super) const FEATURES: u64 = bit(VIRTIO_NET_F_CSUM)
    | bit(VIRTIO_NET_F_GUEST_CSUM)
    | bit(VIRTIO_NET_F_MTU)
    | bit(VIRTIO_NET_F_MAC)
    | bit(VIRTIO_NET_F_GUEST_TSO4)
    | bit(VIRTIO_NET_F_GUEST_TSO6)
    | bit(VIRTIO_NET_F_GUEST_ECN)
    | bit(VIRTIO_NET_F_HOST_TSO4)
    | bit(VIRTIO_NET_F_HOST_TSO6)
    | bit(VIRTIO_NET_F_HOST_ECN)
    | bit(VIRTIO_NET_F_MRG_RXBUF)
    | bit(VIRTIO_NET_F_STATUS)
    | bit(VIRTIO_NET_F_CTRL_VQ)
    | bit(VIRTIO_NET_F_GUEST_ANNOUNCE);

/// Those of them that are about frames that are sent.
pub(super) const SEND_OFFLOADS: u64 = bit(VIRTIO_NET_F_CSUM)
    | bit(VIRTIO_NET_F_HOST_TSO4)
    | bit(VIRTIO_NET_F_HOST_TSO6)
    | bit(VIRTIO_NET_F_HOST_ECN);

const fn bit(feature: u32) -> u64 {
    1 << feature
}

/// Whether frames may spread over several receive chains.
pub(super) fn mergeable(features: u64) -> bool {
    features & bit(VIRTIO_NET_F_MRG_RXBUF) != 0
}

/// Whether the driver uses the control queue.
pub(super) fn controls(features: u64) -> bool {
    features & bit(VIRTIO_NET_F_CTRL_VQ) != 0
}

/// Whether the driver announces itself when it is asked to, and says when it has.
pub(super) fn announces(features: u64) -> bool {
    controls(features) && features & bit(VIRTIO_NET_F_GUEST_ANNOUNCE) != 0
}

/// What the guest takes on receive.
pub(super) fn receive_offloads(features: u64) -> ReceiveOffloads {
    let has = |feature| features & bit(feature) != 0;
    ReceiveOffloads {
        checksum: has(VIRTIO_NET_F_GUEST_CSUM),
        tso4: has(VIRTIO_NET_F_GUEST_TSO4),
        tso6: has(VIRTIO_NET_F_GUEST_TSO6),
        ecn: has(VIRTIO_NET_F_GUEST_ECN),
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

/// A string that is no usable station address.
#[derive(Debug, thiserror::Error)]
pub enum MacError {
    /// Not six hexadecimal bytes.
    #[error("`{0}` is no MAC address; write six hexadecimal bytes like 52:54:00:12:34:56")]
    Form(String),
    /// A group address or all zeroes.
    #[error(
        "`{0}` cannot be a network card's address: the first byte must be even (group addresses \
         are odd) and not all bytes zero"
    )]
    NotStation(String),
}

impl MacAddress {
    /// Whether it names a group (multicast or broadcast).
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let form = || MacError::Form(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(form)?;
            if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(form());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| form())?;
        }
        if parts.next().is_some() {
            return Err(form());
        }
        let mac = Self(bytes);
        if mac.is_group() || bytes == [0; 6] {
            return Err(MacError::NotStation(text.to_owned()));
        }
        Ok(mac)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the configuration space shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct NetConfig {
    pub(super) mac: MacAddress,
    pub(super) link_up: bool,
    /// The driver is asked to announce itself.
    pub(super) announce: bool,
    pub(super) queue_pairs: u16,
    pub(super) mtu: u16,
}

impl NetConfig {
    /// `struct virtio_net_config` up to `mtu`.
    pub(super) fn bytes(&self) -> [u8; 12] {
        let link = if self.link_up { VIRTIO_NET_S_LINK_UP } else { 0 };
        let announce = if self.announce { VIRTIO_NET_S_ANNOUNCE } else { 0 };
        let status = (link | announce) as u16;
        let mut bytes = [0; 12];
        bytes[..6].copy_from_slice(&self.mac.0);
        bytes[6..8].copy_from_slice(&status.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.queue_pairs.to_le_bytes());
        bytes[10..].copy_from_slice(&self.mtu.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_read_and_print() {
        let mac: MacAddress = "52:54:00:aB:cd:0f".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:0f");
        for bad in
            ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "52:54:0:12:34:56", "+2:54:00:12:34:56"]
        {
            assert!(matches!(bad.parse::<MacAddress>(), Err(MacError::Form(_))), "{bad}");
        }
        for bad in ["01:00:5e:00:00:01", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"] {
            assert!(matches!(bad.parse::<MacAddress>(), Err(MacError::NotStation(_))), "{bad}");
        }
    }

    #[test]
    fn configuration_layout() {
        let mac = "52:54:00:12:34:56".parse().unwrap();
        let mut config =
            NetConfig { mac, link_up: true, announce: false, queue_pairs: 1, mtu: 1500 };
        assert_eq!(config.bytes(), [0x52, 0x54, 0, 0x12, 0x34, 0x56, 1, 0, 1, 0, 0xdc, 5]);
        config.announce = true;
        assert_eq!(config.bytes()[6..8], [3, 0]);
    }
}
