//! Chooses how the lab host's CPU is emulated. Hardware virtualization is used only where it can
//! be nested: elsewhere `/dev/kvm`, if there is one, cannot run a host with KVM in it.

use std::fs;

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Wish {
    /// Nested hardware virtualization where it is there, else emulation.
    Auto,
    /// Nested hardware virtualization.
    Kvm,
    /// Emulation.
    Tcg,
}

/// What QEMU uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// The machine's own virtualization.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Wish {
    /// Decides by what this machine has.
    pub(crate) fn decide(self) -> Accelerator {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let nested = |module: &str| {
            fs::read_to_string(format!("/sys/module/{module}/parameters/nested"))
                .unwrap_or_default()
        };
        let usable = nested_works(&cpuinfo, &nested("kvm_amd"), &nested("kvm_intel"))
            && fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
        match (self, usable) {
            (Self::Kvm, _) | (Self::Auto, true) => Accelerator::Kvm,
            (Self::Tcg, _) | (Self::Auto, false) => Accelerator::Tcg,
        }
    }
}

fn nested_works(cpuinfo: &str, amd: &str, intel: &str) -> bool {
    let flags: Vec<&str> = cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let on = |parameter: &str| matches!(parameter.trim(), "1" | "Y");
    (flags.contains(&"svm") && on(amd)) || (flags.contains(&"vmx") && on(intel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_the_cpu_and_the_module_must_offer_it() {
        let amd = "processor: 0\nflags\t\t: fpu svm sse\n";
        let intel = "flags\t\t: fpu vmx\n";
        assert!(nested_works(amd, "1\n", ""));
        assert!(nested_works(intel, "", "Y\n"));
        assert!(!nested_works(amd, "0\n", "Y\n"));
        assert!(!nested_works(intel, "", "N\n"));
        assert!(!nested_works("flags : fpu\n", "1\n", "Y\n"));
        assert!(!nested_works("", "1", "1"));
    }

    #[test]
    fn a_clear_wish_is_followed() {
        assert_eq!(Wish::Kvm.decide(), Accelerator::Kvm);
        assert_eq!(Wish::Tcg.decide(), Accelerator::Tcg);
    }
}
