//! Which links can be used now, and from where to where: a pure function of the configuration, the
//! observed devices and the resolved names.

use std::net::{IpAddr, SocketAddr};

use super::choice::{Change, Trouble, change, pairs};
use super::sockets::LinkTerms;
use crate::config::units::IfName;
use crate::config::{Config, Endpoint, Link, Role, Transport};
use crate::io::socket::Origin;
use crate::proto::event::LinkId;
use crate::proto::wire::MAX_PATHS;
use crate::route::links::{Flaw, Observed};
use crate::route::{automatic_links, own_addresses};
use crate::sorted::Map;

/// The ids of links by their names: a link that goes and comes back keeps its id, until so many
/// others came that the id is needed for one of them; the one not seen for longest loses it. Its
/// socket is down by then, so the id's path simply moves to another link.
#[derive(Debug, Default)]
pub(super) struct LinkIds {
    /// Names by id, each with the turn in which it was last a link.
    known: Vec<(String, u32)>,
    turn: u32,
    /// Links without an id that the log knows of.
    refused: Vec<String>,
}

impl LinkIds {
    /// The ids of all links that there are now, in their order.
    fn assign<'a>(&mut self, names: impl Iterator<Item = &'a str> + Clone) -> Vec<Option<LinkId>> {
        // 136 years of one turn a second.
        self.turn = self.turn.saturating_add(1);
        for (known, seen) in &mut self.known {
            if names.clone().any(|name| name == known) {
                *seen = self.turn;
            }
        }
        let ids = names.clone().map(|name| self.of(name)).collect();
        self.refused
            .retain(|refused| names.clone().any(|name| name == refused));
        ids
    }

    fn of(&mut self, name: &str) -> Option<LinkId> {
        let new = || (name.to_owned(), self.turn);
        let place = match self.known.iter().position(|(known, _)| known == name) {
            Some(place) => place,
            None if self.known.len() < MAX_PATHS => {
                self.known.push(new());
                self.known.len() - 1
            }
            None => {
                let seen = |place: &usize| self.known[*place].1;
                let oldest = (0..MAX_PATHS).min_by_key(seen)?;
                if seen(&oldest) == self.turn {
                    self.refuse(name);
                    return None;
                }
                self.known[oldest] = new();
                oldest
            }
        };
        u8::try_from(place).ok().map(LinkId)
    }

    fn refuse(&mut self, name: &str) {
        if !self.refused.iter().any(|refused| refused == name) {
            log::warn!("link {name} is not used: a tunnel has {MAX_PATHS} links at most");
            self.refused.push(name.to_owned());
        }
    }
}

/// One link, and what can be done with it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// Its id.
    pub(super) id: LinkId,
    /// What the user calls it.
    pub(super) name: String,
    /// Its device.
    pub(super) device: IfName,
    /// UDP or TCP.
    pub(super) transport: Transport,
    /// What the configuration says of it.
    pub(super) terms: LinkTerms,
    /// Its flow, or why there is none.
    pub(super) flow: Result<Flow, String>,
}

/// A link's flow.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Flow {
    /// Where it leaves from.
    pub(super) origin: Origin,
    /// The device's index: a device that was made again under the same name needs a new socket.
    pub(super) index: u32,
    /// Where it leads.
    pub(super) remote: SocketAddr,
    /// How many sockets there were for it before: with another number it gets a new one.
    pub(super) socket: u32,
}

/// A flow that is there, and how it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Present {
    pub(super) flow: Flow,
    /// `None` while its path is usable.
    pub(super) trouble: Option<Trouble>,
}

/// The addresses of the remote names.
pub(super) type Resolved = Map<String, Vec<IpAddr>>;

/// Every link with its flow as it should be now. Flows that are `open` keep their addresses as long
/// as these are valid, and while they are usable whatever the remote's name says; those in trouble try
/// other addresses, and other ports.
pub(super) fn plan(
    config: &Config,
    ids: &mut LinkIds,
    observed: &Observed,
    resolved: &Resolved,
    open: &Map<LinkId, Present>,
) -> Vec<Plan> {
    let found;
    let links = if config.links.is_empty() {
        found = automatic_links(config, observed);
        &found
    } else {
        &config.links
    };
    let dialling: Vec<(&Link, &Endpoint)> = links
        .iter()
        .filter_map(|link| Some((link, link.remote.as_ref().or(config.remote.as_ref())?)))
        .collect();
    let ids = ids.assign(dialling.iter().map(|(link, _)| link.name.as_str()));
    dialling
        .into_iter()
        .zip(ids)
        .filter_map(|((link, remote), id)| {
            let id = id?;
            let before = open.get(&id);
            Some(Plan {
                id,
                name: link.name.clone(),
                device: link.device.clone(),
                transport: link.transport,
                terms: LinkTerms {
                    metric: link.metric,
                    rate_up: link.rate_up,
                    rate_down: link.rate_down,
                    congestion: link.congestion,
                },
                flow: flow(config, link, remote, observed, resolved, before),
            })
        })
        .collect()
}

fn flow(
    config: &Config,
    link: &Link,
    remote: &Endpoint,
    observed: &Observed,
    resolved: &Resolved,
    before: Option<&Present>,
) -> Result<Flow, String> {
    let Some(device) = observed.link(&link.device) else {
        return Err(format!("there is no device {}", link.device));
    };
    if !device.up {
        return Err("the device is down".to_owned());
    }
    // The local portal's links never speak from the address that they carry for another.
    let all: Vec<IpAddr> = own_addresses(config, observed, link, device)
        .into_iter()
        .filter(|address| {
            matches!(config.role, Role::Remote(_)) || config.public.iter().all(|it| it != *address)
        })
        .collect();
    let wanted = |address: &IpAddr| link.source.is_none_or(|source| source.contains(*address));
    let usable = |address: &IpAddr| device.flaws.get(address) != Some(&Flaw::Tentative);
    let mine = all.iter().copied().filter(wanted);
    let ours: Vec<IpAddr> = mine.filter(usable).collect();
    if ours.is_empty() {
        return Err(match (all.first(), link.source) {
            (None, _) => "the device has no address".to_owned(),
            (Some(_), Some(source)) if !all.iter().any(wanted) => {
                format!("the device has no address in {source} (its source)")
            }
            (Some(_), _) => "the device's addresses are being tested for duplicates".to_owned(),
        });
    }
    let targets = match resolved.get(&remote.host) {
        Some(targets) if !targets.is_empty() => targets,
        Some(_) | None => return Err(format!("{} has no address yet", remote.host)),
    };
    let choices = pairs(link, device, &ours, targets);
    let kept = before.filter(|Present { flow, trouble }| {
        ours.contains(&flow.origin.source)
            && (trouble.is_none() || targets.contains(&flow.remote.ip()))
            && flow.remote.port() == remote.port
            && flow.origin.device == link.device
    });
    let (pair, socket) = match kept {
        Some(Present { flow, trouble }) => {
            let pair = (flow.origin.source, flow.remote.ip());
            let place = choices.iter().position(|it| *it == pair);
            let next = || place.map_or(0, |place| (place + 1) % choices.len().max(1));
            let todo = trouble.map(|it| change(it, choices.len(), link.port.is_some()));
            match todo.unwrap_or(Change::Nothing) {
                Change::Nothing => (Some(pair), flow.socket),
                Change::NextPair => (choices.get(next()).copied(), flow.socket + 1),
                Change::NewPort => (Some(pair), flow.socket + 1),
            }
        }
        None => (choices.first().copied(), 0),
    };
    let Some((source, target)) = pair else {
        return Err(format!(
            "the device has no address of the family of {}",
            remote.host
        ));
    };
    Ok(Flow {
        origin: Origin {
            device: link.device.clone(),
            source,
            port: link.port,
        },
        index: device.index,
        remote: SocketAddr::new(target, remote.port),
        socket,
    })
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
