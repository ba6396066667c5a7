//! Addresses of devices over rtnetlink (linux/if_addr.h).

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol,
};

use super::links::Names;
use super::{routes, to_io};
use crate::config::units::{Family, Prefix};
use crate::route::resource::{Address, OUR_PROTOCOL};

/// How long a new address's route is waited for: it takes a millisecond, on a busy host some tens.
const WAIT: Duration = Duration::from_millis(5);
/// See [`WAIT`]: a second in all.
const WAITS: u32 = 200;

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
    request.execute().await.map_err(to_io)?;
    if address.prefix.family() == Family::V6 {
        wait_for_route(handle, address, index).await?;
    }
    Ok(())
}

/// IPv6 enters an address into its tables later, in a work queue, even without detection of
/// duplicates (addrconf_dad_work); a next hop behind it would be refused until then. A device that
/// is down gets no route, which the step that needs it will tell.
async fn wait_for_route(handle: &Handle, address: &Address, index: u32) -> io::Result<()> {
    let to = Prefix::host(address.peer.unwrap_or(address.prefix.address()));
    for _ in 0..WAITS {
        let listed = routes::list(handle, Family::V6).await?;
        if listed.iter().any(|route| routes::leads(route, to, index)) {
            break;
        }
        tokio::time::sleep(WAIT).await;
    }
    Ok(())
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
