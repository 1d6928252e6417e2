//! The network cards of a lab host: which of them a scenario needs, and how QEMU makes them. A card that
//! is not there costs nothing; each that is there adds to what makes an emulated machine fail.

/// The cards, which are all on one wire. Each choice has those of the one before, at the same places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Cards {
    /// One host: its uplink with VFs, and the outside world's card
    OneHost,
    /// Also a second host's uplink with VFs
    TwoHosts,
    /// Also a virtio network function in hardware, for the second host to give to guests like a VF
    UnlikeHosts,
}

impl Cards {
    /// QEMU's options for them: name and value.
    pub(super) fn options(self) -> Vec<(&'static str, String)> {
        let models: &[&str] = match self {
            Self::OneHost => &["igb"; 2],
            Self::TwoHosts => &["igb"; 3],
            Self::UnlikeHosts => &["igb", "igb", "igb", VIRTIO_FUNCTION],
        };
        let mut options = Vec::new();
        for (index, model) in models.iter().enumerate() {
            let slot = index + 1;
            options.push(("-netdev", format!("hubport,id=h{index},hubid=0")));
            // A PCI Express port for each, which SR-IOV needs.
            options.push((
                "-device",
                format!("pcie-root-port,id=rp{index},chassis={slot},slot={slot}"),
            ));
            options.push((
                "-device",
                format!(
                    "{model},netdev=h{index},bus=rp{index},mac=52:54:00:77:00:0{slot},romfile="
                ),
            ));
        }
        options
    }
}

/// A modern virtio device whose accesses to memory go through the IOMMU, as a function in hardware's do.
const VIRTIO_FUNCTION: &str = "virtio-net-pci,iommu_platform=on,disable-legacy=on";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    fn line(cards: Cards) -> String {
        cards.options().into_iter().map(|(name, value)| format!("{name} {value} ")).collect()
    }

    #[test]
    fn each_choice_only_adds_to_the_one_before() {
        let lines: Vec<_> = Cards::value_variants().iter().map(|cards| line(*cards)).collect();
        for pair in lines.windows(2) {
            assert!(pair[1].starts_with(&pair[0]) && pair[1] != pair[0], "{pair:?}");
        }
    }

    #[test]
    fn each_card_is_on_the_wire_and_on_a_port_of_its_own() {
        let all = line(Cards::UnlikeHosts);
        for index in 0..4 {
            for part in [
                format!("hubport,id=h{index},hubid=0"),
                format!("pcie-root-port,id=rp{index},"),
                format!("netdev=h{index},bus=rp{index},mac=52:54:00:77:00:0{},", index + 1),
            ] {
                assert!(all.contains(&part), "{part} not in {all}");
            }
        }
        assert!(all.contains("virtio-net-pci,iommu_platform=on"));
    }
}
