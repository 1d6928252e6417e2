//! What a running `vmm` may still do, by the kernel's own word: of an ordinary user, without
//! capabilities, each thread under its filter, in either data path.

use super::Context;
use super::guest::{Guest, GuestOptions};
use super::pool;
use anyhow::{Context as _, Result, ensure};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Threads that a guest's work is on, by how their names begin.
const THREADS: [&str; 8] =
    ["vmm", "vcpu0", "io", "net-net0", "rng", "api", "npa-net0", "pool-net0"];

pub(crate) fn run(context: &Context) -> Result<()> {
    let guest = Guest::launch(GuestOptions::new(context).named("sandbox"))?;
    guest.expect_traffic()?;
    confined(&guest).context("emulated")?;
    guest.attach()?;
    guest.expect_traffic()?;
    confined(&guest).context("on a VF")?;
    owns_nothing_by_path(&guest)?;
    elsewhere(&guest)?;
    guest.detach()?;
    guest.ctl_ok(&["shutdown"])?;
    drop(guest);
    pool::expect_all_free()?;
    for (thread, call, name) in
        [("vcpu0", libc::SYS_openat, "openat"), ("net-net0", libc::SYS_socket, "socket")]
    {
        forbidden(context, thread, call, name).with_context(|| format!("{name} by {thread}"))?;
    }
    Ok(())
}

/// How `vmm` then ends: as a shell shows SIGSYS.
const FORBIDDEN: i32 = 159;

/// A thread of a VM on a VF is made to call what is not in its filter: that ends this VM, which names
/// thread and call, and its VF is free again.
fn forbidden(context: &Context, thread: &str, call: i64, name: &str) -> Result<()> {
    let mut guest = Guest::launch(GuestOptions::new(context).named("forbidden"))?;
    guest.attach()?;
    guest.expect_traffic()?;
    divert(thread_of(&guest, thread)?, call)?;
    // For a thread that waits for frames.
    let _ = guest.try_exec("ping -q -c 3 -i 0.2 -W 1 10.77.0.1", Duration::from_secs(10));
    let status = guest.wait_for_status(Duration::from_secs(20))?;
    ensure!(status.code() == Some(FORBIDDEN), "vmm ended with {status}");
    let log = guest.log_tail();
    let said = format!("thread `{thread}` made the system call `{name}`");
    ensure!(log.contains(&said), "vmm did not say so:\n{log}");
    drop(guest);
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = pool::expect_all_free() {
        ensure!(Instant::now() < deadline, "the VF is not free: {error:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The thread of that name.
fn thread_of(guest: &Guest, name: &str) -> Result<Pid> {
    let tasks = fs::read_dir(format!("/proc/{}/task", guest.process()))?;
    let mut tasks = tasks.filter_map(|task| Some(task.ok()?.path()));
    let named = |task: &PathBuf| {
        fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let task = tasks.find(named).with_context(|| format!("no thread {name}"))?;
    let number = task.file_name().and_then(|number| number.to_str()?.parse().ok());
    Ok(Pid::from_raw(number.context("a thread without a number")?))
}

/// Has the thread make the system call `number` instead of its next one, as code of a guest's would.
fn divert(thread: Pid, number: i64) -> Result<()> {
    let stopped = || waitpid(thread, Some(WaitPidFlag::__WALL));
    ptrace::attach(thread)?;
    stopped()?;
    // Up to the entry of the next call, before its filter is asked.
    ptrace::syscall(thread, None)?;
    stopped()?;
    let mut registers = ptrace::getregs(thread)?;
    registers.orig_rax = number.cast_unsigned();
    ptrace::setregs(thread, registers)?;
    Ok(ptrace::detach(thread, None)?)
}

/// Fails unless every thread is under a filter and has no right but its user's.
fn confined(guest: &Guest) -> Result<()> {
    let tasks = PathBuf::from(format!("/proc/{}/task", guest.process()));
    let mut filters = BTreeMap::new();
    for task in fs::read_dir(&tasks)? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let field = |name: &str| -> Result<String> {
            let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
            Ok(line.with_context(|| format!("no {name} in {status}"))?.trim().to_owned())
        };
        let name = field("Name")?;
        for (what, expected) in [
            ("Uid", "990\t990\t990\t990"),
            ("Gid", "990\t990\t990\t990"),
            ("Groups", ""),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
            // A filter.
            ("Seccomp", "2"),
        ] {
            let found = field(what)?;
            ensure!(found == expected, "thread {name} has {what} {found}, not {expected}");
        }
        filters.insert(name, field("Seccomp_filters")?);
    }
    for thread in THREADS {
        ensure!(filters.contains_key(thread), "there is no thread {thread}: {filters:?}");
    }
    println!("threads and their filters: {filters:?}");
    Ok(())
}

/// Fails if the user could open the VF's group or the PF by himself.
fn owns_nothing_by_path(guest: &Guest) -> Result<()> {
    let open = fs::read_dir(format!("/proc/{}/fd", guest.process()))?;
    let targets: Vec<_> = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect();
    let group = targets
        .iter()
        .find(|path| path.parent() == Some(Path::new("/dev/vfio")) && !path.ends_with("vfio"));
    let group = group.with_context(|| format!("no group is open: {targets:?}"))?;
    let metadata = fs::metadata(group)?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
    let owner = std::os::unix::fs::MetadataExt::uid(&metadata);
    ensure!(
        owner == 0 && mode & 0o077 == 0,
        "{} may be opened by others than root: {mode:o}",
        group.display()
    );
    Ok(())
}

/// A snapshot goes where they may be, and nowhere else.
fn elsewhere(guest: &Guest) -> Result<()> {
    let folder = Path::new("/run/elsewhere");
    crate::up::common_folder(folder)?;
    let refused = guest.ctl_refused(&["snapshot", &folder.join("a").to_string_lossy()])?;
    ensure!(refused.contains("--snapshots"), "where snapshots may be is not said: {refused}");
    ensure!(fs::read_dir(folder)?.count() == 0, "something was left");
    Ok(())
}
