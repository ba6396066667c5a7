//! Addresses of devices over rtnetlink (linux/if_addr.h).

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol,
};

use super::links::Names;
use super::to_io;
use crate::config::units::{Family, Prefix};
use crate::route::resource::{Address, OUR_PROTOCOL};

/// All addresses of all devices, as the kernel lists them.
pub(super) async fn list(handle: &Handle) -> io::Result<Vec<AddressMessage>> {
    handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(to_io)
}

/// Adds an address; the kernel refuses an equal one (EEXIST).
pub(super) async fn add(handle: &Handle, names: &Names, address: &Address) -> io::Result<()> {
    let index = names.index(&address.device)?;
    let mut request =
        handle
            .address()
            .add(index, address.prefix.address(), address.prefix.length());
    *request.message_mut() = encode(address, index);
    request.execute().await.map_err(to_io)
}

/// Deletes an address by the kernel's own message.
pub(super) async fn delete(handle: &Handle, names: &Names, address: &Address) -> io::Result<()> {
    let found = list(handle)
        .await?
        .into_iter()
        .find(|message| decode(message, names).as_ref() == Some(address));
    let message = found.ok_or_else(|| io::Error::from_raw_os_error(libc::EADDRNOTAVAIL))?;
    handle.address().del(message).execute().await.map_err(to_io)
}

fn encode(address: &Address, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    let header = &mut message.header;
    header.prefix_len = address.prefix.length();
    header.index = index;
    let local = address.prefix.address();
    // IFA_LOCAL is this end, IFA_ADDRESS the other one, or this one on a device of many
    // (linux/if_addr.h).
    message.attributes = vec![
        AddressAttribute::Local(local),
        AddressAttribute::Address(address.peer.unwrap_or(local)),
        // Shown by `ip address` as "proto 98"; kernels before 5.18 ignore it.
        AddressAttribute::Protocol(AddressProtocol::from(OUR_PROTOCOL)),
    ];
    header.family = match address.prefix.family() {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => {
            // The address is unique by the tunnel's keys: detection of duplicates would only
            // make it unusable for a second (RFC 4862 section 5.4).
            header.flags = AddressHeaderFlags::Nodad;
            AddressFamily::Inet6
        }
    };
    message
}

/// Reads a listed address; nothing for a link-local one that the kernel made.
pub(super) fn decode(message: &AddressMessage, names: &Names) -> Option<Address> {
    let (mut local, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Dadfailed) => {
                return None;
            }
            _ => {}
        }
    }
    // IPv6 lists IFA_LOCAL only when there is a peer.
    let own = local.or(other)?;
    if matches!(own, IpAddr::V6(address) if address.is_unicast_link_local()) {
        return None;
    }
    Some(Address {
        device: names.name(message.header.index)?.clone(),
        prefix: Prefix::new(own, message.header.prefix_len)?,
        peer: other.filter(|other| *other != own),
    })
}
