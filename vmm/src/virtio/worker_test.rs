use std::sync::mpsc::channel;
use std::time::Instant;

use super::*;

/// Counts its runs and asks for `more` further ones.
#[derive(Default)]
struct Counting {
    runs: u32,
    more: u32,
}

impl Worker for Counting {
    fn sources(&self) -> Vec<(RawFd, EventSet)> {
        Vec::new()
    }

    fn start(&mut self, _activation: Activation) {}

    fn stop(&mut self) -> Vec<QueuePosition> {
        Vec::new()
    }

    fn run(&mut self, _wake: Wake) -> Progress {
        self.runs += 1;
        if self.more == 0 {
            return Progress::Idle;
        }
        self.more -= 1;
        Progress::More
    }
}

const LONG: Duration = Duration::from_secs(5);

fn worker() -> WorkerThread<Counting> {
    WorkerThread::spawn("test", Counting::default()).unwrap()
}

#[test]
fn a_worker_runs_until_it_is_done() {
    let worker = worker();
    worker.call(LONG, |counting| counting.more = 3).unwrap();
    let started = Instant::now();
    while worker.call(LONG, |counting| counting.more).unwrap() > 0 {
        assert!(started.elapsed() < LONG);
    }
    assert!(worker.call(LONG, |counting| counting.runs).unwrap() >= 4);
}

#[test]
fn a_busy_worker_delays_nobody_past_the_deadline() {
    let worker = worker();
    let (release, released) = channel::<()>();
    let blocked = worker.call(Duration::from_millis(20), move |_| {
        let _ = released.recv();
    });
    assert_eq!(blocked, Err(CallError::Deadline));
    assert_eq!(worker.call(Duration::from_millis(20), |_| ()), Err(CallError::Deadline));
    release.send(()).unwrap();
    assert_eq!(worker.call(LONG, |_| 7), Ok(7));
}

#[test]
fn a_worker_that_panicked_is_gone() {
    let worker = worker();
    let lost: Result<(), _> = worker.call(LONG, |_| panic!("on purpose"));
    assert_eq!(lost, Err(CallError::Ended));
    assert_eq!(worker.call(LONG, |_| ()), Err(CallError::Ended));
}
