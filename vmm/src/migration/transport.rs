//! Where another host is reached, and how: TCP, TLS over TCP with certificates on both sides, or a
//! Unix socket. Knows nothing of what goes over it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::channel::{Channel, Stream};
use super::error::MigrationError;

/// Longest wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Longest that a stream may stand still in either direction.
const STALL_LIMIT: Duration = Duration::from_secs(10);

/// Where another host is, or where this one is reached: `tcp:HOST:PORT`, `tls:HOST:PORT` or
/// `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Unencrypted: for a network that is trusted.
    Tcp(String),
    /// Encrypted; both ends show a certificate.
    Tls(String),
    /// A Unix socket of this host.
    Unix(PathBuf),
}

/// A text that is no [`Endpoint`].
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no address of a host; write tcp:HOST:PORT, tls:HOST:PORT or unix:PATH")]
pub struct ParseEndpoint(String);

impl FromStr for Endpoint {
    type Err = ParseEndpoint;

    fn from_str(text: &str) -> Result<Self, ParseEndpoint> {
        let error = || ParseEndpoint(text.to_owned());
        let (scheme, rest) = text.split_once(':').ok_or_else(error)?;
        let has_port = || {
            let port = rest.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            port.and_then(|(_, port)| port.parse::<u16>().ok()).ok_or_else(error)
        };
        match scheme {
            "unix" if !rest.is_empty() => Ok(Self::Unix(rest.into())),
            "tcp" => has_port().map(|_| Self::Tcp(rest.to_owned())),
            "tls" => has_port().map(|_| Self::Tls(rest.to_owned())),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => write!(f, "tcp:{at}"),
            Self::Tls(at) => write!(f, "tls:{at}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// This host's certificate, its key, and who signs certificates of hosts that are trusted.
#[derive(Clone)]
pub struct Identity {
    certificates: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
    roots: Arc<RootCertStore>,
}

/// Files that make no [`Identity`].
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not PEM, or not there.
    #[error("cannot read {} from {}: {reason}", what, path.display())]
    File {
        /// What should be in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// They do not belong together.
    #[error("the certificates cannot be used")]
    Unusable(#[from] rustls::Error),
    /// Nobody would be trusted.
    #[error("the certificates cannot be used to check the other end")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// A `tls:` address without files.
    #[error("tls needs --tls-cert, --tls-key and --tls-ca")]
    Missing,
}

impl Identity {
    /// Reads three PEM files.
    ///
    /// # Errors
    /// [`IdentityError`] names the file.
    pub fn read(certificate: &Path, key: &Path, authority: &Path) -> Result<Self, IdentityError> {
        fn failed(
            what: &'static str,
            path: &Path,
        ) -> impl Fn(rustls::pki_types::pem::Error) -> IdentityError {
            let path = path.to_owned();
            move |error| IdentityError::File { what, path: path.clone(), reason: error.to_string() }
        }
        let list = |what, path: &Path| -> Result<Vec<_>, IdentityError> {
            CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect)
                .map_err(failed(what, path))
        };
        let certificates = list("a certificate", certificate)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(failed("a private key", key))?;
        let mut roots = RootCertStore::empty();
        for root in list("the authority's certificate", authority)? {
            roots.add(root)?;
        }
        Ok(Self { certificates, key: Arc::new(key), roots: Arc::new(roots) })
    }

    fn client(&self) -> Result<ClientConfig, IdentityError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&self.roots));
        Ok(builder.with_client_auth_cert(self.certificates.clone(), self.key.clone_key())?)
    }

    fn server(&self) -> Result<ServerConfig, IdentityError> {
        let provider = provider();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider.clone())
                .build()?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier);
        Ok(builder.with_single_cert(self.certificates.clone(), self.key.clone_key())?)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}

fn limit_tcp(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL_LIMIT))?;
    stream.set_write_timeout(Some(STALL_LIMIT))
}

fn limit_unix(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(STALL_LIMIT))?;
    stream.set_write_timeout(Some(STALL_LIMIT))
}

/// Connects to the host at `endpoint`.
///
/// # Errors
/// [`MigrationError::Connect`].
pub fn connect(
    endpoint: &Endpoint,
    identity: Option<&Identity>,
) -> Result<Box<dyn Stream>, MigrationError> {
    let connected = match endpoint {
        Endpoint::Unix(path) => UnixStream::connect(path).and_then(|stream| {
            limit_unix(&stream)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        }),
        Endpoint::Tcp(at) => connect_tcp(at).map(|stream| Box::new(stream) as Box<dyn Stream>),
        Endpoint::Tls(at) => connect_tls(at, identity),
    };
    connected.map_err(|source| MigrationError::Connect { endpoint: endpoint.to_string(), source })
}

fn connect_tcp(at: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in at.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
            Ok(stream) => {
                limit_tcp(&stream)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_tls(at: &str, identity: Option<&Identity>) -> io::Result<Box<dyn Stream>> {
    let identity = identity.ok_or_else(|| other(IdentityError::Missing))?;
    let host = at.rsplit_once(':').map_or(at, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(other)?;
    let config = Arc::new(identity.client().map_err(other)?);
    let connection = ClientConnection::new(config, name).map_err(other)?;
    let mut stream = rustls::StreamOwned::new(connection, connect_tcp(at)?);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(Box::new(stream))
}

/// Waits for a host that moves a VM here. Dropping it gives the address back.
pub struct Listener {
    socket: Socket,
    identity: Option<Identity>,
    endpoint: Endpoint,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens at `endpoint`. A Unix socket that nobody serves any more is replaced.
    ///
    /// # Errors
    /// [`MigrationError::Listen`].
    pub fn bind(endpoint: Endpoint, identity: Option<Identity>) -> Result<Self, MigrationError> {
        let socket = match &endpoint {
            Endpoint::Unix(path) => bind_unix(path).map(Socket::Unix),
            Endpoint::Tcp(at) => TcpListener::bind(at.as_str()).map(Socket::Tcp),
            Endpoint::Tls(at) => match &identity {
                // What is wrong with the certificates is told now, not when a host comes.
                Some(identity) => identity
                    .server()
                    .map_err(other)
                    .and_then(|_| TcpListener::bind(at.as_str()).map(Socket::Tcp)),
                None => Err(other(IdentityError::Missing)),
            },
        };
        let socket = socket
            .map_err(|source| MigrationError::Listen { endpoint: endpoint.to_string(), source })?;
        Ok(Self { socket, identity, endpoint })
    }

    /// The address, with the port that the system chose where port 0 was asked for.
    pub fn endpoint(&self) -> Endpoint {
        match (&self.socket, &self.endpoint) {
            (Socket::Tcp(socket), Endpoint::Tcp(_)) => socket
                .local_addr()
                .map_or(self.endpoint.clone(), |at| Endpoint::Tcp(at.to_string())),
            (Socket::Tcp(socket), Endpoint::Tls(at)) => {
                let host = at.rsplit_once(':').map_or(at.as_str(), |(host, _)| host);
                let port = socket.local_addr().map_or(0, |at| at.port());
                Endpoint::Tls(format!("{host}:{port}"))
            }
            _ => self.endpoint.clone(),
        }
    }

    /// Waits for the first host that connects and is a vmm of this protocol, with a certificate
    /// that is trusted where that is asked for. Whoever else comes is sent away.
    pub fn wait(&self) -> Channel {
        /// Between two attempts: a system without descriptors is not to be made worse.
        const PAUSE: Duration = Duration::from_millis(100);
        loop {
            let opened = self
                .accept()
                .and_then(|stream| Channel::open(stream).map_err(MigrationError::at("greeting")));
            match opened {
                Ok(channel) => return channel,
                Err(error) => {
                    let error = crate::api::chain(&error);
                    tracing::warn!(error, "sent away, and still waiting for a VM");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Waits for the first host that connects.
    ///
    /// # Errors
    /// [`MigrationError::Listen`] when it shows no certificate that is trusted, for example.
    fn accept(&self) -> Result<Box<dyn Stream>, MigrationError> {
        let accepted = match &self.socket {
            Socket::Unix(socket) => socket.accept().and_then(|(stream, _)| {
                limit_unix(&stream)?;
                Ok(Box::new(stream) as Box<dyn Stream>)
            }),
            Socket::Tcp(socket) => socket.accept().and_then(|(stream, _)| {
                limit_tcp(&stream)?;
                match (&self.endpoint, &self.identity) {
                    (Endpoint::Tls(_), Some(identity)) => accept_tls(stream, identity),
                    _ => Ok(Box::new(stream) as Box<dyn Stream>),
                }
            }),
        };
        accepted.map_err(|source| MigrationError::Listen {
            endpoint: self.endpoint.to_string(),
            source,
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Endpoint::Unix(path) = &self.endpoint {
            // It may be gone already.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

fn accept_tls(stream: TcpStream, identity: &Identity) -> io::Result<Box<dyn Stream>> {
    let config = Arc::new(identity.server().map_err(other)?);
    let connection = ServerConnection::new(config).map_err(other)?;
    let mut stream = rustls::StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(Box::new(stream))
}

/// Lets through only so many bytes per second on the way out.
pub(super) struct Limited {
    stream: Box<dyn Stream>,
    bytes_per_s: f64,
    /// Bytes that may go at once; negative while they are owed.
    credit: f64,
    last: std::time::Instant,
}

impl Limited {
    pub(super) fn new(stream: Box<dyn Stream>, bytes_per_s: u64) -> Self {
        let bytes_per_s = bytes_per_s.max(1) as f64;
        Self { stream, bytes_per_s, credit: 0.0, last: std::time::Instant::now() }
    }
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Limited {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        /// Longest saved-up burst, in seconds of the rate.
        const BURST: f64 = 0.01;
        let now = std::time::Instant::now();
        let earned = (now - self.last).as_secs_f64() * self.bytes_per_s;
        self.last = now;
        self.credit = (self.credit + earned).min(self.bytes_per_s * BURST);
        if self.credit < 0.0 {
            std::thread::sleep(Duration::from_secs_f64(-self.credit / self.bytes_per_s));
        }
        let written = self.stream.write(buffer)?;
        self.credit -= written as f64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
#[path = "transport_test.rs"]
mod tests;
