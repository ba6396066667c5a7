//! Field row B2: packet filters of others, in the shapes in which they are met.

use super::*;
use crate::config::{Config, Deliver, Forward, Taken};
use crate::route::cases;
use crate::route::links::Observed;

/// What Docker leaves of a host that forwards.
const DOCKER: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
    :DOCKER - [0:0]\n:DOCKER-ISOLATION-STAGE-1 - [0:0]\n:DOCKER-ISOLATION-STAGE-2 - [0:0]\n\
    :DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-ISOLATION-STAGE-1\n\
    -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
    -A FORWARD -o docker0 -j DOCKER\n-A FORWARD -i docker0 ! -o docker0 -j ACCEPT\n\
    -A FORWARD -i docker0 -o docker0 -j ACCEPT\n\
    -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2\n\
    -A DOCKER-ISOLATION-STAGE-1 -j RETURN\n-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP\n\
    -A DOCKER-ISOLATION-STAGE-2 -j RETURN\nMORE-A DOCKER-USER -j RETURN\nCOMMIT\n\
    *nat\n:POSTROUTING ACCEPT [0:0]\n\
    -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\nCOMMIT\n";

/// What ufw puts before the user's own rules, shortened.
const UFW: &str = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
    :ufw-before-input - [0:0]\n:ufw-user-input - [0:0]\n:ufw-not-local - [0:0]\n\
    :ufw-before-forward - [0:0]\n:ufw-user-forward - [0:0]\n:ufw-logging-deny - [0:0]\n\
    -A INPUT -j ufw-before-input\n-A FORWARD -j ufw-before-forward\n\
    -A ufw-before-input -i lo -j ACCEPT\n\
    -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
    -A ufw-before-input -m conntrack --ctstate INVALID -j ufw-logging-deny\n\
    -A ufw-before-input -m conntrack --ctstate INVALID -j DROP\n\
    -A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT\n\
    -A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT\n\
    -A ufw-before-input -j ufw-not-local\n-A ufw-before-input -j ufw-user-input\n\
    -A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN\n\
    -A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN\n\
    -A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j ufw-logging-deny\n\
    -A ufw-not-local -j DROP\n\
    -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
    -A ufw-before-forward -j ufw-user-forward\n\
    -A ufw-user-input -p tcp -m tcp --dport 22 -m comment --comment \"ssh from -j DROP\" -j ACCEPT\n\
    -A ufw-logging-deny -m limit --limit 3/min -j LOG --log-prefix \"[UFW BLOCK] \"\nMORECOMMIT\n";

fn legacy(text: &str, more: &str) -> Ruleset {
    let mut rules = Ruleset::default();
    rules.add_legacy(Family::Ip, &text.replace("MORE", more));
    rules
}

fn certain(config: &Config, observed: &Observed, rules: &Ruleset) -> Vec<String> {
    let found = findings(config, observed, rules).into_iter();
    found.filter(|it| it.certain).map(|it| it.text).collect()
}

#[test]
fn dockers_policy_drops_and_its_own_chain_opens() {
    let (config, observed) = (cases::remote(), cases::vps());
    let said = certain(&config, &observed, &legacy(DOCKER, ""));
    assert_eq!(said.len(), 2, "{said:#?}");
    for (text, end) in said.iter().zip(["-i nc0", "-o nc0"]) {
        let chain = "chain FORWARD of iptables-legacy table ip filter drops what comes";
        assert!(
            text.starts_with(chain) && text.contains("by its policy"),
            "{text}"
        );
        let line = format!("`iptables-legacy -I DOCKER-USER {end} -j ACCEPT`");
        assert!(text.ends_with(&line), "{text}");
    }
    let open = "-A DOCKER-USER -i nc0 -j ACCEPT\n-A DOCKER-USER -o nc0 -j ACCEPT\n";
    assert_eq!(findings(&config, &observed, &legacy(DOCKER, open)), []);
    // Half of it: the other half is named.
    let half = certain(
        &config,
        &observed,
        &legacy(DOCKER, "-A DOCKER-USER -i nc0 -j ACCEPT\n"),
    );
    assert_eq!(half.len(), 1, "{half:#?}");
    assert!(half[0].contains("-o nc0"), "{half:#?}");
    // Field row B9.
    let docker = "chain POSTROUTING of iptables-legacy table ip nat";
    let forwarders = legacy(DOCKER, "").forwarders("nc0");
    assert!(forwarders.iter().any(|it| it == docker), "{forwarders:?}");
    // By the loopback nobody forwards.
    let whose = |rule: &str| {
        let text = format!("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD {rule} -j ACCEPT\nCOMMIT\n");
        legacy(&text, "").forwarders("nc0").len()
    };
    for rule in ["-i lo", "-i lo -o lo", "-i nc0 -o eth0", "-p udp"] {
        assert_eq!(whose(rule), 0, "{rule}");
    }
    for rule in ["-i eth0", "-i lo -o eth0", "! -i lo", "-o lo+"] {
        assert_eq!(whose(rule), 1, "{rule}");
    }
}

/// Review of forwarding: who came later forwards by the devices that his rules name, and by no others.
#[test]
fn a_newcomer_names_his_devices() {
    let link = |name: &str, address: &str| {
        let mut link = cases::vps().links[0].clone();
        link.device = cases::name(name);
        (link.index, link.addresses) = (7, vec![address.parse().unwrap()]);
        link
    };
    let named = |rules: &Ruleset, name: &str, address: &str| {
        let who = rules.forwarders("nc0");
        assert!(!who.is_empty());
        assert!(!rules.forwards(&[], "nc0", &link(name, address)));
        rules.forwards(&who, "nc0", &link(name, address))
    };
    let docker = legacy(DOCKER, "");
    for (name, address, expected) in [
        ("docker0", "172.17.0.1/16", true),
        ("apps", "172.17.9.1/24", true),
        ("apps", "172.18.0.1/16", false),
        ("eth1", "10.77.0.1/24", false),
        ("eth1", "fd77::1/64", false),
    ] {
        assert_eq!(named(&docker, name, address), expected, "{name} {address}");
    }
    let of = |rule: &str| {
        legacy(
            &format!("*filter\n:FORWARD ACCEPT [0:0]\n{rule}\nCOMMIT\n"),
            "",
        )
    };
    for (rule, name, expected) in [
        ("-A FORWARD -i eth1 -o eth0 -j ACCEPT", "eth1", true),
        ("-A FORWARD -i eth1 -o eth0 -j ACCEPT", "eth2", false),
        ("-A FORWARD -i eth+ -j ACCEPT", "eth2", true),
        (
            "-A FORWARD -o eth0 -j ACCEPT\n-A FORWARD -i eth2 -j DROP",
            "eth2",
            false,
        ),
    ] {
        assert_eq!(named(&of(rule), name, "10.77.0.1/24"), expected, "{rule}");
    }
    // nft(8) reads three bytes of a /24, and whole sets of devices.
    let chain = |hook: u8, rule: Vec<Step>| Chain {
        family: Family::Inet,
        table: "mine".to_owned(),
        name: "chain".to_owned(),
        base: Some(Base {
            hook,
            priority: 0,
            drops: false,
            nat: hook == 4,
        }),
        rules: vec![rule],
        legacy: false,
    };
    let set = Set {
        family: Family::Inet,
        table: "mine".to_owned(),
        name: "__set0".to_owned(),
        intervals: false,
        fields: Vec::new(),
        elements: vec![Element {
            key: padded("eth1"),
            ..Element::default()
        }],
        partial: false,
    };
    let lookup = Step::Lookup {
        set: "__set0".to_owned(),
        from: 1,
        inverse: false,
        to: None,
    };
    let bytes = |offset, value: &[u8]| {
        let load = Step::Load(1, Source::Header(1, offset, value.len()));
        vec![load, Step::Compare(1, 0, value.to_vec()), Step::Translate]
    };
    let accept = Step::Verdict(Verdict::Accept);
    let index = Step::Compare(1, 0, 7u32.to_ne_bytes().to_vec());
    for (chain, expected) in [
        (chain(4, bytes(12, &[10, 77, 0])), true),
        (chain(4, bytes(12, &[10, 78, 0])), false),
        (chain(4, bytes(0, &[10, 77, 0])), false),
        (
            chain(
                2,
                vec![Step::Load(1, Source::Meta(4)), index, accept.clone()],
            ),
            true,
        ),
        (
            chain(2, vec![Step::Load(1, Source::Meta(6)), lookup, accept]),
            true,
        ),
    ] {
        let rules = Ruleset::new(vec![chain], vec![set.clone()]);
        assert_eq!(named(&rules, "eth1", "10.77.0.1/24"), expected, "{rules:?}");
    }
}

#[test]
fn ufw_drops_at_both_hooks() {
    let (config, observed) = (cases::remote(), cases::vps());
    let said = certain(&config, &observed, &legacy(UFW, "")).join("\n");
    for line in [
        "`ufw route allow in on nc0`",
        "`ufw route allow out on nc0`",
        "`ufw allow 4725/udp`",
        "`ufw allow 4725/tcp`",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let open = "-A ufw-user-input -p udp -m multiport --dports 4000:5000,53 -j ACCEPT\n\
        -A ufw-user-input -s 0.0.0.0/0 -p tcp -m tcp --dport 4725 -j ACCEPT\n\
        -A ufw-user-forward -i nc+ -j ACCEPT\n-A ufw-user-forward -o nc0 -j ACCEPT\n";
    assert_eq!(findings(&config, &observed, &legacy(UFW, open)), []);
}

#[test]
fn what_is_not_understood_may_drop() {
    let (config, observed) = (cases::remote(), cases::vps());
    let rules = |rule: &str| {
        let text = format!(
            "*filter\n:FORWARD ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n-A FORWARD {rule}\nCOMMIT\n"
        );
        findings(&config, &observed, &legacy(&text, ""))
    };
    let found = rules("-m geoip --source-country CN -j DROP");
    assert!(
        !found.is_empty() && found.iter().all(|it| !it.certain),
        "{found:#?}"
    );
    assert!(found[0].text.contains("may drop"), "{found:#?}");
    assert_eq!(rules("-m conntrack --ctstate INVALID -j DROP"), []);
    assert_eq!(rules("-i eth1 -m geoip --source-country CN -j DROP"), []);
    assert!(rules("-m geoip --source-country CN -j LOG").is_empty());
    assert!(rules("-p udp -j DROP").iter().any(|it| it.certain));
    let unread = Ruleset {
        unread: true,
        ..Ruleset::default()
    };
    assert_eq!(findings(&config, &observed, &unread).len(), 1);
}

/// A rule of nf_tables.
fn chain(name: &str, base: Option<Base>, rules: Vec<Vec<Step>>) -> Chain {
    Chain {
        family: Family::Inet,
        table: "fw4".to_owned(),
        name: name.to_owned(),
        base,
        rules,
        legacy: false,
    }
}

fn at(hook: u8, drops: bool) -> Option<Base> {
    Some(Base {
        hook,
        priority: 0,
        drops,
        nat: false,
    })
}

fn jump(name: &str) -> Step {
    Step::Verdict(Verdict::Jump(name.to_owned()))
}

fn comes_by(device: &str) -> Vec<Step> {
    vec![
        Step::Load(1, Source::Meta(6)),
        Step::Compare(1, 0, padded(device)),
    ]
}

/// OpenWrt: what comes by no zone's device is rejected; states by a verdict map.
#[test]
fn a_device_without_a_zone_is_rejected() {
    let states = Set {
        family: Family::Inet,
        table: "fw4".to_owned(),
        name: "__map0".to_owned(),
        intervals: false,
        fields: Vec::new(),
        elements: [probe::ESTABLISHED, 4]
            .map(|state| Element {
                key: state.to_ne_bytes().to_vec(),
                verdict: Some(Verdict::Accept),
                ..Element::default()
            })
            .to_vec(),
        partial: false,
    };
    let by_state = || {
        vec![
            Step::Load(1, Source::Ct(0)),
            Step::Lookup {
                set: "__map0".to_owned(),
                from: 1,
                inverse: false,
                to: Some(0),
            },
        ]
    };
    let mut from_lan = comes_by("lan");
    from_lan.push(jump("forward_lan"));
    let reject = || vec![vec![Step::Verdict(Verdict::Drop)]];
    let rules = |zone: Vec<Vec<Step>>, more: Vec<Vec<Step>>| {
        let mut forward = vec![by_state(), from_lan.clone()];
        forward.extend(more);
        forward.push(vec![jump("handle_reject")]);
        Ruleset::new(
            vec![
                chain("forward", at(2, true), forward),
                chain("forward_lan", None, zone),
                chain("handle_reject", None, reject()),
            ],
            vec![states.clone()],
        )
    };
    let deliver = Deliver::Nat {
        devices: vec![cases::name("lan")],
        forwards: vec![Forward {
            taken: Taken::Ports {
                tcp: true,
                udp: false,
                first: 443,
                last: 443,
                to_first: 443,
            },
            to: "192.168.7.20".parse().unwrap(),
        }],
    };
    let (config, observed) = (cases::local(deliver), cases::router());
    let closed = rules(vec![vec![jump("handle_reject")]], Vec::new());
    let said = certain(&config, &observed, &closed);
    assert_eq!(said.len(), 1, "{said:#?}");
    for word in [
        "chain forward of table inet fw4 drops what the LAN sends into the tunnel (in chain \
         handle_reject)",
        "uci set firewall.@zone[-1].name=nc0",
    ] {
        assert!(said[0].contains(word), "{word}: {said:#?}");
    }
    let to_tunnel = vec![
        Step::Load(1, Source::Meta(7)),
        Step::Compare(1, 0, padded("nc0")),
        Step::Verdict(Verdict::Accept),
    ];
    let translated = vec![
        Step::Load(1, Source::Ct(2)),
        Step::Bits {
            from: 1,
            to: 1,
            mask: 0x20_u32.to_ne_bytes().to_vec(),
            xor: vec![0; 4],
        },
        Step::Compare(1, 1, vec![0; 4]),
        Step::Verdict(Verdict::Accept),
    ];
    let open = rules(vec![to_tunnel], vec![translated]);
    assert_eq!(findings(&config, &observed, &open), []);
}

fn incoming(port: u16, state: u32) -> Probe {
    Probe {
        way: Way::In,
        iif: Some(Device {
            name: "eth0".to_owned(),
            index: 2,
        }),
        oif: None,
        from: "9.9.9.9".parse().unwrap(),
        to: "203.0.113.2".parse().unwrap(),
        protocol: 17,
        ports: [50_001, port],
        state,
        translated: false,
    }
}

#[test]
fn sets_of_intervals_and_of_concatenations() {
    let set = |intervals, fields: Vec<usize>, elements| Set {
        family: Family::Inet,
        table: "fw4".to_owned(),
        name: "ports".to_owned(),
        intervals,
        fields,
        elements,
        partial: false,
    };
    let end = |port: u16, is_end| Element {
        key: port.to_be_bytes().to_vec(),
        is_end,
        ..Element::default()
    };
    let drops = |set: Set, port| {
        let rule = vec![
            Step::Load(9, Source::Header(2, 2, 2)),
            Step::Load(8, Source::Meta(16)),
            Step::Lookup {
                set: "ports".to_owned(),
                from: if set.fields.is_empty() { 9 } else { 8 },
                inverse: true,
                to: None,
            },
            Step::Verdict(Verdict::Drop),
        ];
        let rules = Ruleset::new(vec![chain("input", at(1, false), vec![rule])], vec![set]);
        !rules.droppers(&incoming(port, probe::NEW)).is_empty()
    };
    // 20-25 and 26-29 beside each other, in any order.
    let intervals = || {
        vec![
            end(26, false),
            end(0, true),
            end(30, true),
            end(26, true),
            end(20, false),
        ]
    };
    for (port, drop) in [
        (19, true),
        (20, false),
        (25, false),
        (26, false),
        (29, false),
        (30, true),
    ] {
        assert_eq!(
            drops(set(true, Vec::new(), intervals()), port),
            drop,
            "{port}"
        );
    }
    let field =
        |protocol, port: u16| [&[protocol, 0, 0, 0][..], &port.to_be_bytes(), &[0, 0]].concat();
    let pair = || {
        vec![Element {
            key: field(17, 4000),
            last: Some(field(17, 5000)),
            ..Element::default()
        }]
    };
    for (port, drop) in [(4725, false), (3999, true), (5001, true)] {
        assert_eq!(drops(set(true, vec![1, 2], pair()), port), drop, "{port}");
    }
}

/// Field row D12: which ports may be left untracked.
#[test]
fn who_asks_for_the_state_of_a_connection_is_known() {
    let state = |states: u32| {
        vec![
            Step::Load(1, Source::Ct(0)),
            Step::Bits {
                from: 1,
                to: 1,
                mask: states.to_ne_bytes().to_vec(),
                xor: vec![0; 4],
            },
            Step::Compare(1, 1, vec![0; 4]),
        ]
    };
    let to_port = |port: u16| {
        vec![
            Step::Load(1, Source::Header(2, 2, 2)),
            Step::Compare(1, 0, port.to_be_bytes().to_vec()),
        ]
    };
    let accept = || vec![Step::Verdict(Verdict::Accept)];
    let rules = |rule: Vec<Step>| {
        let answers = [state(probe::ESTABLISHED), accept()].concat();
        Ruleset::new(
            vec![chain("input", at(1, true), vec![answers, rule])],
            Vec::new(),
        )
    };
    let probe = incoming(4725, probe::NEW);
    let stateful = [to_port(4725), state(probe::NEW), accept()].concat();
    assert!(rules(stateful).needs_state(&probe));
    let stateless = rules([to_port(4725), accept()].concat());
    assert!(!stateless.needs_state(&probe));
    assert!(!Ruleset::default().needs_state(&probe));
    // Dropped either way.
    assert!(!stateless.needs_state(&incoming(22, probe::NEW)));
    let output = chain(
        "output",
        at(3, true),
        vec![[state(probe::ESTABLISHED), accept()].concat()],
    );
    assert!(Ruleset::new(vec![output], Vec::new()).needs_state(&probe));
}

/// iptables-nft carries its matches as the structures of iptables.
#[test]
fn the_structures_of_iptables_are_read() {
    let halves = |values: &[u16]| -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_ne_bytes())
            .collect()
    };
    let asks = |steps: Vec<Step>, probe: &Probe| {
        let [Step::Test(test)] = steps.as_slice() else {
            panic!("{steps:?}");
        };
        test.ask(probe, 1, false)
    };
    let probe = incoming(4725, probe::NEW);
    let udp = |inverse: u8| {
        let info = [halves(&[0, 65535, 4000, 5000]), vec![inverse, 0]].concat();
        xt::matching("udp", 0, &info)
    };
    assert_eq!(asks(udp(0), &probe), Some(true));
    assert_eq!(asks(udp(2), &probe), Some(false));
    assert_eq!(asks(udp(0), &incoming(22, probe::NEW)), Some(false));
    let conntrack = |states: u16, inverse: u16| {
        let mut info = vec![0; 146];
        info.extend(halves(&[1, inverse, states, 0, 0, 0, 0, 0]));
        xt::matching("conntrack", 3, &info)
    };
    assert_eq!(asks(conntrack(8, 0), &probe), Some(true));
    assert_eq!(asks(conntrack(6, 0), &probe), Some(false));
    assert_eq!(asks(conntrack(6, 1), &probe), Some(true));
    let mut ports = vec![1, 3];
    ports.extend(halves(&[53, 4000, 5000]));
    ports.resize(32, 0);
    ports.extend([0, 1]);
    ports.resize(48, 0);
    assert_eq!(
        asks(xt::matching("multiport", 1, &ports), &probe),
        Some(true)
    );
    assert_eq!(xt::matching("comment", 0, &[]), []);
    for (name, revision) in [("udp", 1), ("geoip", 0), ("conntrack", 3), ("multiport", 1)] {
        assert_eq!(
            xt::matching(name, revision, &[1; 3]),
            [Step::Maybe],
            "{name}"
        );
    }
}

/// Chains that call each other for ever, and a ruleset of millions of steps, come to an end.
#[test]
fn every_walk_ends() {
    let around = chain("around", None, vec![vec![jump("around")]; 3]);
    let base = chain("input", at(1, false), vec![vec![jump("around")]]);
    let rules = Ruleset::new(vec![around, base], Vec::new());
    let droppers = rules.droppers(&incoming(1, probe::NEW));
    assert!(droppers.iter().all(|it| !it.certain));
}

/// Before a packet is routed nobody knows where it will leave.
#[test]
fn what_is_dropped_before_routing_is_let_pass_there() {
    let text = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i eth0 -j DROP\nCOMMIT\n";
    let said = certain(&cases::remote(), &cases::vps(), &legacy(text, "")).join("\n");
    for line in [
        "`iptables-legacy -t raw -I PREROUTING -p udp --dport 4725 -j ACCEPT`",
        "`iptables-legacy -t raw -I PREROUTING -d 203.0.113.2 -j ACCEPT`",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}
