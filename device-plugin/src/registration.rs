//! Making oneself known to the kubelet, each time that it starts.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Endpoint, Server};
use tower::service_fn;

use crate::service::Plugin;
use crate::v1beta1::device_plugin_server::DevicePluginServer;
use crate::v1beta1::registration_client::RegistrationClient;
use crate::v1beta1::{DevicePluginOptions, RegisterRequest};

/// The version of the interface.
const VERSION: &str = "v1beta1";
/// The kubelet's socket in its folder.
const KUBELET: &str = "kubelet.sock";
/// Pause between two looks at whether the kubelet has started anew. It then has removed our socket.
const LOOK: Duration = Duration::from_secs(1);
/// How long the kubelet may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a resource cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The plugin's own socket.
    #[error("cannot listen at {}; does the kubelet run, and is this root?", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The kubelet's socket.
    #[error("cannot reach the kubelet at {}", path.display())]
    Kubelet {
        /// Where.
        path: PathBuf,
        /// The reason.
        #[source]
        source: tonic::transport::Error,
    },
    /// The kubelet's answer.
    #[error("the kubelet refused {name}: {}", status.message())]
    Refused {
        /// The resource.
        name: String,
        /// What it said.
        status: Box<tonic::Status>,
    },
}

/// Offers one resource to the kubelet whose plugin folder is `folder`, for ever: anew each time that the
/// kubelet starts, and again after an error.
pub async fn serve(folder: &Path, plugin: Plugin) {
    let mut offered: Option<(u64, JoinHandle<()>)> = None;
    let mut complained = false;
    loop {
        let kubelet = std::fs::metadata(folder.join(KUBELET)).map(|file| file.ino()).ok();
        let own = folder.join(plugin.resource.endpoint());
        let stands = offered.as_ref().is_some_and(|(inode, server)| {
            Some(*inode) == kubelet && !server.is_finished() && own.exists()
        });
        if let Some(inode) = kubelet.filter(|_| !stands) {
            if let Some((_, server)) = offered.take() {
                server.abort();
            }
            match offer(folder, &plugin).await {
                Ok(server) => {
                    tracing::info!(resource = plugin.resource.name, "registered");
                    offered = Some((inode, server));
                    complained = false;
                }
                Err(error) => {
                    if !complained {
                        tracing::warn!(resource = plugin.resource.name, %error, "tried again every second");
                    }
                    complained = true;
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Serves the resource's socket, and registers it.
async fn offer(folder: &Path, plugin: &Plugin) -> Result<JoinHandle<()>, ServeError> {
    let endpoint = plugin.resource.endpoint();
    let path = folder.join(&endpoint);
    // A former one's, or none.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)
        .map_err(|source| ServeError::Listen { path: path.clone(), source })?;
    let serving = Server::builder()
        .add_service(DevicePluginServer::new(plugin.clone()))
        .serve_with_incoming(UnixListenerStream::new(listener));
    let server = tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the resource's socket is not served any more");
        }
    });
    match register(&folder.join(KUBELET), &plugin.resource.name, endpoint).await {
        Ok(()) => Ok(server),
        Err(error) => {
            server.abort();
            Err(error)
        }
    }
}

async fn register(socket: &Path, name: &str, endpoint: String) -> Result<(), ServeError> {
    let path = socket.to_owned();
    let connect = service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    // The address is not used, but has to be one.
    let channel = Endpoint::from_static("http://kubelet")
        .timeout(PATIENCE)
        .connect_with_connector(connect)
        .await
        .map_err(|source| ServeError::Kubelet { path: socket.to_owned(), source })?;
    let request = RegisterRequest {
        version: VERSION.to_owned(),
        endpoint,
        resource_name: name.to_owned(),
        options: Some(DevicePluginOptions::default()),
    };
    let answer = RegistrationClient::new(channel).register(request).await;
    answer
        .map(drop)
        .map_err(|status| ServeError::Refused { name: name.to_owned(), status: Box::new(status) })
}
