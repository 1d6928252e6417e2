//! Long work of the host's that a guest need not feel: it leaves the CPUs to vCPUs and devices
//! wherever they want them.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};

/// By how much such work is nicer than the rest of `vmm` (`nice(2)`): where both want a CPU, a vCPU
/// gets nine tenths of it.
const NICER: i32 = 10;

/// From now on, the calling thread leaves CPUs to others. An unprivileged thread cannot take that
/// back.
pub(crate) fn make_way() {
    // A limit on being nice would be a strange one, and no reason to leave the work undone.
    if let Err(error) = rustix::process::nice(NICER) {
        tracing::debug!(%error, "nice");
    }
}

/// Does `work` on a thread of its own that leaves CPUs to others, and waits for it.
pub(crate) fn make_way_during<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let work = Mutex::new(Some(work));
    let take = || work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let run = || {
        make_way();
        take().map(|work| work())
    };
    let done = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, run);
        thread.ok().and_then(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    // Without a thread it is done all the same.
    done.or_else(|| take().map(|work| work())).expect("done on the thread or here")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn niceness() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[test]
    fn only_the_work_makes_way() {
        let before = niceness();
        let (during, answer) = make_way_during("test", || (niceness(), 7));
        assert_eq!((during, answer), ((before + NICER).min(19), 7));
        assert_eq!(niceness(), before);
    }

    #[test]
    fn its_panic_is_the_caller_s() {
        let outcome = std::panic::catch_unwind(|| make_way_during("test", || panic!("as told")));
        assert!(outcome.is_err());
    }
}
