//! The lab host's image: KVM, VFIO, the PF's driver, bridging, and the tools that tests use.
//! Our own programs are not in it: they come through a shared folder, so that a code change
//! does not rebuild the image. Only the libraries that they need are.

use std::path::{Path, PathBuf};

use super::tree::{Tree, find_program, libraries_of};
use super::{add_modules, stamp_programs};
use crate::cache::{self, Key};
use crate::{Error, Kernel, Layout, Progress};

/// What a host with an SR-IOV network card has, and what the lab itself needs.
pub const MODULES: &[&str] = &[
    "kvm",
    "kvm_amd",
    "kvm_intel",
    "vfio",
    "vfio_pci",
    "vfio_iommu_type1",
    "igb",
    "igbvf",
    "tun",
    "tap",
    "bridge",
    "br_netfilter",
    "8021q",
    "veth",
    "dummy",
    "macvtap",
    "vhost_net",
    "vhost_vsock",
    "9p",
    "9pnet_virtio",
    "virtio_net",
    "virtio_blk",
    "virtio_rng",
    "virtio_console",
    "virtio_pci",
    "sch_netem",
    "sch_fq",
    "loop",
    "msr",
];

/// Programs beside busybox.
const PROGRAMS: &[&str] = &[
    "bash", "chrt", "taskset", "setpriv", "ip", "tc", "bridge", "ethtool", "ping", "tcpdump",
    "iperf3", "kmod",
];

/// Taken along where this machine has it, for finding faults by hand.
const DEBUGGING: &[&str] = &["strace"];

const KMOD_LINKS: &[&str] = &["modprobe", "insmod", "rmmod", "lsmod", "modinfo", "depmod"];

const INIT: &str = include_str!("host-init.sh");

/// Loads the lab's own module with the one that it mends.
const MODPROBE: &str = "softdep kvm_amd post: npa_lab_quirk\n";

/// Builds the lab host's image unless it is current. `quirk` is the lab's own module, `programs` are
/// our own programs: their libraries go in. Returns whether it was built.
pub(crate) fn build(
    layout: &Layout,
    kernel: &Kernel,
    quirk: &Path,
    programs: &[PathBuf],
    progress: &Progress,
) -> Result<bool, Error> {
    let output = layout.host().join("initrd.img");
    let mut libraries = Vec::new();
    for program in programs {
        libraries.extend(libraries_of(program)?);
    }
    libraries.sort();
    libraries.dedup();
    let debugging: Vec<&str> =
        DEBUGGING.iter().copied().filter(|name| find_program(name).is_ok()).collect();
    let mut key = Key::new("lab host image 2");
    key.text(&kernel.release).text(PASSWD).text(&MODULES.join(" ")).text(INIT).text(MODPROBE);
    key.content(quirk)?;
    stamp_programs(&mut key, PROGRAMS)?;
    stamp_programs(&mut key, &debugging)?;
    stamp_programs(&mut key, &["busybox", "dash"])?;
    for library in &libraries {
        key.stamp(library)?;
    }
    let key = key.finish();
    if cache::is_current(&output, &key) {
        return Ok(false);
    }
    progress.step(&format!("lab host image ({})", kernel.release), || {
        let mut tree = Tree::new();
        for program in PROGRAMS.iter().chain(&debugging) {
            tree.program(&find_program(program)?)?;
        }
        for link in KMOD_LINKS {
            tree.link(&format!("usr/bin/{link}"), "kmod");
        }
        for program in programs {
            tree.libraries(program)?;
        }
        tree.busybox()?;
        add_modules(layout, &mut tree, kernel, MODULES, &[quirk.to_owned()])?;
        tree.file("init", 0o755, INIT);
        tree.file("etc/modprobe.d/lab.conf", 0o644, MODPROBE);
        tree.file("etc/passwd", 0o644, PASSWD);
        tree.file("etc/group", 0o644, "root:x:0:\nkvm:x:36:vmm\nvmm:x:990:\nnogroup:x:65534:\n");
        tree.file("etc/hosts", 0o644, "127.0.0.1 localhost\n");
        tree.file("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files\n");
        tree.file("etc/profile", 0o644, "PS1='lab host:\\w\\$ '\n");
        let scratch = cache::scratch(&layout.scratch(), "host")?;
        let made = scratch.join("initrd");
        tree.write(&made)?;
        cache::commit(&made, &output, &key)?;
        std::fs::remove_dir_all(&scratch).map_err(Error::io("remove", &scratch))
    })?;
    Ok(true)
}

/// The user `vmm` is who virtual machines may run as.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
                      vmm:x:990:990:vmm:/run:/bin/sh\n\
                      tcpdump:x:991:65534:tcpdump:/run:/bin/sh\n\
                      nobody:x:65534:65534:nobody:/:/bin/sh\n";
