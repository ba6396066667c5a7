//! When a link is used, from where to where.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::{KeyFile, Loader};
use crate::route::links::ObservedLink;

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
        kind: String::new(),
        up: true,
        point_to_point: false,
        addresses: vec![address.parse().unwrap()],
        flaws: Map::new(),
        gateways: gateway.map(|it| it.parse().unwrap()).into_iter().collect(),
        v4_by_v6: Vec::new(),
        advertised: false,
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
    let plans = plan(&config, &mut ids, &observed(), &resolved(), &Map::new());
    let names: Vec<(&str, u8)> = plans.iter().map(|it| (it.name.as_str(), it.id.0)).collect();
    assert_eq!(names, [("wan0", 0), ("wan1", 1)]);
    let flow = plans[0].flow.as_ref().unwrap();
    assert_eq!(flow.remote, ([203, 0, 113, 2], 4725).into());
    assert_eq!(flow.origin.source, IpAddr::from([192, 0, 2, 10]));

    // wan0 goes and comes back: the same id.
    let mut without = observed();
    without.links.retain(|link| link.device.as_str() != "wan0");
    let plans = plan(&config, &mut ids, &without, &resolved(), &Map::new());
    assert_eq!(plans.len(), 1);
    assert_eq!(plans[0].id, LinkId(1));
    let plans = plan(&config, &mut ids, &observed(), &resolved(), &Map::new());
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
        let plans = plan(&config, &mut ids, seen, resolved, &Map::new());
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
    let first = plan(&config, &mut ids, &seen, &resolved(), &Map::new());
    let flow = first[0].flow.clone().unwrap();
    let usable = Present {
        flow: flow.clone(),
        trouble: None,
    };
    let open = Map::from([(LinkId(0), usable)]);
    // A new address does not move a path; the loss of its own address does.
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
        plan(&config, &mut ids, &seen, &resolved(), &open,)[0].flow,
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
        if let Some(Present { trouble, .. }) = open.get_mut(&LinkId(0)) {
            *trouble = failing.then_some(Trouble {
                waited: Duration::from_secs(10),
                attempts: 0,
                is_doubted: false,
            });
        }
        let plans = plan(&config, &mut ids, seen, names, &open);
        let flow = plans[0].flow.clone().unwrap();
        let target = flow.remote.ip().to_string();
        let trouble = None;
        open.insert(LinkId(0), Present { flow, trouble });
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

/// What becomes of wan0's flow when it was in trouble for so long.
fn after(
    config: &Config,
    seen: &Observed,
    names: &Resolved,
    flow: &Flow,
    trouble: Option<Trouble>,
) -> Flow {
    let mut ids = LinkIds::default();
    let flow = flow.clone();
    let open = Map::from([(LinkId(0), Present { flow, trouble })]);
    plan(config, &mut ids, seen, names, &open)[0]
        .flow
        .clone()
        .unwrap()
}

/// Field row C1: a path that is dead for 25 s gets a new port, and each minute another; one with a port of
/// its own keeps it.
#[test]
fn a_dead_path_is_tried_from_a_new_port() {
    let text = "remote = \"203.0.113.2\"\n[[link]]\ndevice = \"wan0\"\n";
    for (more, changes) in [("", true), ("port = 4726\n", false)] {
        let config = config(&format!("{text}{more}"));
        let (seen, names) = (observed(), resolved());
        let mut ids = LinkIds::default();
        let mut flow = plan(&config, &mut ids, &seen, &names, &Map::new())[0]
            .flow
            .clone()
            .unwrap();
        // Second by second, as the daemon asks.
        let (mut opened, mut since, mut sockets) = (Vec::new(), 0, 0);
        for now in 0..200 {
            let trouble = Trouble {
                waited: Duration::from_secs(now - since),
                attempts: sockets,
                is_doubted: false,
            };
            let next = after(&config, &seen, &names, &flow, Some(trouble));
            if next != flow {
                assert_eq!((&next.origin, next.remote), (&flow.origin, flow.remote));
                (flow, since, sockets) = (next, now, sockets + 1);
                opened.push(now);
            }
        }
        assert_eq!(
            opened,
            if changes {
                vec![25, 85, 145]
            } else {
                Vec::new()
            }
        );
    }
}

/// Field row C5: a new answer moves only what does not work.
#[test]
fn a_new_answer_never_moves_a_path_that_works() {
    let config = config("remote = \"vps.example\"\n[[link]]\ndevice = \"wan0\"\n");
    let names = |address: &str| {
        Resolved::from([("vps.example".to_owned(), vec![address.parse().unwrap()])])
    };
    let (old, new) = (names("203.0.113.5"), names("203.0.113.6"));
    let (seen, mut ids) = (observed(), LinkIds::default());
    let flow = plan(&config, &mut ids, &seen, &old, &Map::new())[0]
        .flow
        .clone()
        .unwrap();
    assert_eq!(after(&config, &seen, &new, &flow, None), flow);
    let trouble = Trouble {
        waited: Duration::ZERO,
        attempts: 0,
        is_doubted: false,
    };
    let moved = after(&config, &seen, &new, &flow, Some(trouble));
    assert_eq!(moved.remote, ([203, 0, 113, 6], 4725).into());
}

/// Field row C2: what is tentative is waited for, what is deprecated is left when it fails, and `source`
/// decides before all of this.
#[test]
fn flawed_sources_are_the_last_and_source_has_the_last_word() {
    let text = "remote = \"2001:db8:f::2\"\n[[link]]\ndevice = \"wan0\"\n";
    let names = Resolved::from([(
        "2001:db8:f::2".to_owned(),
        vec!["2001:db8:f::2".parse().unwrap()],
    )]);
    let [old, new] = ["2001:db8:1::5", "2001:db8:2::5"];
    let mut seen = observed();
    seen.links[1].addresses = [old, new]
        .map(|it| format!("{it}/64").parse().unwrap())
        .to_vec();
    seen.links[1].gateways = vec!["fe80::1".parse().unwrap()];
    let mut first = |more: &str, flaws: &[(&str, Flaw)]| {
        seen.links[1].flaws = flaws
            .iter()
            .map(|(address, flaw)| (address.parse().unwrap(), *flaw))
            .collect();
        let config = config(&format!("{text}{more}"));
        let mut ids = LinkIds::default();
        let plans = plan(&config, &mut ids, &seen, &names, &Map::new());
        let flow = plans[0].flow.clone();
        flow.map(|flow| flow.origin.source.to_string())
    };
    assert_eq!(first("", &[]).unwrap(), old);
    assert_eq!(first("", &[(old, Flaw::Deprecated)]).unwrap(), new);
    assert_eq!(first("", &[(old, Flaw::Temporary)]).unwrap(), new);
    assert_eq!(first("", &[(old, Flaw::Tentative)]).unwrap(), new);
    let both = [(old, Flaw::Tentative), (new, Flaw::Tentative)];
    assert!(first("", &both).unwrap_err().contains("duplicates"));
    let asked = format!("source = \"{old}\"\n");
    assert_eq!(first(&asked, &[(old, Flaw::Temporary)]).unwrap(), old);
    assert_eq!(first("source = \"2001:db8:2::/48\"\n", &[]).unwrap(), new);
    let nowhere = first("source = \"192.0.2.0/24\"\n", &[]).unwrap_err();
    assert!(nowhere.contains("192.0.2.0/24"), "{nowhere}");

    // After a change of prefix the old address is left when it fails, and not before.
    seen.links[1].flaws = Map::from([(old.parse().unwrap(), Flaw::Deprecated)]);
    let config = config(text);
    let flow = Flow {
        origin: Origin {
            device: "wan0".parse().unwrap(),
            source: old.parse().unwrap(),
            port: None,
        },
        index: 3,
        remote: "[2001:db8:f::2]:4725".parse().unwrap(),
        socket: 0,
    };
    assert_eq!(after(&config, &seen, &names, &flow, None), flow);
    let trouble = Trouble {
        waited: Duration::from_secs(10),
        attempts: 0,
        is_doubted: false,
    };
    let moved = after(&config, &seen, &names, &flow, Some(trouble));
    assert_eq!(moved.origin.source.to_string(), new);
}
