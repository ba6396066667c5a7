//! Two hosts with two cables between them, without a shape:
//!
//! ```text
//! local  wan0 10.10.0.2 ==veth== 10.10.0.1 link0  remote (203.0.113.2 on lo)
//!        wan1 10.11.0.2 ==veth== 10.11.0.1 link1
//! ```
//!
//! Every candidate has both cables, whatever it uses of them. MTU 1500, offloads as the kernel
//! gives them.

use std::net::{IpAddr, Ipv4Addr};

use crate::error::Error;
use crate::net::{Namespace, Netlink, VethEnd, Watch};
use crate::portal::Side;
use crate::topology::{Lab, PUBLIC, settings};

/// The links that netcombiner can have.
const CABLES: usize = 2;

const DEFAULT: (Ipv4Addr, u8) = (Ipv4Addr::UNSPECIFIED, 0);

/// The two hosts. Dropped, they are gone, once the processes in them are.
#[derive(Debug)]
pub(super) struct Pair {
    local: Namespace,
    remote: Namespace,
}

impl Pair {
    /// Makes them; `watch` will look for what is left of them.
    pub(super) fn start(watch: &mut Watch) -> Result<Self, Error> {
        let mut host = |side: Side| -> Result<Namespace, Error> {
            let host = Namespace::new(side.name())?;
            watch.add(&host)?;
            settings(&host, 0)?;
            Ok(host)
        };
        let pair = Self {
            local: host(Side::Local)?,
            remote: host(Side::Remote)?,
        };
        for cable in 0..CABLES {
            pair.connect(cable)?;
        }
        let mut remote = pair.remote.netlink()?;
        remote.add_address("lo", IpAddr::V4(PUBLIC), 32)?;
        for host in [&pair.local, &pair.remote] {
            host.netlink()?.settle()?;
        }
        Ok(pair)
    }

    /// The host of a side.
    pub(super) const fn host(&self, side: Side) -> &Namespace {
        match side {
            Side::Local => &self.local,
            Side::Remote => &self.remote,
        }
    }

    fn connect(&self, cable: usize) -> Result<(), Error> {
        let (wan, link) = (Lab::wan(cable), format!("link{cable}"));
        let end = |namespace, device| VethEnd { namespace, device };
        Netlink::add_veth(end(&self.local, &wan), end(&self.remote, &link))?;
        let (mut local, mut remote) = (self.local.netlink()?, self.remote.netlink()?);
        local.add_address(&wan, IpAddr::V4(Lab::wan_address(cable)), 24)?;
        remote.add_address(&link, IpAddr::V4(Lab::wan_gateway(cable)), 24)?;
        local.set_up(&wan)?;
        remote.set_up(&link)?;
        let gateway = Some(Lab::wan_gateway(cable));
        local.set_route(DEFAULT, &wan, gateway, Lab::wan_metric(cable))
    }
}
