//! A table as a script for nft(8).

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use super::model::state;
use super::model::{Element, End, Hook, Item, Key, Kind, Part, Place, Set, Table, Target, Way};
use crate::config::PortProtocol;
use crate::config::units::{Family, Prefix};

/// How many elements of a set stand on a line.
const A_LINE: usize = 4;

/// A script that puts the table in the place of the one before, in one transaction.
pub(super) fn script(table: &Table) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write_table(&mut text, table);
    text
}

fn write_table(text: &mut String, table: &Table) -> fmt::Result {
    let name = &table.name;
    // The first line makes the second work when there is no such table yet.
    writeln!(text, "table inet {name}\ndelete table inet {name}")?;
    writeln!(text, "table inet {name} {{")?;
    for set in &table.sets {
        write_set(text, set)?;
    }
    for chain in &table.chains {
        let Place { name, kind, .. } = chain.place;
        let kind = match kind {
            Kind::Filter => "filter",
            Kind::Nat => "nat",
        };
        let (hook, priority) = (hook(chain.place.hook), priority(chain.place));
        writeln!(text, "\tchain {name} {{")?;
        writeln!(
            text,
            "\t\ttype {kind} hook {hook} priority {priority}; policy accept;"
        )?;
        for rule in &chain.rules {
            text.push('\t');
            for part in rule {
                text.push(if text.ends_with('\t') { '\t' } else { ' ' });
                write_part(text, part)?;
            }
            text.push('\n');
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    Ok(())
}

fn hook(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    }
}

/// nft's names of the usual priorities.
fn priority(place: Place) -> String {
    match place.priority {
        -300 => "raw".to_owned(),
        -150 => "mangle".to_owned(),
        -100 if place.hook == Hook::Prerouting => "dstnat".to_owned(),
        0 => "filter".to_owned(),
        100 if place.hook == Hook::Postrouting => "srcnat".to_owned(),
        other => other.to_string(),
    }
}

fn write_set(text: &mut String, set: &Set) -> fmt::Result {
    let address = |family| match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    };
    let key = match set.key {
        Key::Address(family) => address(family),
        Key::Port => "inet_service",
        Key::Device => "ifname",
    };
    let (word, target) = match set.target {
        None => ("set", String::new()),
        Some(Target::Address(family)) => ("map", format!(" : {}", address(family))),
        Some(Target::Place(family)) => ("map", format!(" : {} . inet_service", address(family))),
    };
    writeln!(text, "\t{word} {} {{\n\t\ttype {key}{target}", set.name)?;
    if set.has_ranges() {
        text.push_str("\t\tflags interval\n");
    }
    let mut elements = set.elements.chunks(A_LINE).peekable();
    if elements.peek().is_some() {
        text.push_str("\t\telements = {\n");
        for line in elements {
            text.push_str("\t\t\t");
            for element in line {
                write_element(text, set, element)?;
                text.push(',');
                text.push(' ');
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text.push_str("\t\t}\n");
    }
    text.push_str("\t}\n");
    Ok(())
}

fn write_element(text: &mut String, set: &Set, element: &Element) -> fmt::Result {
    match &element.item {
        Item::Network(network) => write_network(text, network),
        Item::Ports(first, last) if first == last => write!(text, "{first}"),
        Item::Ports(first, last) => write!(text, "{first}-{last}"),
        Item::Device(device) => write!(text, "\"{device}\""),
    }?;
    match (element.target, set.target) {
        (Some((address, port)), Some(Target::Place(_))) => write!(text, " : {address} . {port}"),
        (Some((address, _)), _) => write!(text, " : {address}"),
        (None, _) => Ok(()),
    }
}

fn write_part(text: &mut String, part: &Part) -> fmt::Result {
    match part {
        Part::Device { way, is, device } => {
            write!(text, "{} {}\"{device}\"", iface(*way), not(*is))
        }
        Part::DeviceIn { way, is, set } => write!(text, "{} {}@{set}", iface(*way), not(*is)),
        Part::Address { end, is, prefix } => {
            let (ip, end, not) = (ip(prefix.family()), address_end(*end), not(*is));
            write!(text, "{ip} {end} {not}")?;
            write_network(text, prefix)
        }
        Part::AddressIn {
            end,
            is,
            family,
            set,
        } => {
            let (ip, end, not) = (ip(*family), address_end(*end), not(*is));
            write!(text, "{ip} {end} {not}@{set}")
        }
        Part::Family(Family::V4) => text.write_str("meta nfproto ipv4"),
        Part::Family(Family::V6) => text.write_str("meta nfproto ipv6"),
        Part::Protocol { is, number } => {
            write!(text, "meta l4proto {}", not(*is))?;
            write_protocol(text, *number)
        }
        Part::Port {
            protocol,
            end,
            first,
            last,
        } => {
            let protocol = self::protocol(*protocol);
            write!(text, "{protocol} {} {first}", port_end(*end))?;
            range(text, first, last)
        }
        Part::Syn { is: true } => text.write_str("tcp flags & (syn | ack) == syn"),
        Part::Syn { is: false } => text.write_str("tcp flags & (syn | ack) != syn"),
        Part::Icmp {
            family,
            first,
            last,
        } => {
            write!(text, "{} type {first}", icmp(*family))?;
            range(text, first, last)
        }
        Part::Bytes {
            offset,
            length,
            first,
            last,
        } => {
            write!(text, "@th,{},{} {first:#x}", offset * 8, length * 8)?;
            if last != first {
                write!(text, "-{last:#x}")?;
            }
            Ok(())
        }
        Part::HopLimit(limit) => write!(text, "ip6 hoplimit {limit}"),
        Part::ConnectionState(states) => write_states(text, *states),
        Part::WasTo(address) => {
            write!(text, "ct original {} daddr {address}", ip_of(*address))
        }
        Part::AnswersGoTo(address) => {
            write!(text, "ct reply {} daddr {address}", ip_of(*address))
        }
        Part::FromOpener => text.write_str("ct direction original"),
        Part::FromAnswerer => text.write_str("ct direction reply"),
        Part::Decrypted => text.write_str("meta ipsec exists"),
        Part::Unassured => text.write_str("ct status & assured == 0"),
        Part::DestinationWasTranslated => text.write_str("ct status dnat"),
        Part::ConnectionMark { mark, mask } => {
            write!(text, "ct mark & {mask:#010x} == {mark:#010x}")
        }
        Part::MarkConnection { mark, mask } => {
            write!(text, "ct mark set ct mark & {:#010x} | {mark:#010x}", !mask)
        }
        Part::MarkPacket { mark, mask } => {
            let rest = !mask;
            text.write_str("meta mark set meta mark & ")?;
            write!(text, "{rest:#010x} | {mark:#010x}")
        }
        Part::Untrack => text.write_str("notrack"),
        Part::Counter => text.write_str("counter"),
        Part::Accept => text.write_str("accept"),
        Part::Drop => text.write_str("drop"),
        Part::Masquerade => text.write_str("masquerade"),
        Part::SourceNat(to) => write!(text, "snat {} to {to}", ip_of(*to)),
        Part::DestinationNat(to) => write!(text, "dnat {} to {to}", ip_of(*to)),
        Part::DestinationNatBy {
            protocol,
            family,
            map,
            ..
        } => {
            let (ip, protocol) = (ip(*family), self::protocol(*protocol));
            write!(text, "dnat {ip} to {protocol} dport map @{map}")
        }
    }
}

const fn port_end(end: End) -> &'static str {
    match end {
        End::Source => "sport",
        End::Destination => "dport",
    }
}

const fn icmp(family: Family) -> &'static str {
    match family {
        Family::V4 => "icmp",
        Family::V6 => "icmpv6",
    }
}

fn write_network(text: &mut String, network: &Prefix) -> fmt::Result {
    match network.is_host() {
        true => write!(text, "{}", network.address()),
        false => write!(text, "{}", network.network()),
    }
}

fn write_protocol(text: &mut String, number: u8) -> fmt::Result {
    match number {
        1 => text.write_str("icmp"),
        6 => text.write_str("tcp"),
        17 => text.write_str("udp"),
        58 => text.write_str("ipv6-icmp"),
        other => write!(text, "{other}"),
    }
}

fn write_states(text: &mut String, states: u32) -> fmt::Result {
    text.push_str("ct state ");
    for (bit, name) in [
        (state::ESTABLISHED, "established,"),
        (state::INVALID, "invalid,"),
        (state::RELATED, "related,"),
        (state::NEW, "new,"),
        (state::UNTRACKED, "untracked,"),
    ] {
        if states & bit != 0 {
            text.push_str(name);
        }
    }
    text.pop();
    Ok(())
}

fn range<T: fmt::Display + PartialEq>(text: &mut String, first: &T, last: &T) -> fmt::Result {
    if first == last {
        return Ok(());
    }
    write!(text, "-{last}")
}

fn iface(way: Way) -> &'static str {
    match way {
        Way::In => "iifname",
        Way::Out => "oifname",
    }
}

fn address_end(end: End) -> &'static str {
    match end {
        End::Source => "saddr",
        End::Destination => "daddr",
    }
}

fn protocol(protocol: PortProtocol) -> &'static str {
    match protocol {
        PortProtocol::Tcp => "tcp",
        PortProtocol::Udp => "udp",
    }
}

fn not(is: bool) -> &'static str {
    if is { "" } else { "!= " }
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn ip_of(address: IpAddr) -> &'static str {
    ip(Family::of(address))
}
