//! The thread that serves the interface.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Services;
use super::handlers::router;
use super::listener::PrivateListener;

use crate::sandbox::{self, Role};

/// How long requests under way may take to end when the server ends.
const GRACE: Duration = Duration::from_millis(500);

/// Why the interface cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another process serves the socket.
    #[error("another VM already serves {}; choose another --api-socket", .0.display())]
    InUse(PathBuf),
    /// Something else is in the socket's place.
    #[error("{} exists and is no socket; choose another --api-socket, or remove it", .0.display())]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen on {}; its directory must exist and be writable", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// No thread for the server.
    #[error("cannot start the control interface")]
    Thread(#[source] io::Error),
}

/// The served interface; dropping it ends the service and removes the socket.
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `services` on a new Unix socket at `path`. When this returns, requests are taken.
    ///
    /// # Errors
    /// [`ServerError`], which says what to do.
    pub fn start(path: &Path, services: Services) -> Result<Self, ServerError> {
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = sync_channel(1);
        let path = path.to_owned();
        let serve = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(ServerError::Thread(error)))),
            };
            runtime.block_on(async {
                let listener = match PrivateListener::bind(&path) {
                    Ok(listener) => listener,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                if ready.send(Ok(())).is_err() {
                    return;
                }
                sandbox::enter(Role::Operator);
                let server = axum::serve(listener, router(services));
                tokio::select! {
                    result = server => {
                        if let Err(error) = result {
                            tracing::error!(%error, "the control interface ended");
                        }
                    }
                    _ = stopped => tokio::time::sleep(GRACE / 10).await,
                }
            });
            // Requests that still block a thread are not waited for: they end with the process.
            runtime.shutdown_timeout(GRACE);
        };
        let thread = std::thread::Builder::new()
            .name("api".to_owned())
            .spawn(serve)
            .map_err(ServerError::Thread)?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self { stop: Some(stop), thread: Some(thread) }),
            Ok(Err(error)) => Err(error),
            Err(gone) => Err(ServerError::Thread(io::Error::other(gone))),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Fails only when the server has ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control interface's thread panicked");
        }
    }
}
