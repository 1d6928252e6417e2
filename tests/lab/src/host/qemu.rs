//! QEMU's command line for a lab host. Each option that is not obvious has its reason; the lab
//! works only with all of them (docs/lab.md).

use std::path::Path;
use std::process::Command;

use super::accelerator::Accelerator;
use super::control;

/// The outer machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine<'a> {
    /// How its CPU is emulated.
    pub(crate) accelerator: Accelerator,
    /// RAM in MiB.
    pub(crate) memory: u32,
    /// Number of CPUs.
    pub(crate) cpus: u32,
    /// Kernel image.
    pub(crate) kernel: &'a Path,
    /// Initramfs.
    pub(crate) initrd: &'a Path,
    /// More words for the kernel's command line.
    pub(crate) cmdline: &'a str,
    /// Folder for sockets that this program listens on: `console`, `control`, `qmp`.
    pub(crate) sockets: &'a Path,
    /// What the console shows is written there too.
    pub(crate) console_log: &'a Path,
    /// Folders for the lab host: name, path, writable.
    pub(crate) shares: Vec<(&'static str, &'a Path, bool)>,
}

impl Machine<'_> {
    /// The command that starts it. It ends with this process, however this one ends.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        command.args(self.arguments());
        command
    }

    fn arguments(&self) -> Vec<String> {
        let mut line: Vec<String> = Vec::new();
        let mut add = |option: &str, value: String| {
            line.push(option.to_owned());
            line.push(value);
        };
        // 36 bits of physical address: QEMU's igb keeps only 32 bits of a VF's BARs, so the
        // firmware must not have room to put them above 4 GiB.
        match self.accelerator {
            Accelerator::Tcg => {
                add("-machine", "q35".into());
                add("-accel", "tcg,thread=multi".into());
                add("-cpu", "EPYC,+svm,+npt,phys-bits=36".into());
            }
            Accelerator::Kvm => {
                // Interrupt remapping needs the I/O APIC in QEMU.
                add("-machine", "q35,kernel-irqchip=split".into());
                add("-accel", "kvm".into());
                add("-cpu", "host,host-phys-bits-limit=36".into());
            }
        }
        add("-smp", self.cpus.to_string());
        add("-m", format!("{}M", self.memory));
        add("-display", "none".into());
        add("-monitor", "none".into());
        add("-kernel", self.kernel.display().to_string());
        add("-initrd", self.initrd.display().to_string());
        add(
            "-append",
            format!(
                // The timer check counts ticks against a busy loop: an emulator that shares its
                // CPUs fails it now and then, and the kernel panics.
                "console=ttyS0 quiet panic=-1 intel_iommu=on iommu=pt mitigations=off \
                 no_timer_check rcupdate.rcu_cpu_stall_timeout=120 {} {}",
                self.confinement(),
                self.cmdline
            ),
        );
        // Intel's IOMMU beside an AMD CPU: QEMU's AMD one stops Linux while it boots.
        add("-device", "intel-iommu,intremap=on,caching-mode=on".into());
        let socket = |name: &str| format!("path={}", self.sockets.join(name).display());
        add(
            "-chardev",
            format!(
                "socket,id=console,{},logfile={}",
                socket("console"),
                self.console_log.display()
            ),
        );
        add("-serial", "chardev:console".into());
        add("-chardev", format!("socket,id=qmp,{}", socket("qmp")));
        add("-mon", "chardev=qmp,mode=control".into());
        add("-chardev", format!("socket,id=control,{}", socket("control")));
        add("-device", "virtio-serial-pci,romfile=".into());
        add("-device", format!("virtserialport,chardev=control,name={}", control::PORT));
        add("-device", "virtio-rng-pci,romfile=".into());
        // SR-IOV cards on one wire: the host's uplink, the outside world, and the uplink of a second
        // host. Each on its own PCI Express port, which SR-IOV needs.
        let macs = ["52:54:00:77:00:01", "52:54:00:77:00:02", "52:54:00:77:00:03"];
        for (index, mac) in macs.iter().enumerate() {
            let slot = index + 1;
            add("-netdev", format!("hubport,id=h{index},hubid=0"));
            add("-device", format!("pcie-root-port,id=rp{index},chassis={slot},slot={slot}"));
            add("-device", format!("igb,netdev=h{index},bus=rp{index},mac={mac},romfile="));
        }
        // A virtio network function in hardware, on the same wire, that guests get like a VF.
        add("-netdev", "hubport,id=h3,hubid=0".into());
        add("-device", "pcie-root-port,id=rp3,chassis=4,slot=4".into());
        add(
            "-device",
            "virtio-net-pci,netdev=h3,bus=rp3,mac=52:54:00:77:00:04,iommu_platform=on,\
             disable-legacy=on,romfile="
                .into(),
        );
        for (name, path, writable) in &self.shares {
            let access = if *writable { "" } else { ",readonly=on" };
            add(
                "-virtfs",
                format!(
                    "local,path={},mount_tag={name},security_model=none,multidevs=remap{access}",
                    path.display()
                ),
            );
        }
        line.extend(["-nodefaults", "-no-reboot"].map(str::to_owned));
        line
    }

    /// Keeps programs of the lab host, and so guests, off its first CPU where QEMU emulates it.
    /// There a load of FPU state on *any* CPU rewrites, without a lock, the word in which QEMU
    /// keeps whether the *first* CPU translates addresses through a guest's nested page table. A
    /// guest that enters or leaves on that CPU at the same moment runs on without its page table,
    /// or the lab host with it: one of both ends in a triple fault. The first CPU takes the interrupts
    /// instead, so that the cards' work takes no time from a guest that is measured.
    fn confinement(&self) -> String {
        match self.accelerator {
            Accelerator::Tcg => {
                format!("irqaffinity=0 lab.cpus=1-{}", self.cpus.saturating_sub(1).max(1))
            }
            Accelerator::Kvm => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(accelerator: Accelerator) -> String {
        let machine = Machine {
            accelerator,
            memory: 4096,
            cpus: 2,
            kernel: Path::new("/k"),
            initrd: Path::new("/i"),
            cmdline: "lab.mode=exec",
            sockets: Path::new("/s"),
            console_log: Path::new("/c"),
            shares: vec![("lab", Path::new("/l"), false), ("out", Path::new("/o"), true)],
        };
        machine.arguments().join(" ")
    }

    #[test]
    fn the_lab_cannot_do_without_these() {
        for accelerator in [Accelerator::Tcg, Accelerator::Kvm] {
            let line = line(accelerator);
            for part in [
                "intel-iommu,intremap=on,caching-mode=on",
                "pcie-root-port,id=rp0",
                "igb,netdev=h0,bus=rp0",
                "igb,netdev=h1,bus=rp1",
                "igb,netdev=h2,bus=rp2",
                "virtio-net-pci,netdev=h3,bus=rp3,mac=52:54:00:77:00:04,iommu_platform=on",
                "hubport,id=h1,hubid=0",
                "intel_iommu=on iommu=pt",
                "mount_tag=lab,security_model=none,multidevs=remap,readonly=on",
                "-no-reboot",
            ] {
                assert!(line.contains(part), "{part} not in {line}");
            }
            assert!(line.contains("phys-bits=36") || line.contains("phys-bits-limit=36"));
        }
    }

    #[test]
    fn emulation_never_uses_the_machines_kvm() {
        assert!(!line(Accelerator::Tcg).contains("kvm"));
    }

    #[test]
    fn guests_run_on_the_first_cpu_only_where_it_is_real() {
        assert!(line(Accelerator::Tcg).contains("lab.cpus=1-1"));
        assert!(!line(Accelerator::Kvm).contains("lab.cpus"));
    }
}
