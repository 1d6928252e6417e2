//! The network cards of lab hosts: which of them a scenario needs, and how QEMU makes them. A card that
//! is not there costs nothing; each that is there adds to what makes an emulated machine fail.

use std::path::Path;

/// The cards, which are all on one wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Cards {
    /// One host: its uplink with VFs, and the outside world's card
    OneHost,
    /// Also a second host's uplink with VFs
    TwoHosts,
    /// Also a virtio network function in hardware, for the second host to give to guests like a VF
    UnlikeHosts,
    /// One host and the outside world's card, and a second host that is a machine of its own
    TwoMachines,
}

/// Which of the machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    /// The one that runs the command.
    First,
    /// The other one, if there is one.
    Second,
}

/// MAC addresses of the first host's uplink, the outside world's card, and the second host's uplink.
pub(crate) const FIRST_MAC: &str = "52:54:00:77:00:01";
pub(crate) const OUTSIDE_MAC: &str = "52:54:00:77:00:02";
pub(crate) const SECOND_MAC: &str = "52:54:00:77:00:03";
const FUNCTION_MAC: &str = "52:54:00:77:00:04";

/// A modern virtio device whose accesses to memory go through the IOMMU, as a function in hardware's do.
const VIRTIO_FUNCTION: &str = "virtio-net-pci,iommu_platform=on,disable-legacy=on";

impl Cards {
    /// Whether there are two machines.
    pub(super) fn has_second_machine(self) -> bool {
        self == Self::TwoMachines
    }

    /// QEMU's model of each card, and its MAC address.
    fn models(self, seat: Seat) -> &'static [(&'static str, &'static str)] {
        const HOST: (&str, &str) = ("igb", FIRST_MAC);
        const OUTSIDE: (&str, &str) = ("igb", OUTSIDE_MAC);
        const SECOND: (&str, &str) = ("igb", SECOND_MAC);
        match (self, seat) {
            (Self::TwoMachines, Seat::Second) => &[SECOND],
            (Self::OneHost | Self::TwoMachines, _) => &[HOST, OUTSIDE],
            (Self::TwoHosts, _) => &[HOST, OUTSIDE, SECOND],
            (Self::UnlikeHosts, _) => &[HOST, OUTSIDE, SECOND, (VIRTIO_FUNCTION, FUNCTION_MAC)],
        }
    }

    /// QEMU's options for them: name and value. Machines meet at the socket `join`, where the first
    /// listens.
    pub(super) fn options(self, seat: Seat, join: &Path) -> Vec<(&'static str, String)> {
        let mut options = Vec::new();
        let joined = |server: &str| {
            let path = join.display();
            let stream = format!("stream,id=join,server={server},addr.type=unix,addr.path={path}");
            ("-netdev", stream)
        };
        match (self, seat) {
            // Its only card, without a hub: where the stream holds a hub up, QEMU sends frames that came
            // later before those that waited.
            (Self::TwoMachines, Seat::Second) => options.push(joined("off")),
            (Self::TwoMachines, Seat::First) => {
                options.push(joined("on"));
                options.push(("-netdev", "hubport,id=hj,hubid=0,netdev=join".to_owned()));
            }
            _ => {}
        }
        for (index, (model, mac)) in self.models(seat).iter().enumerate() {
            let slot = index + 1;
            let netdev = match seat {
                Seat::First => format!("h{index}"),
                Seat::Second => "join".to_owned(),
            };
            if seat == Seat::First {
                options.push(("-netdev", format!("hubport,id={netdev},hubid=0")));
            }
            // A PCI Express port for each, which SR-IOV needs.
            options.push((
                "-device",
                format!("pcie-root-port,id=rp{index},chassis={slot},slot={slot}"),
            ));
            options.push((
                "-device",
                format!("{model},netdev={netdev},bus=rp{index},mac={mac},romfile="),
            ));
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(cards: Cards, seat: Seat) -> String {
        let options = cards.options(seat, Path::new("/j"));
        options.into_iter().map(|(name, value)| format!("{name} {value} ")).collect()
    }

    #[test]
    fn each_choice_only_adds_to_the_one_before() {
        let lines = [Cards::OneHost, Cards::TwoHosts, Cards::UnlikeHosts]
            .map(|cards| line(cards, Seat::First));
        for pair in lines.windows(2) {
            assert!(pair[1].starts_with(&pair[0]) && pair[1] != pair[0], "{pair:?}");
        }
    }

    #[test]
    fn each_card_is_on_the_wire_and_on_a_port_of_its_own() {
        let all = line(Cards::UnlikeHosts, Seat::First);
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

    #[test]
    fn two_machines_share_the_wire_and_no_card() {
        let (first, second) =
            (line(Cards::TwoMachines, Seat::First), line(Cards::TwoMachines, Seat::Second));
        assert!(first.ends_with(&line(Cards::OneHost, Seat::First)));
        assert!(first.contains("server=on") && second.contains("server=off"));
        assert!(first.contains("hubid=0,netdev=join") && second.contains("igb,netdev=join"));
        assert!(first.contains("addr.path=/j") && second.contains("addr.path=/j"));
        assert!(!second.contains("hubport"));
        let macs = |line: &str| -> Vec<String> {
            line.split("mac=").skip(1).map(|rest| rest[..17].to_owned()).collect()
        };
        assert!(macs(&second).iter().all(|mac| !macs(&first).contains(mac)));
    }
}
