//! Which links can be used now, and from where to where: a pure function of the configuration, the
//! observed devices and the resolved names.

use std::net::{IpAddr, SocketAddr};

use super::sockets::LinkTerms;
use crate::config::units::{Family, IfName};
use crate::config::{Config, Endpoint, Link, Role, Transport};
use crate::io::socket::Origin;
use crate::proto::event::LinkId;
use crate::proto::wire::MAX_PATHS;
use crate::route::links::{Observed, ObservedLink};
use crate::route::{automatic_links, own_addresses};
use crate::sorted::{Map, Set};

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
    /// The device's index: a device that was made anew under the same name needs a new socket.
    pub(super) index: u32,
    /// Where it leads.
    pub(super) remote: SocketAddr,
}

/// The addresses of the remote names.
pub(super) type Resolved = Map<String, Vec<IpAddr>>;

/// Every link with its flow as it should be now. Flows that are `open` keep their addresses as long
/// as these are valid; those that are `failing` try the remote's next address, if it has another.
pub(super) fn plan(
    config: &Config,
    ids: &mut LinkIds,
    observed: &Observed,
    resolved: &Resolved,
    open: &Map<LinkId, Flow>,
    failing: &Set<LinkId>,
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
            let before = open.get(&id).map(|flow| (flow, failing.contains(&id)));
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
    before: Option<(&Flow, bool)>,
) -> Result<Flow, String> {
    let Some(device) = observed.link(&link.device) else {
        return Err(format!("there is no device {}", link.device));
    };
    if !device.up {
        return Err("the device is down".to_owned());
    }
    // The local portal's links never speak from the address that they carry for another.
    let ours: Vec<IpAddr> = own_addresses(config, observed, link, device)
        .into_iter()
        .filter(|address| {
            matches!(config.role, Role::Remote(_)) || config.public.iter().all(|it| it != *address)
        })
        .collect();
    if ours.is_empty() {
        return Err("the device has no address".to_owned());
    }
    let targets = match resolved.get(&remote.host) {
        Some(targets) if !targets.is_empty() => targets,
        Some(_) | None => return Err(format!("{} has no address yet", remote.host)),
    };
    let choices = choices(link, device, &ours, targets);
    let kept = before.filter(|(flow, _)| {
        ours.contains(&flow.origin.source)
            && targets.contains(&flow.remote.ip())
            && flow.origin.device == link.device
    });
    let pair = match kept {
        Some((flow, false)) => Some((flow.origin.source, flow.remote.ip())),
        Some((flow, true)) => {
            let failing = choices.iter().position(|it| it.1 == flow.remote.ip());
            let next = failing.map_or(0, |place| (place + 1) % choices.len());
            choices.get(next).copied()
        }
        None => choices.first().copied(),
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
    })
}

/// The remote's addresses that the link may try, each with the source to use, best first: those of a
/// family that has a way out of the device come before those that only have an address of theirs.
fn choices(
    link: &Link,
    device: &ObservedLink,
    ours: &[IpAddr],
    targets: &[IpAddr],
) -> Vec<(IpAddr, IpAddr)> {
    let has_way_out = |family| {
        device.point_to_point
            || device.gateway(family).is_some()
            || link.gateway.map(Family::of) == Some(family)
    };
    let mut choices: Vec<(IpAddr, IpAddr)> = targets
        .iter()
        .filter_map(|&target| {
            let of_family = |it: &&IpAddr| Family::of(**it) == Family::of(target);
            Some((*ours.iter().find(of_family)?, target))
        })
        .collect();
    choices.sort_by_key(|(_, target)| !has_way_out(Family::of(*target)));
    choices
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{KeyFile, Loader};

    const HEAD: &str = r#"
role = "local"
private_key = "6NkWY7Xf0Vv4Yb9nXvZb2xkP0r7yJm1Yd9mYy0cQm1o="
peer_public_key = "6NkWY7Xf0Vv4Yb9nXvZb2xkP0r7yJm1Yd9mYy0cQm1o="
public_address = "203.0.113.2"
deliver = "client"
client = { device = "lan", gateway = "192.168.1.1" }
"#;

    struct NoFiles;

    impl Loader for NoFiles {
        fn load(&self, _: &Path) -> Result<KeyFile, String> {
            Err("there are no files".to_owned())
        }
    }

    fn config(more: &str) -> Config {
        Config::parse(&format!("{HEAD}{more}"), "nc0", &NoFiles)
            .unwrap()
            .0
    }

    fn device(name: &str, index: u32, address: &str, gateway: Option<&str>) -> ObservedLink {
        ObservedLink {
            device: name.parse().unwrap(),
            index,
            up: true,
            point_to_point: false,
            addresses: vec![address.parse().unwrap()],
            gateways: gateway.map(|it| it.parse().unwrap()).into_iter().collect(),
            v4_by_v6: Vec::new(),
            mtu: 1500,
        }
    }

    fn observed() -> Observed {
        Observed {
            links: vec![
                device("wan1", 5, "192.0.2.130/25", Some("192.0.2.129")),
                device("wan0", 3, "192.0.2.10/25", Some("192.0.2.1")),
                device("lan", 2, "192.168.1.1/24", Some("192.168.1.254")),
                device("dmz", 7, "10.0.0.1/24", None),
            ],
            ..Observed::default()
        }
    }

    fn resolved() -> Resolved {
        Resolved::from([(
            "203.0.113.2".to_owned(),
            vec!["203.0.113.2".parse().unwrap()],
        )])
    }

    #[test]
    fn without_links_every_device_with_a_default_route_is_one_but_the_clients() {
        let config = config("remote = \"203.0.113.2\"\n");
        let mut ids = LinkIds::default();
        let plans = plan(
            &config,
            &mut ids,
            &observed(),
            &resolved(),
            &Map::new(),
            &Set::new(),
        );
        let names: Vec<(&str, u8)> = plans.iter().map(|it| (it.name.as_str(), it.id.0)).collect();
        assert_eq!(names, [("wan0", 0), ("wan1", 1)]);
        let flow = plans[0].flow.as_ref().unwrap();
        assert_eq!(flow.remote, ([203, 0, 113, 2], 4725).into());
        assert_eq!(flow.origin.source, IpAddr::from([192, 0, 2, 10]));

        // wan0 goes and comes back: the same id.
        let mut without = observed();
        without.links.retain(|link| link.device.as_str() != "wan0");
        let plans = plan(
            &config,
            &mut ids,
            &without,
            &resolved(),
            &Map::new(),
            &Set::new(),
        );
        assert_eq!(plans.len(), 1);
        assert_eq!(plans[0].id, LinkId(1));
        let plans = plan(
            &config,
            &mut ids,
            &observed(),
            &resolved(),
            &Map::new(),
            &Set::new(),
        );
        assert_eq!(plans[0].id, LinkId(0));
    }

    #[test]
    fn a_link_says_why_it_waits() {
        let config = config(
            "remote = \"203.0.113.2\"\n[[link]]\ndevice = \"wan0\"\n[[link]]\ndevice = \"wwan0\"\n",
        );
        let mut ids = LinkIds::default();
        let mut seen = observed();
        let mut reason = |seen: &Observed, resolved: &Resolved| {
            let plans = plan(&config, &mut ids, seen, resolved, &Map::new(), &Set::new());
            assert_eq!(
                plans[1].flow.as_ref().unwrap_err(),
                "there is no device wwan0"
            );
            plans[0].flow.clone().err()
        };
        assert_eq!(reason(&seen, &resolved()), None);
        assert_eq!(
            reason(&seen, &Resolved::new()).unwrap(),
            "203.0.113.2 has no address yet"
        );
        let v6 = Resolved::from([(
            "203.0.113.2".to_owned(),
            vec!["2001:db8::2".parse().unwrap()],
        )]);
        assert!(reason(&seen, &v6).unwrap().contains("family"));
        // The address it carries for the client is no source.
        seen.links[1].addresses = vec!["203.0.113.2/32".parse().unwrap()];
        assert_eq!(
            reason(&seen, &resolved()).unwrap(),
            "the device has no address"
        );
        seen.links[1].up = false;
        assert_eq!(reason(&seen, &resolved()).unwrap(), "the device is down");
    }

    #[test]
    fn an_open_flow_keeps_its_addresses_while_they_are_valid() {
        let config = config("remote = \"203.0.113.2\"\n[[link]]\ndevice = \"wan0\"\n");
        let mut ids = LinkIds::default();
        let mut seen = observed();
        let first = plan(
            &config,
            &mut ids,
            &seen,
            &resolved(),
            &Map::new(),
            &Set::new(),
        );
        let flow = first[0].flow.clone().unwrap();
        let open = Map::from([(LinkId(0), flow.clone())]);
        // A second address before the first changes nothing; the loss of the first does.
        seen.links[1]
            .addresses
            .insert(0, "192.0.2.99/25".parse().unwrap());
        let again = plan(&config, &mut ids, &seen, &resolved(), &open, &Set::new());
        assert_eq!(again[0].flow.as_ref().unwrap(), &flow);
        seen.links[1].addresses.truncate(1);
        let moved = plan(&config, &mut ids, &seen, &resolved(), &open, &Set::new());
        assert_eq!(
            moved[0].flow.as_ref().unwrap().origin.source,
            IpAddr::from([192, 0, 2, 99])
        );
        // The same name and address on a new device is a new flow.
        seen.links[1].index = 30;
        assert_ne!(
            plan(&config, &mut ids, &seen, &resolved(), &open, &Set::new())[0].flow,
            moved[0].flow
        );
    }

    #[test]
    fn an_id_is_reused_only_when_all_are_taken_and_then_the_longest_unseen() {
        let mut ids = LinkIds::default();
        let mut assign = |names: &[&str]| -> Vec<Option<u8>> {
            let ids = ids.assign(names.iter().copied());
            ids.into_iter().map(|id| id.map(|id| id.0)).collect()
        };
        // wan0 stays; a modem comes back under a new name again and again.
        let mut last = 0;
        for number in 0..40 {
            let modem = format!("ppp{number}");
            let got = assign(&["wan0", &modem]);
            assert_eq!(got[0], Some(0));
            assert_ne!(got[1], Some(last), "the id of the one before is still warm");
            last = got[1].unwrap();
            assert_eq!(assign(&["wan0", &modem]), got);
        }
        assert_eq!(
            assign(&["ppp39", "ppp38"])[1],
            Some(if last == 1 { 7 } else { last - 1 })
        );
        // More links than ids at one time: the last ones get none, and take nobody's.
        let many: Vec<String> = (0..10).map(|n| format!("eth{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let got = assign(&many);
        assert!(got[..8].iter().all(Option::is_some));
        assert_eq!(got[8..], [None, None]);
        assert_eq!(assign(&many), got);
    }

    #[test]
    fn a_remote_with_several_addresses_is_tried_by_the_way_out_and_then_in_turn() {
        let config = config("remote = \"vps.example\"\n[[link]]\ndevice = \"wan0\"\n");
        let mut ids = LinkIds::default();
        let [v6, v4, other] = ["2001:db8::2", "203.0.113.5", "203.0.113.6"];
        let names = Resolved::from([(
            "vps.example".to_owned(),
            [v6, v4, other].map(|it| it.parse().unwrap()).to_vec(),
        )]);
        let mut seen = observed();
        // An address that nobody routes (ULA) beside IPv4 with a gateway.
        seen.links[1].addresses.push("fd00::10/64".parse().unwrap());
        let mut open = Map::new();
        let mut next = |failing: bool, seen: &Observed, names: &Resolved| {
            let failing = failing.then_some(LinkId(0)).into_iter().collect();
            let plans = plan(&config, &mut ids, seen, names, &open, &failing);
            let flow = plans[0].flow.clone().unwrap();
            let target = flow.remote.ip().to_string();
            open.insert(LinkId(0), flow);
            target
        };
        assert_eq!(next(false, &seen, &names), v4);
        assert_eq!(next(false, &seen, &names), v4);
        assert_eq!(next(true, &seen, &names), other);
        assert_eq!(next(true, &seen, &names), v6);
        assert_eq!(next(true, &seen, &names), v4);
        // With a way out, the name's own order counts.
        seen.links[1].gateways.push("fe80::1".parse().unwrap());
        assert_eq!(next(true, &seen, &names), other);
        let mut single = names.clone();
        single.insert("vps.example".to_owned(), vec![other.parse().unwrap()]);
        assert_eq!(next(true, &seen, &single), other);
    }
}
