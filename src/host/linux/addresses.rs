//! Addresses of devices over rtnetlink (linux/if_addr.h).

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressFlags, AddressHeader, AddressHeaderFlags};

use super::attributes::{Attributes, ip, native};
use super::links::Names;
use super::netlink::{Handle, Message};
use super::routes;
use crate::config::units::{Family, Prefix};
use crate::route::links::Flaw;
use crate::route::resource::{Address, OUR_PROTOCOL};

/// IFA_PROTO.
const IFA_PROTO: u16 = 11;

/// How long a new address's route is waited for: it takes a millisecond, on a busy host some tens.
const WAIT: Duration = Duration::from_millis(5);
/// See [`WAIT`]: a second in all.
const WAITS: u32 = 200;

/// A message of an address.
type AddressMessage = Message<AddressHeader>;

/// All addresses of all devices, as the kernel lists them.
pub(super) async fn list(handle: &Handle) -> io::Result<Vec<AddressMessage>> {
    handle.list(AddressMessage::default()).await
}

/// Adds an address; the kernel refuses an equal one (EEXIST).
pub(super) async fn add(handle: &Handle, names: &Names, address: &Address) -> io::Result<()> {
    let index = names.index(&address.device)?;
    handle.add(&encode(address, index)).await?;
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
    handle.delete(&message).await
}

/// The message that adds `address` to the device with this index, marked as ours.
pub(super) fn encode(address: &Address, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    let header = &mut message.header;
    header.prefix_len = address.prefix.length();
    header.index = index;
    let local = address.prefix.address();
    // IFA_LOCAL is this end, IFA_ADDRESS the other one, or this one on a device of many
    // (linux/if_addr.h).
    message.attributes = Attributes::new()
        .ip(libc::IFA_LOCAL, local)
        .ip(libc::IFA_ADDRESS, address.peer.unwrap_or(local))
        // Shown by `ip address` as "proto 98"; kernels before 5.18 ignore it.
        .bytes(IFA_PROTO, &[OUR_PROTOCOL]);
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

/// What is wrong with a listed address as a source. The header has the lowest eight flags, the attribute
/// all of them; the kernel sets "deprecated" when the preferred life (IFA_CACHEINFO) has ended.
pub(super) fn flaw(message: &AddressMessage) -> Option<Flaw> {
    let flags = message
        .attributes
        .find(libc::IFA_FLAGS)
        .and_then(native)
        .unwrap_or_else(|| u32::from(message.header.flags.bits()));
    let has = |flag: u32| flags & flag != 0;
    if has(libc::IFA_F_TENTATIVE) && !has(libc::IFA_F_OPTIMISTIC) {
        Some(Flaw::Tentative)
    } else if has(libc::IFA_F_DEPRECATED | libc::IFA_F_OPTIMISTIC) {
        Some(Flaw::Deprecated)
    } else {
        // For IPv4 the same bit says "secondary".
        let temporary = has(libc::IFA_F_TEMPORARY) && message.header.family == AddressFamily::Inet6;
        temporary.then_some(Flaw::Temporary)
    }
}

/// Reads a listed address; nothing for a link-local one that the kernel made.
pub(super) fn decode(message: &AddressMessage, names: &Names) -> Option<Address> {
    let (mut local, mut other) = (None, None);
    for (kind, value) in message.attributes.iter() {
        match kind {
            libc::IFA_LOCAL => local = Some(ip(value)?),
            libc::IFA_ADDRESS => other = Some(ip(value)?),
            libc::IFA_FLAGS => {
                let flags = AddressFlags::from_bits_retain(native(value)?);
                if flags.contains(AddressFlags::Dadfailed) {
                    return None;
                }
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
