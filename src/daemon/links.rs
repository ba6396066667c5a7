//! Which links can be used now, and from where to where: a pure function of the configuration, the
//! observed devices and the resolved names.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::sockets::LinkTerms;
use crate::config::units::{Family, IfName};
use crate::config::{Config, Congestion, Deliver, Endpoint, Link, Role, Transport};
use crate::io::socket::Origin;
use crate::proto::event::LinkId;
use crate::proto::wire::MAX_PATHS;
use crate::route::links::{Observed, ObservedLink};

/// The ids of links by their names: a link that goes and comes back keeps its id while the daemon
/// lives.
#[derive(Debug, Default)]
pub(super) struct LinkIds(Vec<String>);

impl LinkIds {
    fn of(&mut self, name: &str) -> Option<LinkId> {
        let place = match self.0.iter().position(|known| known == name) {
            Some(place) => place,
            None if self.0.len() < MAX_PATHS => {
                self.0.push(name.to_owned());
                self.0.len() - 1
            }
            None => return None,
        };
        u8::try_from(place).ok().map(LinkId)
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
pub(super) type Resolved = BTreeMap<String, Vec<IpAddr>>;

/// Every link with its flow as it should be now. Flows that are `open` keep their addresses as long
/// as these are valid.
pub(super) fn plan(
    config: &Config,
    ids: &mut LinkIds,
    observed: &Observed,
    resolved: &Resolved,
    open: &BTreeMap<LinkId, Flow>,
) -> Vec<Plan> {
    let found;
    let links = if config.links.is_empty() {
        found = automatic(config, observed);
        &found
    } else {
        &config.links
    };
    links
        .iter()
        .filter_map(|link| {
            let remote = link.remote.as_ref().or(config.remote.as_ref())?;
            let Some(id) = ids.of(&link.name) else {
                log::warn!(
                    "link {}: a tunnel has {MAX_PATHS} links at most; restart to forget old ones",
                    link.name
                );
                return None;
            };
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
                flow: flow(config, link, remote, observed, resolved, open.get(&id)),
            })
        })
        .collect()
}

/// Every device with a default route is a link, except the tunnel and the client's.
fn automatic(config: &Config, observed: &Observed) -> Vec<Link> {
    if config.remote.is_none() {
        return Vec::new();
    }
    let client = match &config.role {
        Role::Local(local) => match &local.deliver {
            Deliver::Client { device, .. } | Deliver::Nat { device, .. } => Some(device),
            Deliver::Nothing => None,
        },
        Role::Remote(_) => None,
    };
    let mut devices: Vec<&ObservedLink> = observed
        .links
        .iter()
        .filter(|link| link.has_default())
        .filter(|link| link.device != config.name && Some(&link.device) != client)
        .collect();
    devices.sort_by_key(|link| (link.index, &link.device));
    devices
        .into_iter()
        .map(|link| Link {
            name: link.device.to_string(),
            device: link.device.clone(),
            transport: Transport::Udp,
            port: None,
            remote: None,
            gateway: None,
            metric: 0,
            rate_up: None,
            rate_down: None,
            congestion: Congestion::NewReno,
        })
        .collect()
}

fn flow(
    config: &Config,
    link: &Link,
    remote: &Endpoint,
    observed: &Observed,
    resolved: &Resolved,
    open: Option<&Flow>,
) -> Result<Flow, String> {
    let Some(device) = observed.link(&link.device) else {
        return Err(format!("there is no device {}", link.device));
    };
    if !device.up {
        return Err("the device is down".to_owned());
    }
    // The local portal's links never speak from the address that they carry for another.
    let ours: Vec<IpAddr> = device
        .addresses
        .iter()
        .map(|prefix| prefix.address())
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
    let kept = open.filter(|flow| {
        ours.contains(&flow.origin.source)
            && targets.contains(&flow.remote.ip())
            && flow.origin.device == link.device
    });
    let pair = kept
        .map(|flow| (flow.origin.source, flow.remote.ip()))
        .or_else(|| {
            targets.iter().find_map(|&target| {
                let source = ours
                    .iter()
                    .find(|address| Family::of(**address) == Family::of(target))?;
                Some((*source, target))
            })
        });
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

/// The names of the configuration's remotes, without duplicates.
pub(super) fn remote_hosts(config: &Config) -> Vec<String> {
    let mut hosts: Vec<String> = config
        .links
        .iter()
        .filter_map(|link| link.remote.as_ref())
        .chain(&config.remote)
        .map(|endpoint| endpoint.host.clone())
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts
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
            &BTreeMap::new(),
        );
        let names: Vec<(&str, u8)> = plans.iter().map(|it| (it.name.as_str(), it.id.0)).collect();
        assert_eq!(names, [("wan0", 0), ("wan1", 1)]);
        let flow = plans[0].flow.as_ref().unwrap();
        assert_eq!(flow.remote, ([203, 0, 113, 2], 4725).into());
        assert_eq!(flow.origin.source, IpAddr::from([192, 0, 2, 10]));

        // wan0 goes and comes back: the same id.
        let mut without = observed();
        without.links.retain(|link| link.device.as_str() != "wan0");
        let plans = plan(&config, &mut ids, &without, &resolved(), &BTreeMap::new());
        assert_eq!(plans.len(), 1);
        assert_eq!(plans[0].id, LinkId(1));
        let plans = plan(
            &config,
            &mut ids,
            &observed(),
            &resolved(),
            &BTreeMap::new(),
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
            let plans = plan(&config, &mut ids, seen, resolved, &BTreeMap::new());
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
        let first = plan(&config, &mut ids, &seen, &resolved(), &BTreeMap::new());
        let flow = first[0].flow.clone().unwrap();
        let open = BTreeMap::from([(LinkId(0), flow.clone())]);
        // A second address before the first changes nothing; the loss of the first does.
        seen.links[1]
            .addresses
            .insert(0, "192.0.2.99/25".parse().unwrap());
        let again = plan(&config, &mut ids, &seen, &resolved(), &open);
        assert_eq!(again[0].flow.as_ref().unwrap(), &flow);
        seen.links[1].addresses.truncate(1);
        let moved = plan(&config, &mut ids, &seen, &resolved(), &open);
        assert_eq!(
            moved[0].flow.as_ref().unwrap().origin.source,
            IpAddr::from([192, 0, 2, 99])
        );
        // The same name and address on a new device is a new flow.
        seen.links[1].index = 30;
        assert_ne!(
            plan(&config, &mut ids, &seen, &resolved(), &open)[0].flow,
            moved[0].flow
        );
    }
}
