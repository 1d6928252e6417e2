//! QEMU's command line for a lab host. Each option that is not obvious has its reason; the lab
//! works only with all of them (docs/lab.md).

use std::path::Path;
use std::process::Command;

use super::accelerator::Accelerator;
use super::cards::{Cards, Seat};
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
    /// Network cards, of all machines.
    pub(super) cards: Cards,
    /// Which machine it is.
    pub(super) seat: Seat,
    /// Where the machines' wires meet, if there are two.
    pub(super) join: &'a Path,
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
                add("-cpu", "EPYC,+svm,+npt,+x2apic,phys-bits=36".into());
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
        // Intel's IOMMU beside an AMD CPU: QEMU's AMD one stops Linux while it boots. Extended
        // interrupt mode for x2APIC, without which ends of interrupts get lost (docs/lab.md).
        add("-device", "intel-iommu,intremap=on,eim=on,caching-mode=on".into());
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
        for (option, value) in self.cards.options(self.seat, self.join) {
            add(option, value);
        }
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
            cards: Cards::UnlikeHosts,
            seat: Seat::First,
            join: Path::new("/j"),
            shares: vec![("lab", Path::new("/l"), false), ("out", Path::new("/o"), true)],
        };
        machine.arguments().join(" ")
    }

    #[test]
    fn the_lab_cannot_do_without_these() {
        for accelerator in [Accelerator::Tcg, Accelerator::Kvm] {
            let line = line(accelerator);
            for part in [
                "intel-iommu,intremap=on,eim=on,caching-mode=on",
                "igb,netdev=h0,bus=rp0",
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
    fn an_emulated_cpu_reaches_its_apic_without_memory() {
        assert!(line(Accelerator::Tcg).contains("+x2apic"));
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
