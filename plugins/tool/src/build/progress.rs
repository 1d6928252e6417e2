//! Shows on a terminal what a build is doing; silent anywhere else.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A line that spins while a step runs and goes away when dropped.
pub(super) struct Spinner {
    bar: Option<ProgressBar>,
    step: String,
}

impl Spinner {
    /// Starts the line, if standard error is a terminal.
    pub(super) fn start(step: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(step.to_owned());
            if let Ok(style) = ProgressStyle::with_template("{spinner} [{elapsed}] {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, step: step.to_owned() }
    }

    /// Shows `detail` behind the step's name.
    pub(super) fn say(&self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {detail}", self.step));
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
