//! Which system calls a thread may make, by what it is for. A thread that another one starts has at
//! most the calls of that one.

use libc::{
    AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, PR_SET_NAME, PROT_EXEC, SYS_accept4, SYS_bind, SYS_brk,
    SYS_clock_getres, SYS_clock_gettime, SYS_clock_nanosleep, SYS_clone, SYS_clone3, SYS_close,
    SYS_connect, SYS_copy_file_range, SYS_dup, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait,
    SYS_epoll_pwait2, SYS_epoll_wait, SYS_eventfd2, SYS_exit, SYS_exit_group, SYS_fallocate,
    SYS_fchmod, SYS_fcntl, SYS_fdatasync, SYS_flock, SYS_fstat, SYS_fsync, SYS_ftruncate,
    SYS_futex, SYS_getcwd, SYS_getdents64, SYS_geteuid, SYS_getpeername, SYS_getpid,
    SYS_getpriority, SYS_getrandom, SYS_getsockname, SYS_getsockopt, SYS_gettid, SYS_getuid,
    SYS_ioctl, SYS_listen, SYS_lseek, SYS_madvise, SYS_membarrier, SYS_memfd_create, SYS_mkdir,
    SYS_mkdirat, SYS_mmap, SYS_mprotect, SYS_mremap, SYS_msync, SYS_munmap, SYS_nanosleep,
    SYS_newfstatat, SYS_openat, SYS_pipe2, SYS_poll, SYS_ppoll, SYS_prctl, SYS_pread64, SYS_preadv,
    SYS_preadv2, SYS_pwrite64, SYS_pwritev, SYS_pwritev2, SYS_read, SYS_readlink, SYS_readlinkat,
    SYS_readv, SYS_recvfrom, SYS_recvmsg, SYS_rename, SYS_renameat, SYS_renameat2,
    SYS_restart_syscall, SYS_rmdir, SYS_rseq, SYS_rt_sigprocmask, SYS_rt_sigreturn,
    SYS_sched_getaffinity, SYS_sched_yield, SYS_sendfile, SYS_sendmmsg, SYS_sendmsg, SYS_sendto,
    SYS_set_robust_list, SYS_setpriority, SYS_setsockopt, SYS_shutdown, SYS_sigaltstack,
    SYS_socket, SYS_socketpair, SYS_stat, SYS_statx, SYS_tgkill, SYS_umask, SYS_uname, SYS_unlink,
    SYS_unlinkat, SYS_write, SYS_writev, c_int,
};

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Runs a vCPU.
    Vcpu,
    /// Serves an emulated device, with files and sockets that are open already.
    Device,
    /// Switches a device's data path: asks pf-control, opens VFs and plugins.
    Control,
    /// Serves the operator: control interface, moves, snapshots, and the process as a whole.
    Operator,
}

/// A condition on one argument of a call: that `argument & mask == value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) argument: u8,
    pub(super) mask: u64,
    pub(super) value: u64,
}

/// What every thread does: memory, locks, time, its end, and files that are open.
const EVERY: [i64; 33] = [
    SYS_read,
    SYS_write,
    SYS_writev,
    SYS_readv,
    SYS_close,
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_brk,
    SYS_futex,
    SYS_sched_yield,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_restart_syscall,
    SYS_getrandom,
    SYS_gettid,
    SYS_getpid,
    SYS_tgkill,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_set_robust_list,
    SYS_rseq,
    SYS_membarrier,
    SYS_exit,
    SYS_exit_group,
    SYS_fstat,
    SYS_lseek,
    SYS_pread64,
    SYS_pwrite64,
    SYS_sched_getaffinity,
];

/// Waiting for many files at once.
const EVENTS: [i64; 8] = [
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_wait,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_eventfd2,
    SYS_poll,
    SYS_ppoll,
];

/// The console's client, and the disk.
const DEVICE: [i64; 14] = [
    SYS_statx,
    SYS_accept4,
    SYS_recvfrom,
    SYS_sendto,
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_shutdown,
    SYS_preadv,
    SYS_preadv2,
    SYS_pwritev,
    SYS_pwritev2,
    SYS_fsync,
    SYS_fdatasync,
    SYS_fcntl,
];

/// Calls to pf-control; files of plugins and VFs; work that makes way, on threads of its own.
const CONTROL: [i64; 28] = [
    SYS_connect,
    SYS_sendto,
    SYS_recvfrom,
    SYS_sendmsg,
    SYS_recvmsg,
    SYS_shutdown,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_getsockname,
    SYS_getpeername,
    SYS_fcntl,
    SYS_openat,
    SYS_statx,
    SYS_stat,
    SYS_newfstatat,
    SYS_readlink,
    SYS_readlinkat,
    SYS_getdents64,
    SYS_clone,
    SYS_clone3,
    SYS_getpriority,
    SYS_setpriority,
    SYS_memfd_create,
    SYS_ftruncate,
    SYS_geteuid,
    SYS_getuid,
    SYS_pipe2,
    SYS_dup,
];

/// Sockets that are served here; snapshots; the names of hosts.
const OPERATOR: [i64; 23] = [
    SYS_bind,
    SYS_listen,
    SYS_umask,
    SYS_unlink,
    SYS_unlinkat,
    SYS_mkdir,
    SYS_mkdirat,
    SYS_rmdir,
    SYS_rename,
    SYS_renameat,
    SYS_renameat2,
    SYS_fchmod,
    libc::SYS_chmod,
    libc::SYS_fchmodat,
    SYS_fallocate,
    SYS_flock,
    SYS_copy_file_range,
    SYS_sendfile,
    SYS_msync,
    SYS_sendmmsg,
    SYS_uname,
    SYS_getcwd,
    libc::SYS_sync_file_range,
];

/// Kinds of ioctl, by the byte that names the driver (Documentation/userspace-api/ioctl).
const KVM: u64 = 0xae;
const VFIO: u64 = 0x3b;
/// Of terminals, sockets and taps.
const TERMINAL_AND_TAP: u64 = 0x54;

impl Role {
    /// All roles.
    pub(super) const ALL: [Self; 4] = [Self::Vcpu, Self::Device, Self::Control, Self::Operator];

    /// Calls that it may make with any argument.
    pub(super) fn calls(self) -> Vec<i64> {
        let more: &[&[i64]] = match self {
            Self::Vcpu => &[],
            Self::Device => &[&EVENTS, &DEVICE],
            Self::Control => &[&EVENTS, &CONTROL],
            Self::Operator => &[&EVENTS, &DEVICE, &CONTROL, &OPERATOR],
        };
        [&[EVERY.as_slice()], more].concat().concat()
    }

    /// Calls that it may make with some arguments; one condition of a call's has to hold.
    pub(super) fn limited(self) -> Vec<(i64, Limit)> {
        // No memory becomes code.
        let no_code = |argument| Limit { argument, mask: PROT_EXEC as u64, value: 0 };
        let mut limited = vec![(SYS_mmap, no_code(2)), (SYS_mprotect, no_code(2))];
        let drivers: &[u64] = match self {
            Self::Vcpu => &[KVM],
            Self::Device => &[KVM, TERMINAL_AND_TAP],
            Self::Control | Self::Operator => &[KVM, VFIO, TERMINAL_AND_TAP],
        };
        let driver = |&driver: &u64| Limit { argument: 1, mask: 0xff00, value: driver << 8 };
        if self == Self::Vcpu {
            // A device that is started anew gives its worker a copy of each doorbell.
            let copy = libc::F_DUPFD_CLOEXEC as u64;
            limited.push((SYS_fcntl, Limit { argument: 1, mask: u32::MAX.into(), value: copy }));
        }
        limited.extend(drivers.iter().map(|kind| (SYS_ioctl, driver(kind))));
        let families: &[c_int] = match self {
            Self::Vcpu | Self::Device => &[],
            Self::Control => &[AF_UNIX],
            // The last one for the order in which a host's addresses are tried.
            Self::Operator => &[AF_UNIX, AF_INET, AF_INET6, AF_NETLINK],
        };
        for &family in families {
            let family = Limit { argument: 0, mask: u32::MAX.into(), value: family as u64 };
            limited.extend([(SYS_socket, family), (SYS_socketpair, family)]);
        }
        if !families.is_empty() {
            // A new thread's name.
            let name = Limit { argument: 0, mask: u32::MAX.into(), value: PR_SET_NAME as u64 };
            limited.push((SYS_prctl, name));
        }
        limited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_has_what_the_threads_have_that_it_starts() {
        let operator = Role::Operator;
        for role in Role::ALL {
            assert!(role.calls().iter().all(|call| operator.calls().contains(call)), "{role:?}");
            let may = |call, limit| {
                operator.calls().contains(&call) || operator.limited().contains(&(call, limit))
            };
            assert!(role.limited().iter().all(|&(call, limit)| may(call, limit)), "{role:?}");
        }
    }

    #[test]
    fn nobody_may_start_a_program_or_change_what_he_is() {
        use libc::{
            SYS_bpf, SYS_capset, SYS_execve, SYS_execveat, SYS_fork, SYS_io_uring_setup, SYS_kill,
            SYS_mount, SYS_open_by_handle_at, SYS_perf_event_open, SYS_process_vm_writev,
            SYS_ptrace, SYS_rt_sigaction, SYS_seccomp, SYS_setns, SYS_setresuid, SYS_setuid,
            SYS_unshare, SYS_userfaultfd, SYS_vfork,
        };
        let never = [
            SYS_bpf,
            SYS_capset,
            SYS_execve,
            SYS_execveat,
            SYS_fork,
            SYS_io_uring_setup,
            SYS_kill,
            SYS_mount,
            SYS_open_by_handle_at,
            SYS_perf_event_open,
            SYS_process_vm_writev,
            SYS_ptrace,
            SYS_rt_sigaction,
            SYS_seccomp,
            SYS_setns,
            SYS_setresuid,
            SYS_setuid,
            SYS_unshare,
            SYS_userfaultfd,
            SYS_vfork,
        ];
        for role in Role::ALL {
            let calls = role.calls();
            let limited: Vec<_> = role.limited().iter().map(|(call, _)| *call).collect();
            assert!(never.iter().all(|call| !calls.contains(call) && !limited.contains(call)));
            // A rule without a condition beside one with would let all through.
            assert!(limited.iter().all(|call| !calls.contains(call)), "{role:?}");
        }
    }
}
