use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::*;

/// Somebody who signs certificates.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca"), certificate.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A host called `name` that trusts whomever `trusted` signs.
    fn host(&self, name: &str, trusted: &Self) -> Identity {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file("cert"), certificate.pem()).unwrap();
        std::fs::write(self.file("key"), key.serialize_pem()).unwrap();
        Identity::read(&self.file("cert"), &self.file("key"), &trusted.file("ca")).unwrap()
    }
}

/// Whether a byte goes there and back between two hosts.
fn talk(server: Option<Identity>, client: Option<&Identity>, scheme: &str) -> bool {
    let endpoint = format!("{}:127.0.0.1:0", if server.is_some() { "tls" } else { "tcp" });
    let listener = Listener::bind(endpoint.parse().unwrap(), server).unwrap();
    let port = listener.endpoint().to_string().rsplit(':').next().unwrap().to_owned();
    let other = std::thread::spawn(move || {
        let mut stream = listener.accept().ok()?;
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        stream.write_all(&byte).ok()?;
        stream.flush().ok()
    });
    let wake = format!("127.0.0.1:{port}");
    let to = format!("{scheme}:localhost:{port}").parse().unwrap();
    let talked = connect(&to, client).is_ok_and(|mut stream| {
        let mut byte = [0];
        stream.write_all(&[7]).is_ok()
            && stream.flush().is_ok()
            && stream.read_exact(&mut byte).is_ok()
            && byte == [7]
    });
    // For a client that gave up before it connected.
    drop(TcpStream::connect(wake));
    let answered = other.join().unwrap().is_some();
    talked && answered
}

#[test]
fn hosts_that_one_authority_signed_talk_and_others_do_not() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = || ours.host("localhost", &ours);
    assert!(talk(Some(server()), Some(&ours.host("source", &ours)), "tls"));
    // A client that somebody else signed, a server that somebody else signed, another name.
    assert!(!talk(Some(server()), Some(&theirs.host("source", &ours)), "tls"));
    assert!(!talk(Some(theirs.host("localhost", &ours)), Some(&ours.host("source", &ours)), "tls"));
    assert!(!talk(Some(ours.host("elsewhere", &ours)), Some(&ours.host("source", &ours)), "tls"));
    // No certificate at all, and no TLS at all.
    assert!(!talk(Some(server()), None, "tls"));
    assert!(!talk(Some(server()), None, "tcp"));
    assert!(talk(None, None, "tcp"));
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let authority = Authority::new();
    let missing = authority.file("nowhere");
    let error = Identity::read(&missing, &missing, &missing).err().unwrap();
    assert!(error.to_string().contains("nowhere"), "{error}");
    std::fs::write(authority.file("key"), "rubbish").unwrap();
    let (key, ca) = (authority.file("key"), authority.file("ca"));
    let error = Identity::read(&ca, &key, &ca).err().unwrap();
    assert!(error.to_string().contains("private key"), "{error}");
    let tls: Endpoint = "tls:127.0.0.1:0".parse().unwrap();
    let error = Listener::bind(tls, None).err().unwrap();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("--tls-cert"), "{source}");
}

#[test]
fn addresses_are_understood() {
    for good in ["tcp:host:4000", "tls:10.0.0.1:1", "unix:/run/there", "tcp:[::1]:9"] {
        assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
    }
    for bad in
        ["", "host", "host:4000", "tcp:host", "tcp::4000", "tcp:host:70000", "unix:", "ftp:a:1"]
    {
        let error = bad.parse::<Endpoint>().unwrap_err();
        assert!(error.to_string().contains("write tcp:HOST:PORT"), "{error}");
    }
}

#[test]
fn a_socket_that_nobody_serves_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    let listener = Listener::bind(Endpoint::Unix(path.clone()), None).unwrap();
    assert!(Listener::bind(Endpoint::Unix(path.clone()), None).is_err());
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn a_limited_stream_takes_its_time() {
    let (here, there) = UnixStream::pair().unwrap();
    let reader = std::thread::spawn(move || io::copy(&mut { there }, &mut io::sink()));
    let mut limited = Limited::new(Box::new(here), 1_000_000);
    let started = std::time::Instant::now();
    for _ in 0..10 {
        limited.write_all(&[0; 10_000]).unwrap();
    }
    // A tenth of a second's worth, less what may go at once.
    assert!(started.elapsed() >= Duration::from_millis(75), "{:?}", started.elapsed());
    drop(limited);
    assert_eq!(reader.join().unwrap().unwrap(), 100_000);
}
