//! What the kernel tells of network interfaces by itself: up, down, link, renamed, gone.

use futures::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use std::io;

/// Calls `changed` with the name of each interface of which something changes, for as long as the
/// runtime of the caller lives.
///
/// # Errors
/// The kernel has no netlink, or no descriptor is left.
pub fn follow_links(changed: impl Fn(&str) + Send + 'static) -> io::Result<()> {
    let (connection, _handle, mut messages) =
        rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    tokio::spawn(connection);
    tokio::spawn(async move {
        while let Some((message, _)) = messages.next().await {
            let NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link),
            ) = message.payload
            else {
                continue;
            };
            for attribute in &link.attributes {
                if let LinkAttribute::IfName(name) = attribute {
                    changed(name);
                }
            }
        }
        tracing::error!("the kernel tells of no more links");
    });
    Ok(())
}
