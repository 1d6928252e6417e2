//! Tells people what is being done: a spinner per step on a terminal, a plain line otherwise.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Where progress goes. Always standard error: standard output belongs to results.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self { terminal: std::io::stderr().is_terminal() }
    }
}

impl Progress {
    /// Runs one step that takes time, saying what it is and how long it took.
    ///
    /// # Errors
    /// What the step returns.
    pub fn step<T, E>(&self, what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let bar = self.start(what);
        self.timed(what, || {
            let result = work();
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            result
        })
    }

    /// Runs one step that shows its own progress on a terminal.
    ///
    /// # Errors
    /// What the step returns.
    pub fn loud_step<T, E>(&self, what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        eprintln!(" start  {what}");
        self.timed(what, work)
    }

    /// Whether progress is seen by a person rather than kept in a file.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    fn timed<T, E>(&self, what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let start = Instant::now();
        let result = work();
        let mark = if result.is_ok() { "done" } else { "FAILED" };
        eprintln!("{mark:>6}  {what} ({:.1} s)", start.elapsed().as_secs_f64());
        result
    }

    /// Says something in one line.
    pub fn note(&self, what: &str) {
        eprintln!("  note  {what}");
    }

    fn start(&self, what: &str) -> Option<ProgressBar> {
        if !self.terminal {
            eprintln!(" start  {what}");
            return None;
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner:>6}  {msg} [{elapsed}]") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Some(bar)
    }
}
