//! The configuration: every broken file of `tests/config/broken` gives exactly the errors at its
//! end, whole ones give what they say, and no text makes the reader panic.

#[path = "config/support.rs"]
mod support;

use std::fs;
use std::path::Path;

use netcombiner::config::units::{IfName, Mtu, RulePref, TableId};
use netcombiner::config::{
    Config, Congestion, DEFAULT_TUNNEL_LOCAL, Deliver, Endpoint, Numbers, Role, Security,
    Transport, known_keys,
};
use proptest::prelude::*;
use support::{Memory, filled, parse};

/// A case is a broken file; its errors stand at its end, a line each, behind `#> `.
#[test]
fn broken_files_give_exactly_their_errors() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/broken");
    let mut cases = 0;
    let mut wrong = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let expected: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("#> "))
            .collect();
        assert!(!expected.is_empty(), "{} expects nothing", path.display());
        let errors = parse(&text).unwrap_err().to_string();
        if errors.lines().collect::<Vec<_>>() != expected {
            let expected = expected.join("\n");
            wrong += &format!(
                "{}\ngave\n{errors}\ninstead of\n{expected}\n\n",
                path.display()
            );
        }
        cases += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(cases >= 48, "{cases} cases: some were lost");
}

const REMOTE: &str = include_str!("../etc/nc0-remote.toml");
const LOCAL: &str = include_str!("../etc/nc0-local.toml");

/// The defaults with a key where they have a placeholder.
fn with_key(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some(("peer_public_key", _)) => "peer_public_key = \"PEER\"",
        Some(("private_key_file", _)) => "private_key_file = \"good.key\"",
        Some(_) | None => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_default_configurations_are_real() {
    let (remote, warnings) = parse(&with_key(REMOTE)).unwrap();
    assert_eq!(warnings, []);
    let Role::Remote(role) = &remote.role else {
        panic!("{:?}", remote.role)
    };
    assert_eq!(role.keep.len(), 1);
    assert_eq!(remote.listen.len(), 2);
    assert_eq!(remote.tunnel.local, DEFAULT_TUNNEL_LOCAL);

    let (local, warnings) = parse(&with_key(LOCAL)).unwrap();
    assert_eq!(warnings, []);
    let Role::Local(role) = &local.role else {
        panic!("{:?}", local.role)
    };
    assert_eq!(
        role.deliver,
        Deliver::Client {
            device: "lan".parse().unwrap(),
            gateway: "192.168.1.1".parse().unwrap()
        }
    );
    assert_eq!(local.public, remote.public);
    assert_eq!(local.numbers, Numbers::default());
    assert_eq!((local.links.len(), local.mtu), (0, None));
    assert!(local.manage_routing && local.offload && local.ecn);
}

#[test]
fn the_placeholder_key_of_a_default_configuration_is_refused() {
    for text in [LOCAL, REMOTE] {
        let text = text.replace("\"nc0.key\"", "\"good.key\"");
        let errors = parse(&text).unwrap_err();
        assert_eq!(errors.errors.len(), 1, "{errors}");
        assert_eq!(errors.errors[0].place, "peer_public_key");
    }
}

/// A key that a default configuration sets, or shows in a comment, at its place: `mtu` above the
/// first link, `link.port` below, `client.device` in the line of `client`.
fn shows(text: &str, key: &str) -> bool {
    let (above, below) = text.split_once("# [[link]]\n").unwrap_or((text, ""));
    let sets = |text: &str, key: &str, part: &str| {
        text.lines().any(|line| {
            let bare = line.strip_prefix("# ").unwrap_or(line);
            bare.strip_prefix(key)
                .is_some_and(|rest| rest.starts_with(" = ") && rest.contains(part))
        })
    };
    match key.split_once('.') {
        Some(("link", key)) => sets(below, key, ""),
        Some((table, key)) => sets(above, table, &format!(" {key} = ")),
        None if key == "link" => !below.is_empty(),
        None => sets(above, key, ""),
    }
}

#[test]
fn every_key_stands_in_a_default_configuration() {
    let keys: Vec<String> = known_keys().collect();
    assert!(keys.len() > 40, "{keys:?}");
    for key in &keys {
        assert!(
            shows(LOCAL, key) || shows(REMOTE, key),
            "{key} is not explained in etc/"
        );
    }
    assert!(!shows(LOCAL, "lnik") && !shows(LOCAL, "port") && !shows(LOCAL, "lan.gateway"));
}

/// What stands in the comments is as real as the rest: each line is a key and a value that pass.
#[test]
fn the_examples_in_the_comments_are_valid() {
    for text in [LOCAL, REMOTE] {
        // Of two ways to say one thing the file itself has chosen the first.
        let other_way = [
            "private_key ",
            "preshared_key",
            "i_understand",
            "lan ",
            "forwards ",
        ];
        let shown = text.lines().map(|line| {
            let Some(bare) = line.strip_prefix("# ") else {
                return line;
            };
            let example = bare == "[[link]]"
                || bare.split_once(" = ").is_some_and(|(key, _)| {
                    key.chars()
                        .all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
                });
            let other = other_way.iter().any(|key| bare.starts_with(key));
            if example && !other { bare } else { line }
        });
        let shown = shown.collect::<Vec<_>>().join("\n");
        assert!(shown.lines().any(|line| line.starts_with("mark_mask = ")));
        let (config, _) = parse(&with_key(&shown)).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(
            config.numbers,
            Numbers::default(),
            "the comments show defaults"
        );
        assert_eq!(config.security, Security::Encrypt);
        assert_eq!(config.tunnel, parse(&with_key(text)).unwrap().0.tunnel);
    }
}

#[test]
fn everything_set() {
    let (config, warnings) = parse(
        r#"
        role = "local"
        private_key = "PRIVATE"
        peer_public_key = "PEER"
        preshared_key = "PSK"
        public_address = ["203.0.113.2", "2001:db8::2"]
        remote = "vps.example.org"
        listen = "tcp:443"
        security = "none"
        i_understand_data_is_not_protected = true
        deliver = "nat"
        lan = { device = "br0" }
        forwards = ["tcp:443 -> 192.168.1.20:8443"]
        mtu = 9000
        offload = false
        ecn = false
        manage_routing = false
        table_base = 60
        keep_pref = 2
        link_pref = 3
        link_table_base = 1000
        mark = 0x20
        mark_mask = 0x30
        [tunnel]
        local = "10.9.0.3"
        [[link]]
        device = "wan0"
        [[link]]
        name = "lte"
        device = "wwan0"
        transport = "tcp"
        port = 4726
        remote = "[2001:db8::9]:443"
        gateway = "192.0.2.1"
        metric = 1
        rate_up = "1.5M"
        rate_down = "10M"
        congestion = "fixed"
        "#,
    )
    .unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.name.as_str(), "nc0");
    assert!(config.keys.preshared.is_some());
    assert_eq!(config.public.iter().count(), 2);
    assert_eq!(
        config.remote,
        Some(Endpoint {
            host: "vps.example.org".to_owned(),
            port: 4725
        })
    );
    assert_eq!(config.listen[0].to_string(), "tcp:443");
    assert_eq!(config.security, Security::None);
    let Role::Local(role) = &config.role else {
        panic!("{:?}", config.role)
    };
    let Deliver::Nat { devices, forwards } = &role.deliver else {
        panic!("{:?}", role.deliver)
    };
    assert_eq!(devices, &["br0".parse().unwrap()]);
    assert_eq!(forwards[0].to_string(), "tcp:443 -> 192.168.1.20:8443");
    assert_eq!(config.mtu, Mtu::new(9000));
    assert!(!config.manage_routing && !config.offload && !config.ecn);
    assert_eq!(
        config.numbers,
        Numbers {
            table_base: TableId(60),
            keep_pref: RulePref(2),
            link_pref: RulePref(3),
            link_table_base: TableId(1000),
            mark: 0x20,
            mark_mask: 0x30,
        }
    );
    assert_eq!(config.tunnel.local.to_string(), "10.9.0.3");
    let [dsl, lte] = config.links.as_slice() else {
        panic!("{:?}", config.links)
    };
    assert_eq!(dsl.name, "wan0");
    assert_eq!(
        (dsl.transport, dsl.port, dsl.metric),
        (Transport::Udp, None, 0)
    );
    assert_eq!(dsl.congestion, Congestion::Dtrc);
    assert_eq!((lte.name.as_str(), lte.port), ("lte", Some(4726)));
    assert_eq!(
        lte.remote.as_ref().unwrap().to_string(),
        "[2001:db8::9]:443"
    );
    assert_eq!(lte.gateway, Some("192.0.2.1".parse().unwrap()));
    assert_eq!(lte.rate_up.unwrap().bits_per_second(), 1_500_000);
    assert_eq!((lte.metric, lte.congestion), (1, Congestion::Fixed));
}

/// Field row D6: one LAN, or several.
#[test]
fn lans_are_named() {
    let text = "role = \"local\"\nprivate_key = \"PRIVATE\"\npeer_public_key = \"PEER\"\n\
        public_address = \"203.0.113.2\"\nremote = \"vps.example.org\"\ndeliver = \"nat\"\n";
    for (lan, names) in [
        ("device = \"br-lan\"", &["br-lan"][..]),
        ("devices = [\"br-lan\"]", &["br-lan"]),
        (
            "devices = [\"br-lan\", \"br-guest\"]",
            &["br-lan", "br-guest"],
        ),
    ] {
        let (config, _) = parse(&format!("{text}lan = {{ {lan} }}\n")).unwrap();
        let Role::Local(role) = &config.role else {
            panic!("{:?}", config.role)
        };
        let Deliver::Nat { devices, .. } = &role.deliver else {
            panic!("{:?}", role.deliver)
        };
        let devices: Vec<_> = devices.iter().map(|it| it.as_str()).collect();
        assert_eq!(devices, names);
    }
}

const SHORTEST: &str = r#"role = "remote"
private_key = "PRIVATE"
peer_public_key = "PEER"
public_address = "203.0.113.2"
listen = "udp:4725"
"#;

/// Who says nothing about ssh keeps it.
#[test]
fn ssh_stays_without_a_word() {
    for (line, kept) in [("", vec!["tcp:22"]), ("keep = []", vec![])] {
        let (config, _) = parse(&format!("{SHORTEST}{line}")).unwrap();
        let Role::Remote(role) = config.role else {
            panic!("{:?}", config.role)
        };
        let keep: Vec<String> = role.keep.iter().map(ToString::to_string).collect();
        assert_eq!(keep, kept);
    }
}

#[test]
fn a_link_that_nothing_is_opened_by_is_a_warning() {
    let (_, warnings) = parse(&format!("{SHORTEST}[[link]]\ndevice = \"wan0\"")).unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].place, "link[1]");
}

#[test]
fn a_key_file_that_others_can_read_is_a_warning_even_beside_errors() {
    let text = SHORTEST.replace(
        "private_key = \"PRIVATE\"",
        "private_key_file = \"open.key\"",
    );
    let (_, warnings) = parse(&text).unwrap();
    assert_eq!(warnings.len(), 1);
    let errors = parse(&format!("{text}mtu = 1")).unwrap_err();
    assert_eq!(errors.warnings, warnings);
}

#[test]
fn a_name_that_no_device_can_have() {
    for name in ["", "sixteen-letters-", "a b", ".."] {
        let errors = Config::parse(&filled(SHORTEST), name, &Memory).unwrap_err();
        assert!(name.parse::<IfName>().is_err());
        assert!(
            errors
                .to_string()
                .contains("is the name of the tunnel's device")
        );
    }
}

#[test]
fn no_secret_in_debug_or_in_errors() {
    let (config, _) = parse(SHORTEST).unwrap();
    let secret = filled("PRIVATE");
    assert!(!format!("{config:?}").contains(&secret));
    let cut = &secret[..43];
    for line in [
        format!("private_key = \"{cut}\""),
        format!("private_key = {secret}"),
        format!("private_key = \"{secret}"),
        format!("private_key = [\"{secret}\"]"),
        format!("peer_public_key = \"{cut}\""),
    ] {
        let errors = parse(&SHORTEST.replace("private_key = \"PRIVATE\"", &line)).unwrap_err();
        assert!(
            !format!("{errors} {errors:?}").contains(&cut[4..12]),
            "{errors}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_toml_makes_the_reader_panic(
        lines in proptest::collection::vec(
            (0..known_keys().count(), "(\"[a-z0-9:.\\->\\[\\]/ ]{0,20}\"|-?[0-9]{1,20}|true|\\[\\]|\\{\\}|[0-9.e]{1,6}|\\[\\[1\\], \"a\"\\])"),
            0..12,
        ),
        link in 0..12_usize,
    ) {
        let keys: Vec<String> = known_keys().collect();
        let mut text = String::new();
        for (count, (key, value)) in lines.iter().enumerate() {
            if count == link {
                text.push_str("[[link]]\n");
            }
            let key = keys[*key].trim_start_matches("link.");
            text.push_str(&format!("{key} = {value}\n"));
        }
        let _ = parse(&text);
    }

    /// A whole file with some bytes changed, cut out or doubled.
    #[test]
    fn no_damaged_file_makes_the_reader_panic(
        which in any::<bool>(),
        damages in proptest::collection::vec((any::<prop::sample::Index>(), 0..4_u8, any::<char>()), 1..6),
    ) {
        let mut text: Vec<char> = with_key(if which { LOCAL } else { REMOTE }).replace("\n# ", "\n").chars().collect();
        for (index, how, other) in damages {
            // One character always stays, to be damaged next.
            let at = index.index(text.len());
            match how {
                0 => text[at] = other,
                1 if text.len() > 1 => {
                    text.remove(at);
                }
                1 | 2 => text.insert(at, other),
                _ => text.truncate(at.max(1)),
            }
        }
        let text: String = text.into_iter().collect();
        let _ = parse(&text);
    }
}
