//! Shows how far a move or a save is while another thread waits for its end.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;
use crate::api::{Client, ClientError};
use crate::migration::ProgressView;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

/// Does `request` on a client for `socket`, with a progress bar on a terminal.
pub(super) fn watched<T: Send>(
    socket: &Path,
    request: impl FnOnce(&Client) -> Result<T, ClientError> + Send,
) -> Result<T, Failure> {
    let watcher = Client::new(socket)?;
    std::thread::scope(|scope| {
        let asking = scope.spawn(move || request(&Client::new(socket)?));
        let bar = std::io::stderr().is_terminal().then(bar);
        while !asking.is_finished() {
            std::thread::sleep(INTERVAL);
            // Whatever is wrong, the request itself says it better.
            if let (Some(bar), Ok(view)) = (&bar, watcher.migration())
                && let Some(progress) = view.progress
            {
                show(bar, &progress);
            }
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        match asking.join() {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err("the request's thread panicked".into()),
        }
    })
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {prefix}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, progress: &ProgressView) {
    bar.set_length(progress.round_bytes);
    bar.set_position(progress.done_bytes);
    let round = match progress.round {
        0 => String::new(),
        round => format!(", pass {round}"),
    };
    bar.set_message(format!("{}{round}", progress.phase));
    let rate = progress.bytes_per_s as f64 / 1e6;
    let eta =
        progress.eta_ms.map_or(String::new(), |eta| format!(", {:.1} s to go", eta as f64 / 1e3));
    bar.set_prefix(format!("{rate:.0} MB/s{eta}"));
}
