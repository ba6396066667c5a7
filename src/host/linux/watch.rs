//! The kernel's notices of changes: rtnetlink multicast (linux/rtnetlink.h, RTNLGRP_*).

use std::io;

use futures_util::StreamExt;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::proto::new_connection;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket as _, SocketAddr};

use super::netlink::Raw;

/// What is listened to: everything that our state and the links are made of. nf_tables has no
/// notice here; the periodic resync sees to it.
const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// A socket that hears of changes.
pub(super) struct Watch {
    notices: std::pin::Pin<Box<dyn futures_util::Stream<Item = (NetlinkMessage<Raw>, SocketAddr)>>>,
    talk: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Subscribes; from now on no change is missed, only repeated.
    pub(super) fn open() -> io::Result<Self> {
        let (mut connection, _, notices) = new_connection(NETLINK_ROUTE)?;
        let groups = GROUPS.map(|group| 1 << (group as u32 - 1));
        let address = SocketAddr::new(0, groups.iter().fold(0, |all, group| all | group));
        connection.socket_mut().socket_mut().bind(&address)?;
        Ok(Self {
            notices: Box::pin(notices),
            talk: tokio::spawn(connection),
        })
    }

    /// Waits for a change, then takes all that are waiting with it.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        let closed = || io::Error::other("the netlink socket was closed");
        self.notices.next().await.ok_or_else(closed)?;
        while let Some(more) = futures_util::FutureExt::now_or_never(self.notices.next()) {
            more.ok_or_else(closed)?;
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.talk.abort();
    }
}
