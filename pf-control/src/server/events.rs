//! The inventory's changes, for whoever follows them: VMMs that are to give a VF back or wait for
//! one, and people.
//!
//! What is sent is how things are, never how they came to be so: a reader that was slow, or came
//! late, or whose daemon was another one, knows as much as one that was there all the time.

use crate::ops::VfEntry;
use crate::pool::Pool;
use axum::body::Bytes;
use futures::stream::{self, Stream};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Longest silence.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// All VFs, as they are now.
pub(super) type Inventory = watch::Receiver<Arc<Vec<VfEntry>>>;

/// Starts the task that looks at the VFs whenever something changes, once for all readers.
pub(super) fn publish(pool: Arc<Pool>) -> Inventory {
    let (publisher, inventory) = watch::channel(Arc::default());
    let mut changes = pool.changes();
    tokio::spawn(async move {
        loop {
            changes.mark_unchanged();
            let pool = Arc::clone(&pool);
            // A panic there is logged by its thread; the next change is another attempt.
            if let Ok(entries) = spawn_blocking(move || pool.list()).await {
                publisher.send_replace(Arc::new(entries));
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
    inventory
}

struct Reader<F> {
    inventory: Inventory,
    sees: F,
    sent: Vec<VfEntry>,
}

/// The lines for one reader, who sees what `sees` says.
pub(super) fn lines(
    mut inventory: Inventory,
    sees: impl Fn(&VfEntry) -> bool + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    inventory.mark_changed();
    let reader = Reader { inventory, sees, sent: Vec::new() };
    stream::unfold(reader, |mut reader| async move {
        match timeout(HEARTBEAT, reader.inventory.changed()).await {
            Ok(Ok(())) => {}
            // The daemon ends.
            Ok(Err(_)) => return None,
            Err(_) => return Some((Ok(Bytes::from_static(b"\n")), reader)),
        }
        let now = Arc::clone(&reader.inventory.borrow_and_update());
        let text = reader.news(&now);
        Some((Ok(Bytes::from(text)), reader))
    })
}

impl<F: Fn(&VfEntry) -> bool> Reader<F> {
    /// What has changed for this reader. A VF that went out of its sight is shown no more.
    fn news(&mut self, now: &[VfEntry]) -> String {
        let seen: Vec<VfEntry> = now.iter().filter(|entry| (self.sees)(entry)).cloned().collect();
        let mut text: String = seen
            .iter()
            .filter(|entry| !self.sent.contains(entry))
            .filter_map(|entry| serde_json::to_string(entry).ok())
            .map(|line| line + "\n")
            .collect();
        // Something is always said, so that a reader knows that it is heard.
        if text.is_empty() {
            text.push('\n');
        }
        self.sent = seen;
        text
    }
}
