//! Sockets that lose nothing of their own accord.

use std::net::UdpSocket;

/// Bytes of receive buffer: some ten thousand frames, seconds of a stream.
const RECEIVE_BUFFER: usize = 32 << 20;

/// Makes room for what arrives while this program is not scheduled, so that a loss that it
/// reports happened on the way. Only root may go beyond the system's limit; others get as much as
/// that allows.
pub(crate) fn enlarge_receive_buffer(socket: &UdpSocket) {
    use rustix::net::sockopt;
    sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER))
        .ok();
}
