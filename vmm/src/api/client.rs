//! The other end of the interface, for `vmm ctl` and for tests.

use std::io;
use std::path::{Path, PathBuf};

use axum::http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use super::error::{ApiError, ErrorBody};
use super::moving::{MigrateRequest, MigrationView, SnapshotRequest};
use super::status::{SwitchReport, VmStatus};
use crate::migration::Report;

/// Why a request had no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody serves the socket.
    #[error("cannot reach a VM at {}; is it running, with this --api-socket?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The connection broke; the VM may have ended.
    #[error("the VM ended the connection")]
    Broken(#[from] hyper::Error),
    /// The answer is not understood.
    #[error("the VM's answer is not understood; is it another version?")]
    Answer(#[from] serde_json::Error),
    /// The VM refused.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// No runtime for the request.
    #[error("cannot make a request")]
    Runtime(#[source] io::Error),
    /// The path of a request is not possible, for instance for a device name with a space.
    #[error("this cannot be the name of a device")]
    Name(#[from] axum::http::Error),
}

/// Makes requests to the VM behind a socket, one at a time.
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// A client for the VM that serves `socket`. Connects with each request.
    ///
    /// # Errors
    /// [`ClientError::Runtime`].
    pub fn new(socket: &Path) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ClientError::Runtime)?;
        Ok(Self { socket: socket.to_owned(), runtime })
    }

    /// Status of the VM and its devices.
    ///
    /// # Errors
    /// [`ClientError`], as for all requests.
    pub fn status(&self) -> Result<VmStatus, ClientError> {
        self.json(Method::GET, "/v1/vm")
    }

    /// Counters as Prometheus text.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn metrics(&self) -> Result<String, ClientError> {
        let body = self.request(Method::GET, "/metrics")?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Holds the VM.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn pause(&self) -> Result<(), ClientError> {
        self.request(Method::POST, "/v1/vm/pause").map(drop)
    }

    /// Lets the VM run on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn resume(&self) -> Result<(), ClientError> {
        self.request(Method::POST, "/v1/vm/resume").map(drop)
    }

    /// Ends the VM.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn shutdown(&self) -> Result<(), ClientError> {
        self.request(Method::POST, "/v1/vm/shutdown").map(drop)
    }

    /// Puts device `id` on a VF.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn attach(&self, id: &str) -> Result<SwitchReport, ClientError> {
        self.json(Method::POST, &format!("/v1/devices/{id}/attach"))
    }

    /// Puts device `id` on a VF as soon as it can have one, and does not wait for that.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn attach_when_free(&self, id: &str) -> Result<(), ClientError> {
        self.request(Method::POST, &format!("/v1/devices/{id}/attach-when-free")).map(drop)
    }

    /// Takes device `id` back to emulation.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn detach(&self, id: &str) -> Result<SwitchReport, ClientError> {
        self.json(Method::POST, &format!("/v1/devices/{id}/detach"))
    }

    /// Moves the VM. Returns when it runs elsewhere.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn migrate(&self, request: &MigrateRequest) -> Result<Report, ClientError> {
        self.post_json("/v1/vm/migrate", request)
    }

    /// Saves the VM.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn snapshot(&self, request: &SnapshotRequest) -> Result<Report, ClientError> {
        self.post_json("/v1/vm/snapshot", request)
    }

    /// How far a move or save is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn migration(&self) -> Result<MigrationView, ClientError> {
        self.json(Method::GET, "/v1/vm/migration")
    }

    /// Ends the move or save that is under way.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn cancel_migration(&self) -> Result<(), ClientError> {
        self.request(Method::POST, "/v1/vm/migration/cancel").map(drop)
    }

    fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body)?;
        let (status, answer) = self.raw_with(Method::POST, path, body)?;
        Ok(serde_json::from_slice(&checked(status, answer)?)?)
    }

    fn json<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, ClientError> {
        Ok(serde_json::from_slice(&self.request(method, path)?)?)
    }

    fn request(&self, method: Method, path: &str) -> Result<Bytes, ClientError> {
        let (status, body) = self.raw(method, path)?;
        checked(status, body)
    }

    /// A request and its answer, whatever it is.
    pub(super) fn raw(
        &self,
        method: Method,
        path: &str,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        self.raw_with(method, path, Vec::new())
    }

    fn raw_with(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "vmm")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        self.runtime.block_on(async {
            let stream = UnixStream::connect(&self.socket)
                .await
                .map_err(|source| ClientError::Connect { path: self.socket.clone(), source })?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            // Ends with the request or with an error that the request sees too.
            tokio::spawn(connection);
            let response = sender.send_request(request).await?;
            let status = response.status();
            Ok((status, response.into_body().collect().await?.to_bytes()))
        })
    }
}

fn checked(status: StatusCode, body: Bytes) -> Result<Bytes, ClientError> {
    if status.is_success() {
        return Ok(body);
    }
    Err(serde_json::from_slice::<ErrorBody>(&body)?.error.into())
}
