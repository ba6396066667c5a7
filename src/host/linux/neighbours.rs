//! Proxy neighbours over rtnetlink (linux/neighbour.h, NTF_PROXY).

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};

use super::links::Names;
use super::to_io;
use crate::route::resource::{OUR_PROTOCOL, ProxyNeighbour};

/// All proxy neighbours of both families, as the kernel lists them.
pub(super) async fn list(handle: &Handle) -> io::Result<Vec<NeighbourMessage>> {
    handle
        .neighbours()
        .get()
        .proxies()
        .execute()
        .try_collect()
        .await
        .map_err(to_io)
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
    let mut request = handle
        .neighbours()
        .add(index, neighbour.address)
        .flags(NeighbourFlags::Proxy);
    let mark = NeighbourAttribute::Protocol(OUR_PROTOCOL.into());
    request.message_mut().attributes.push(mark);
    request.execute().await.map_err(to_io)
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
    handle
        .neighbours()
        .del(message)
        .execute()
        .await
        .map_err(to_io)
}

/// True when it carries our mark.
pub(super) fn is_ours(message: &NeighbourMessage) -> bool {
    let mark = NeighbourAttribute::Protocol(OUR_PROTOCOL.into());
    message.attributes.contains(&mark)
}

/// Reads a listed neighbour; nothing for one that is no proxy or of every device.
pub(super) fn decode(message: &NeighbourMessage, names: &Names) -> Option<ProxyNeighbour> {
    if !message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            _ => None,
        })?;
    Some(ProxyNeighbour {
        device: names.name(message.header.ifindex)?.clone(),
        address,
    })
}
