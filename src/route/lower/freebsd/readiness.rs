//! Whether pf will heed the anchor: what its own programs say, and what the administrator has to
//! write.

use crate::config::{Config, Deliver, Role};

/// What is said when there is no pf at all.
pub const PF_HINT: &str =
    "there is no /dev/pf: run `kldload pf`, and add pf_load=\"YES\" to /boot/loader.conf";

/// What pf.conf must hold, each at its place: options, translation, filter (pf.conf(5)).
const REASSEMBLE: &str = "set reassemble yes";
const NAT: &str = "nat-anchor \"netcombiner/*\"";
const RDR: &str = "rdr-anchor \"netcombiner/*\"";
const FILTER: &str = "anchor \"netcombiner/*\"";

/// The lines that pf.conf must hold for a configuration; without one, for any. None when the
/// administrator routes.
pub fn pf_conf_lines(config: Option<&Config>) -> Vec<&'static str> {
    if config.is_some_and(|config| !config.manage_routing) {
        return Vec::new();
    }
    let translates = config.is_none_or(|config| match &config.role {
        Role::Local(local) => matches!(local.deliver, Deliver::Nat { .. }),
        Role::Remote(_) => false,
    });
    if translates {
        vec![REASSEMBLE, NAT, RDR, FILTER]
    } else {
        vec![REASSEMBLE, FILTER]
    }
}

/// What stands in the way, by the lines that are needed and the answers to `pfctl -v -s info`,
/// `pfctl -s rules` and `pfctl -s nat`.
pub fn missing(lines: &[&str], info: &str, rules: &str, nat: &str) -> Vec<String> {
    let mut missing = Vec::new();
    let status = info.lines().find_map(|line| line.strip_prefix("Status: "));
    if !status.is_some_and(|status| status.starts_with("Enabled")) {
        missing
            .push("pf is not enabled: run `sysrc pf_enable=YES` and `service pf start`".to_owned());
    }
    for &line in lines {
        let there = match line {
            REASSEMBLE => reassembles(info, rules),
            FILTER => calls(rules, "anchor"),
            NAT => calls(nat, "nat-anchor"),
            _ => calls(nat, "rdr-anchor"),
        };
        if !there {
            let why = if line == REASSEMBLE {
                "without it fragments have no ports, and those for this host go to the client"
            } else {
                "without it pf never looks into the tunnel's rules"
            };
            missing.push(format!(
                "/etc/pf.conf lacks `{line}` ({why}); add it, then run `service pf reload`"
            ));
        }
    }
    missing
}

/// `anchor "netcombiner/*" all`.
fn calls(rules: &str, kind: &str) -> bool {
    rules.lines().any(|line| {
        let rest = line.trim().strip_prefix(kind).map(str::trim_start);
        rest.is_some_and(|rest| rest.starts_with("\"netcombiner/"))
    })
}

/// By the option (`Reassemble  yes`), or by a rule of older pf (`scrub in all fragment
/// reassemble`), beside which the option is ignored.
fn reassembles(info: &str, rules: &str) -> bool {
    let mut scrubs = rules.lines().filter(|line| line.starts_with("scrub "));
    if let Some(first) = scrubs.next() {
        return first.contains("fragment reassemble");
    }
    let said = info
        .lines()
        .find_map(|line| line.strip_prefix("Reassemble"));
    said.is_some_and(|said| said.trim_start().starts_with("yes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::cases;

    const INFO: &str = include_str!("../../../host/freebsd/testdata/pfctl-info.txt");
    const RULES: &str = include_str!("../../../host/freebsd/testdata/pfctl-rules.txt");
    const NAT_RULES: &str = include_str!("../../../host/freebsd/testdata/pfctl-nat.txt");

    /// Field rows F4 and F8: each thing that lacks is said, with the line to add.
    #[test]
    fn what_lacks_is_named() {
        let ready = format!("{INFO}Reassemble                      yes \n");
        let lines = pf_conf_lines(Some(&cases::local_nat()));
        let missing = |info: &str, rules: &str, nat: &str| missing(&lines, info, rules, nat);
        assert!(missing(&ready, RULES, NAT_RULES).is_empty());
        let off = ready.replace("Enabled", "Disabled");
        assert!(missing(&off, RULES, NAT_RULES)[0].contains("service pf start"));
        let said = missing(&ready, "pass all flags S/SA keep state\n", "");
        for (said, line) in said.iter().zip([NAT, RDR, FILTER]) {
            assert!(said.contains(line), "{said}");
        }
        assert_eq!(said.len(), 3);

        // No reassembly: the option is off, or a scrub rule takes its place.
        for (info, rules, there) in [
            (INFO, RULES.to_owned(), false),
            (&ready.replace("yes", "no"), RULES.to_owned(), false),
            (
                INFO,
                format!("scrub in all fragment reassemble\n{RULES}"),
                true,
            ),
            (
                &ready,
                format!("scrub in all fragment no reassemble\n{RULES}"),
                false,
            ),
        ] {
            let said = missing(info, &rules, NAT_RULES);
            assert_eq!(said.is_empty(), there, "{said:?}");
            assert!(said.iter().all(|said| said.contains(REASSEMBLE)));
        }
    }

    #[test]
    fn only_who_translates_needs_those_lines() {
        assert_eq!(
            pf_conf_lines(Some(&cases::local_client())),
            [REASSEMBLE, FILTER]
        );
        assert_eq!(pf_conf_lines(Some(&cases::remote())), [REASSEMBLE, FILTER]);
        assert_eq!(pf_conf_lines(None).len(), 4);
    }
}
