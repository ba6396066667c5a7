//! Proxy neighbours over rtnetlink (linux/neighbour.h, NTF_PROXY).

use std::io;
use std::net::IpAddr;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourHeader, NeighbourState};

use super::attributes::{Attributes, ip};
use super::links::Names;
use super::netlink::{Handle, Message};
use crate::route::resource::{OUR_PROTOCOL, ProxyNeighbour};

/// NDA_PROTOCOL.
const NDA_PROTOCOL: u16 = 12;

/// A message of a neighbour.
type NeighbourMessage = Message<NeighbourHeader>;

/// All proxy neighbours of both families, as the kernel lists them.
pub(super) async fn list(handle: &Handle) -> io::Result<Vec<NeighbourMessage>> {
    let mut message = NeighbourMessage::default();
    message.header.flags = NeighbourFlags::Proxy;
    handle.list(message).await
}

/// Adds one. The kernel would put our mark on an equal one of somebody else and say nothing
/// (neigh_add heeds no NLM_F_EXCL for proxies), so that is looked for first.
pub(super) async fn add(
    handle: &Handle,
    names: &Names,
    neighbour: &ProxyNeighbour,
) -> io::Result<()> {
    let listed = list(handle).await?;
    if listed
        .iter()
        .any(|message| decode(message, names).as_ref() == Some(neighbour))
    {
        return Err(io::Error::from_raw_os_error(libc::EEXIST));
    }
    let index = names.index(&neighbour.device)?;
    handle.add(&encode(neighbour, index)).await
}

/// The message that adds `neighbour` to the device with this index, marked as ours.
pub(super) fn encode(neighbour: &ProxyNeighbour, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match neighbour.address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Proxy;
    message.attributes = Attributes::new()
        .ip(libc::NDA_DST, neighbour.address)
        .bytes(NDA_PROTOCOL, &[OUR_PROTOCOL]);
    message
}

/// Deletes ours, by the kernel's own message.
pub(super) async fn delete(
    handle: &Handle,
    names: &Names,
    neighbour: &ProxyNeighbour,
) -> io::Result<()> {
    let found = list(handle)
        .await?
        .into_iter()
        .find(|message| is_ours(message) && decode(message, names).as_ref() == Some(neighbour));
    let message = found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
    handle.delete(&message).await
}

/// True when it carries our mark.
pub(super) fn is_ours(message: &NeighbourMessage) -> bool {
    message.attributes.find(NDA_PROTOCOL) == Some(&[OUR_PROTOCOL])
}

/// Reads a listed neighbour; nothing for one that is no proxy or of every device.
pub(super) fn decode(message: &NeighbourMessage, names: &Names) -> Option<ProxyNeighbour> {
    if !message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let address = message.attributes.find(libc::NDA_DST).and_then(ip)?;
    Some(ProxyNeighbour {
        device: names.name(message.header.ifindex)?.clone(),
        address,
    })
}
