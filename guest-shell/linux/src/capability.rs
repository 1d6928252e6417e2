//! Tells whether a vendor capability marks an NPA device.

use npa_abi::pci::{CAP_MAGIC, CAP_VENDOR_ID, VIRTIO_PCI_CAP_VENDOR_CFG};

/// Dwords of the capability that decide.
pub const WORDS: usize = 3;

/// Whether the capability that begins with these dwords of configuration space is ours: see
/// [`npa_abi::pci::NpaCapability`] for the layout.
pub const fn is_ours(words: [u32; WORDS]) -> bool {
    words[0] >> 24 == VIRTIO_PCI_CAP_VENDOR_CFG as u32
        && words[1] as u16 == CAP_VENDOR_ID
        && words[2] == CAP_MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_capability_counts() {
        let ours = [0x0920_0009, 0x0004_1af4, CAP_MAGIC];
        assert!(is_ours(ours));
        assert!(!is_ours([0x0120_0009, ours[1], ours[2]]), "a virtio structure");
        assert!(!is_ours([ours[0], 0x0004_8086, ours[2]]), "another vendor");
        assert!(!is_ours([ours[0], ours[1], CAP_MAGIC ^ 1]), "another capability of the vendor");
        assert!(!is_ours([u32::MAX; WORDS]), "no device");
    }
}
