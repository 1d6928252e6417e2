//! The constants of the C header are the ones used here and in the ABI.

use super::*;
use npa_abi::net;

const HEADER: &str = include_str!("../module/core.h");

/// Value of `#define name`.
fn define(name: &str) -> u32 {
    let value = HEADER
        .lines()
        .filter_map(|line| line.strip_prefix("#define "))
        .map(str::split_whitespace)
        .find_map(|mut words| (words.next() == Some(name)).then(|| words.next()).flatten())
        .unwrap_or_else(|| panic!("core.h does not define {name}"));
    let parsed = match value.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => value.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("{name} is not a number: {value}"))
}

#[test]
fn header_and_seam_agree() {
    let pairs = [
        ("NPA_INFO_CSUM", INFO_CSUM),
        ("NPA_INFO_TSO4", INFO_TSO4),
        ("NPA_INFO_TSO6", INFO_TSO6),
        ("NPA_INFO_RXCSUM", INFO_RXCSUM),
        ("NPA_INFO_RXMERGED", INFO_RXMERGED),
        ("NPA_INFO_LINK_UP", INFO_LINK_UP),
    ];
    for (name, value) in pairs {
        assert_eq!(define(name), value.into(), "{name}");
    }
    assert_eq!(define("NPA_RX_BUFFER"), RX_BUFFER_LENGTH);
    assert_eq!(define("NPA_SEGMENTS_MAX"), SEGMENTS_MAX as u32);
    assert_eq!(define("NPA_CAPABILITY_WORDS"), crate::capability::WORDS as u32);
}

#[test]
fn header_and_abi_agree() {
    let flags = [
        ("NPA_TX_CSUM", net::TX_CSUM),
        ("NPA_TX_TSO", net::TX_TSO),
        ("NPA_TX_IPV4", net::TX_IPV4),
        ("NPA_TX_IPV6", net::TX_IPV6),
        ("NPA_TX_TCP", net::TX_TCP),
        ("NPA_TX_UDP", net::TX_UDP),
        ("NPA_RX_VLAN", net::RX_VLAN),
        ("NPA_RX_HASH", net::RX_HASH),
    ];
    for (name, value) in flags {
        assert_eq!(define(name), value.into(), "{name}");
    }
    let codes = [
        ("NPA_RX_CSUM_UNKNOWN", net::RX_CSUM_UNKNOWN),
        ("NPA_RX_CSUM_CORRECT", net::RX_CSUM_CORRECT),
        ("NPA_RX_CSUM_INCORRECT", net::RX_CSUM_INCORRECT),
        ("NPA_RX_CSUM_PARTIAL", net::RX_CSUM_PARTIAL),
        ("NPA_RX_GSO_NONE", net::RX_GSO_NONE),
        ("NPA_RX_GSO_TCPV4", net::RX_GSO_TCPV4),
        ("NPA_RX_GSO_TCPV6", net::RX_GSO_TCPV6),
    ];
    for (name, value) in codes {
        assert_eq!(define(name), value.into(), "{name}");
    }
}
