//! The guest's image: brings up its one network card with the shell or with the stock driver,
//! then runs commands that arrive on the serial console.

use std::path::{Path, PathBuf};

use super::tree::{Tree, find_program};
use super::{add_modules, stamp_programs};
use crate::cache::{self, Key};
use crate::{Error, Kernel, Layout, Progress};

/// Stock drivers in the guest: the emulated devices', and the 82576 VF's for comparison.
pub const MODULES: &[&str] = &[
    "virtio_net",
    "virtio_blk",
    "virtio_rng",
    "virtio_balloon",
    "virtio_pci",
    "igbvf",
    "8021q",
    "dummy",
    "sch_netem",
    "sch_fq",
];

/// Programs beside busybox.
const PROGRAMS: &[&str] = &["ip", "tc", "bridge", "ethtool", "ping", "tcpdump", "iperf3", "kmod"];

/// What makes one link `kmod` act as each of its commands.
const KMOD_LINKS: &[&str] = &["modprobe", "insmod", "rmmod", "lsmod", "modinfo", "depmod"];

/// Builds the guest's image for `kernel` unless it is current. Returns whether it was built.
pub(crate) fn build(
    layout: &Layout,
    kernel: &Kernel,
    programs: &[PathBuf],
    shell: Option<&Path>,
    progress: &Progress,
) -> Result<bool, Error> {
    let output = layout.initrd(kernel.series);
    let mut key = Key::new("guest image 3");
    key.text(&kernel.release).text(PASSWD).text(&MODULES.join(" ")).text(INIT).text(CONSOLE);
    for program in programs {
        key.content(program)?;
    }
    if let Some(shell) = shell {
        key.content(shell)?;
    }
    stamp_programs(&mut key, PROGRAMS)?;
    stamp_programs(&mut key, &["busybox", "dash"])?;
    let key = key.finish();
    if cache::is_current(&output, &key) {
        return Ok(false);
    }
    progress.step(&format!("guest image for {}", kernel.release), || {
        let tree = fill(layout, kernel, programs, shell)?;
        let scratch = cache::scratch(&layout.scratch(), &format!("guest-{}", kernel.series))?;
        let made = scratch.join("initrd");
        tree.write(&made)?;
        cache::commit(&made, &output, &key)?;
        std::fs::remove_dir_all(&scratch).map_err(Error::io("remove", &scratch))
    })?;
    Ok(true)
}

/// tcpdump gives up its privileges to the user of that name.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                      tcpdump:x:991:0:tcpdump:/run:/bin/sh\n";
const INIT: &str = include_str!("guest-init.sh");
const CONSOLE: &str = include_str!("guest-console.sh");

fn fill(
    layout: &Layout,
    kernel: &Kernel,
    programs: &[PathBuf],
    shell: Option<&Path>,
) -> Result<Tree, Error> {
    let mut tree = Tree::new();
    for program in PROGRAMS {
        tree.program(&find_program(program)?)?;
    }
    for link in KMOD_LINKS {
        tree.link(&format!("usr/bin/{link}"), "kmod");
    }
    for program in programs {
        tree.stripped(layout, program)?;
        tree.libraries(program)?;
    }
    tree.busybox()?;
    let extra: Vec<PathBuf> = shell.map(Path::to_path_buf).into_iter().collect();
    add_modules(layout, &mut tree, kernel, MODULES, &extra)?;
    tree.file("init", 0o755, INIT);
    tree.file("usr/lib/npa/console", 0o755, CONSOLE);
    tree.file("etc/passwd", 0o644, PASSWD);
    tree.file("etc/group", 0o644, "root:x:0:\n");
    tree.file("etc/hosts", 0o644, "127.0.0.1 localhost\n");
    tree.file("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files\n");
    Ok(tree)
}
