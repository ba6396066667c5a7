//! The line to type so that a chain lets pass what it drops.

use super::questions::OTHER_PORT;
use super::{Dropper, Probe, Ruleset, Way};

/// One firewall's way to let everything pass between the tunnel and the other devices.
const FIREWALLD: &str = "firewall-cmd --permanent --zone=trusted --add-interface=DEV && \
    firewall-cmd --permanent --new-policy=DEV-in && \
    firewall-cmd --permanent --policy=DEV-in --add-ingress-zone=ANY --add-egress-zone=trusted \
    --set-target=ACCEPT && firewall-cmd --reload";

/// A zone of its own: what comes by the tunnel reaches the LAN and not the router.
const FW4: &str = "uci add firewall zone && uci set firewall.@zone[-1].name=DEV && \
    uci add_list firewall.@zone[-1].device=DEV && uci set firewall.@zone[-1].input=REJECT && \
    uci set firewall.@zone[-1].output=ACCEPT && uci set firewall.@zone[-1].forward=REJECT && \
    uci add firewall forwarding && uci set firewall.@forwarding[-1].src=lan && \
    uci set firewall.@forwarding[-1].dest=DEV && uci add firewall forwarding && \
    uci set firewall.@forwarding[-1].src=DEV && uci set firewall.@forwarding[-1].dest=lan && \
    uci commit firewall && service firewall reload";

/// The command.
pub(super) fn line(rules: &Ruleset, tunnel: &str, dropper: &Dropper<'_>, probe: &Probe) -> String {
    let base = dropper.base;
    let protocol = if probe.protocol == 6 { "tcp" } else { "udp" };
    // The port that is ours, or the other portal's: the other end has any.
    let (end, port) = match probe.ports {
        [OTHER_PORT, port] => ("dport", port),
        [port, _] => ("sport", port),
    };
    // The tunnel is where it leaves, or where it came from.
    let leaves = probe
        .oif
        .as_ref()
        .is_some_and(|device| device.name == tunnel);
    let (ufw, option, word) = if leaves {
        ("out", 'o', "oifname")
    } else {
        ("in", 'i', "iifname")
    };
    // Before a packet is routed, a firewall's own settings are not asked, nor where it leaves.
    let early = base.base.is_some_and(|at| at.hook == 0);
    let is_nft_table = |name: &str| !early && !base.legacy && base.table == name;
    let is_ufw = |name: &str| !early && rules.has_chain(base, name);
    let is_ufw = is_ufw("ufw-user-input") || is_ufw("ufw6-user-input");
    match probe.way {
        Way::Through if early && leaves && base.legacy => {
            insert(rules, dropper, &format!("-d {}", probe.to))
        }
        Way::Through if early && leaves => {
            let ip = if probe.to.is_ipv4() { "ip" } else { "ip6" };
            insert(rules, dropper, &format!("{ip} daddr {}", probe.to))
        }
        Way::Through if is_nft_table("firewalld") => FIREWALLD.replace("DEV", tunnel),
        Way::Through if is_nft_table("fw4") => FW4.replace("DEV", tunnel),
        Way::Through if is_ufw => format!("ufw route allow {ufw} on {tunnel}"),
        Way::In if is_nft_table("firewalld") && end == "dport" => format!(
            "firewall-cmd --permanent --add-port={port}/{protocol} && firewall-cmd --reload"
        ),
        Way::In if is_nft_table("fw4") && end == "dport" => format!(
            "uci add firewall rule && uci set firewall.@rule[-1].src=wan && \
             uci set firewall.@rule[-1].proto={protocol} && \
             uci set firewall.@rule[-1].dest_port={port} && \
             uci set firewall.@rule[-1].target=ACCEPT && uci commit firewall && \
             service firewall reload"
        ),
        Way::In if is_ufw && end == "dport" => {
            format!("ufw allow {port}/{protocol}")
        }
        Way::Out if is_ufw && end == "dport" => {
            format!("ufw allow out {port}/{protocol}")
        }
        Way::Through => {
            let condition = if base.legacy {
                format!("-{option} {tunnel}")
            } else {
                format!("{word} \"{tunnel}\"")
            };
            insert(rules, dropper, &condition)
        }
        // What begins here and comes back: any port may be the other end's.
        Way::In if end == "sport" && base.legacy => {
            insert(rules, dropper, "-m conntrack --ctstate ESTABLISHED,RELATED")
        }
        Way::In if end == "sport" => insert(rules, dropper, "ct state established,related"),
        Way::In | Way::Out if base.legacy => {
            let condition = format!("-p {protocol} --{end} {port}");
            insert(rules, dropper, &condition)
        }
        Way::In | Way::Out => insert(rules, dropper, &format!("{protocol} {end} {port}")),
    }
}

/// A rule at the head of the chain, or of the one that Docker leaves to the administrator.
fn insert(rules: &Ruleset, dropper: &Dropper<'_>, condition: &str) -> String {
    let base = dropper.base;
    let chain = match base.base {
        Some(at) if at.hook == 2 && rules.has_chain(base, "DOCKER-USER") => "DOCKER-USER",
        _ => &base.name,
    };
    if base.legacy {
        let program = match base.family {
            super::Family::Ip6 => "ip6tables-legacy",
            super::Family::Ip | super::Family::Inet => "iptables-legacy",
        };
        let table = match base.table.as_str() {
            "filter" => String::new(),
            other => format!(" -t {other}"),
        };
        return format!("{program}{table} -I {chain} {condition} -j ACCEPT");
    }
    let (family, table) = (base.family.word(), &base.table);
    format!("nft insert rule {family} {table} {chain} {condition} accept")
}
