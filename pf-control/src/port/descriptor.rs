//! An open file on its way from the daemon to a VMM, over the connection on which the VMM asked.
//!
//! The request is answered with `101 Switching Protocols`. The VMM then sends one byte, and gets one
//! with the descriptor attached (`SCM_RIGHTS`). Without the VMM's byte the descriptor could come
//! while its HTTP library still reads, and be thrown away.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What the connection is switched to.
pub const PROTOCOL: &str = "npa-descriptor";
/// The one byte that either side sends.
const BYTE: [u8; 1] = [1];

/// Sends the byte with `file` attached to the process at the other end, which has sent its own. Does
/// not wait.
///
/// # Errors
/// The other end has gone, or takes nothing.
pub fn send(stream: impl AsFd, file: impl AsFd) -> io::Result<()> {
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    // The space is for exactly that.
    let fits = message.push(SendAncillaryMessage::ScmRights(&files));
    debug_assert!(fits);
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(&stream, &[IoSlice::new(&BYTE)], &mut message, flags)?;
    Ok(())
}

/// Takes the file that the other end passes.
///
/// # Errors
/// None came within `patience`.
pub fn take(mut stream: UnixStream, patience: Duration) -> io::Result<OwnedFd> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(&BYTE)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    loop {
        let into = &mut [IoSliceMut::new(&mut byte)];
        match recvmsg(&stream, into, &mut message, RecvFlags::CMSG_CLOEXEC) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let file = message.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    file.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no descriptor came"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn a_file_arrives_open() {
        let (mut daemon, vmm) = UnixStream::pair().unwrap();
        let mut sent = tempfile::tempfile().unwrap();
        write!(sent, "seen").unwrap();
        io::Seek::rewind(&mut sent).unwrap();
        let taking = std::thread::spawn(move || take(vmm, PATIENCE));
        daemon.read_exact(&mut [0; 1]).unwrap();
        send(&daemon, sent).unwrap();
        let mut text = String::new();
        File::from(taking.join().unwrap().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "seen");
    }

    #[test]
    fn whoever_is_silent_or_gone_is_not_waited_for() {
        let (daemon, vmm) = UnixStream::pair().unwrap();
        assert!(take(vmm.try_clone().unwrap(), Duration::from_millis(10)).is_err());
        drop(vmm);
        assert!(send(&daemon, io::stderr()).is_err());
    }

    #[test]
    fn a_byte_without_a_file_is_an_error() {
        let (mut daemon, vmm) = UnixStream::pair().unwrap();
        daemon.write_all(&BYTE).unwrap();
        assert_eq!(take(vmm, PATIENCE).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
