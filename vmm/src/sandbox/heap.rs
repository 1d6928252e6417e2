//! The C library's allocator, which must not need a system call that a thread may not make.
#![allow(unsafe_code)] // mallopt.

/// Has all threads allocate from one pool. With several, glibc opens files of procfs and sysfs (how
/// many CPUs there are, whether memory may be overcommitted), once, on whatever thread it comes upon.
/// Small blocks are each thread's own all the same (its tcache), and no data path allocates.
pub(super) fn settle() {
    // SAFETY: takes two numbers, and locks by itself.
    if unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) } == 0 {
        tracing::debug!("the allocator keeps several pools");
    }
}
