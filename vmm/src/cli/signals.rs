//! SIGTERM and SIGINT end the VM in good order.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::sandbox::{self, Role};

/// Calls `stop` when the process is asked to end, as often as it is asked.
///
/// # Errors
/// When the host has no thread or descriptor left.
pub(super) fn stop_on_signals(stop: impl Fn() + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    // Ends with the process.
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        sandbox::enter(Role::Operator);
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!("asked to end");
                stop();
            }
        });
    })?;
    Ok(())
}
