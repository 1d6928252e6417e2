//! The wish to end: SIGTERM or SIGINT sets a flag that the loops look at.

use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Takes over SIGTERM and SIGINT.
pub(crate) fn install() -> Result<()> {
    let flag = FLAG.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, flag.clone()).context("cannot handle signals")?;
    }
    Ok(())
}

/// Whether somebody asked this process to end.
pub(crate) fn requested() -> bool {
    FLAG.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}
