//! Our table as chains and rules, and each clause as the comment of its rules. The same rules as
//! the text of [`route::lower::nft`](crate::route::lower::nft), which says why.
//!
//! Order of the hooks: conntrack is at -200, so at mangle's -150 a packet's connection is known;
//! routing comes after prerouting. The comment is what a listed table is read back by, and what
//! `nft list ruleset` shows the administrator.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::expression::{End, Expressions};
use crate::config::units::Family;
use crate::config::{Forward, PortProtocol};
use crate::route::resource::{Filter, FilterClause};

/// A chain of the table, hung into the packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain {
    /// Its name.
    pub(super) name: &'static str,
    /// `filter` or `nat`.
    pub(super) kind: &'static str,
    /// NF_INET_*: prerouting 0, input 1, forward 2, output 3, postrouting 4.
    pub(super) hook: u32,
    /// Among the chains of the hook, the lower, the earlier.
    pub(super) priority: i32,
}

/// Marks connections that this host takes. NF_IP_PRI_MANGLE.
const INPUT: Chain = Chain {
    name: "input",
    kind: "filter",
    hook: 1,
    priority: -150,
};
/// Marks the client's connections, and keeps its packets inside. NF_IP_PRI_MANGLE.
const FORWARD: Chain = Chain {
    name: "forward",
    kind: "filter",
    hook: 2,
    priority: -150,
};
/// Marks connections that this host opens. NF_IP_PRI_MANGLE.
const OUTPUT: Chain = Chain {
    name: "output",
    kind: "filter",
    hook: 3,
    priority: -150,
};
/// Gives the mark back to the answers, before they are routed. NF_IP_PRI_MANGLE.
const PREROUTING: Chain = Chain {
    name: "prerouting",
    kind: "filter",
    hook: 0,
    priority: -150,
};
/// NF_IP_PRI_NAT_DST.
const DESTINATION: Chain = Chain {
    name: "dstnat",
    kind: "nat",
    hook: 0,
    priority: -100,
};
/// NF_IP_PRI_NAT_SRC.
const SOURCE: Chain = Chain {
    name: "srcnat",
    kind: "nat",
    hook: 4,
    priority: 100,
};

/// All chains that the table can have.
const CHAINS: [Chain; 6] = [PREROUTING, INPUT, FORWARD, OUTPUT, DESTINATION, SOURCE];

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// The chain it stands in.
    pub(super) chain: &'static str,
    /// The clause it belongs to.
    pub(super) comment: String,
    /// Its steps.
    pub(super) steps: Expressions,
}

/// The chains that these rules stand in.
pub(super) fn chains(rules: &[Rule]) -> impl Iterator<Item = Chain> {
    let used = |chain: &Chain| rules.iter().any(|rule| rule.chain == chain.name);
    CHAINS.into_iter().filter(used)
}

/// The rules of all clauses, in the order in which they are added.
pub(super) fn rules(filter: &Filter) -> Vec<Rule> {
    filter.clauses.iter().flat_map(render).collect()
}

fn render(clause: &FilterClause) -> Vec<Rule> {
    let rule = |chain: Chain, steps| Rule {
        chain: chain.name,
        comment: Comment(clause).to_string(),
        steps,
    };
    match clause {
        FilterClause::MarkOwn {
            address,
            mark,
            mask,
        } => {
            let family = Family::of(*address);
            let at = |end| {
                Expressions::new()
                    .family(family)
                    .address(end, true, *address)
            };
            let mut rules = vec![
                rule(
                    PREROUTING,
                    at(End::Destination)
                        .connection_mark(*mark, *mask)
                        .mark_packet(*mark, *mask),
                ),
                rule(
                    INPUT,
                    at(End::Destination)
                        .new_connection()
                        .mark_connection(*mark, *mask),
                ),
                rule(
                    OUTPUT,
                    at(End::Source)
                        .own_packet_of_connection()
                        .mark_connection(*mark, *mask),
                ),
            ];
            if family == Family::V6 {
                let discovery = at(End::Destination).neighbour_discovery();
                rules.push(rule(PREROUTING, discovery.mark_packet(*mark, *mask)));
            }
            rules
        }
        FilterClause::HoldClient {
            device,
            address,
            mark,
            mask,
        } => {
            let tcp = |by: Expressions, end| {
                by.family(Family::of(*address))
                    .address(end, true, *address)
                    .tcp()
            };
            let client = |by, end| {
                tcp(by, end)
                    .connection_mark(0, *mask)
                    .mark_connection(*mark, *mask)
            };
            let start = Expressions::new;
            vec![
                rule(FORWARD, client(start().leaves_by(device), End::Destination)),
                rule(FORWARD, client(start().comes_by(device), End::Source)),
                rule(
                    INPUT,
                    tcp(start(), End::Destination)
                        .connection_mark(*mark, *mask)
                        .drop(),
                ),
            ]
        }
        FilterClause::KeepInside {
            client,
            device,
            address,
        } => vec![rule(
            FORWARD,
            Expressions::new()
                .comes_by(client)
                .family(Family::of(*address))
                .address(End::Source, true, *address)
                .leaves_by_another_than(device)
                .drop(),
        )],
        FilterClause::SourceNat { device, address } => vec![rule(
            SOURCE,
            Expressions::new()
                .leaves_by(device)
                .family(Family::of(*address))
                .address(End::Source, false, *address)
                .source_nat(*address),
        )],
        FilterClause::Forward {
            device,
            address,
            forward,
        } => vec![rule(
            DESTINATION,
            Expressions::new()
                .comes_by(device)
                .family(Family::of(*address))
                .address(End::Destination, true, *address)
                .port(forward.protocol, forward.port)
                .destination_nat(forward.to, forward.to_port),
        )],
    }
}

/// A clause as words: `own 203.0.113.2 16777216 251658240`.
struct Comment<'a>(&'a FilterClause);

impl fmt::Display for Comment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            FilterClause::MarkOwn {
                address,
                mark,
                mask,
            } => write!(f, "own {address} {mark} {mask}"),
            FilterClause::HoldClient {
                device,
                address,
                mark,
                mask,
            } => write!(f, "client {device} {address} {mark} {mask}"),
            FilterClause::KeepInside {
                client,
                device,
                address,
            } => write!(f, "inside {client} {device} {address}"),
            FilterClause::SourceNat { device, address } => write!(f, "nat {device} {address}"),
            FilterClause::Forward {
                device,
                address,
                forward,
            } => {
                let protocol = match forward.protocol {
                    PortProtocol::Tcp => "tcp",
                    PortProtocol::Udp => "udp",
                };
                let Forward {
                    port, to, to_port, ..
                } = forward;
                write!(
                    f,
                    "forward {device} {address} {protocol} {port} {to} {to_port}"
                )
            }
        }
    }
}

/// Reads the words of a clause; nothing when they are not ours.
pub(super) fn parse(comment: &str) -> Option<FilterClause> {
    fn word<T: FromStr>(word: &str) -> Option<T> {
        word.parse().ok()
    }
    let words: Vec<&str> = comment.split(' ').collect();
    match words[..] {
        ["own", address, mark, mask] => Some(FilterClause::MarkOwn {
            address: word(address)?,
            mark: word(mark)?,
            mask: word(mask)?,
        }),
        ["client", device, address, mark, mask] => Some(FilterClause::HoldClient {
            device: word(device)?,
            address: word(address)?,
            mark: word(mark)?,
            mask: word(mask)?,
        }),
        ["inside", client, device, address] => Some(FilterClause::KeepInside {
            client: word(client)?,
            device: word(device)?,
            address: word(address)?,
        }),
        ["nat", device, address] => Some(FilterClause::SourceNat {
            device: word(device)?,
            address: word(address)?,
        }),
        ["forward", device, address, protocol, port, to, to_port] => Some(FilterClause::Forward {
            device: word(device)?,
            address: word::<IpAddr>(address)?,
            forward: Forward {
                protocol: match protocol {
                    "tcp" => PortProtocol::Tcp,
                    "udp" => PortProtocol::Udp,
                    _ => return None,
                },
                port: word(port)?,
                to: word(to)?,
                to_port: word(to_port)?,
            },
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::IfName;

    #[test]
    fn comments_are_read_back() {
        let nc0: IfName = "nc0".parse().unwrap();
        let address: IpAddr = "2001:db8::2".parse().unwrap();
        for clause in [
            FilterClause::MarkOwn {
                address,
                mark: 0x0100_0000,
                mask: 0x0f00_0000,
            },
            FilterClause::HoldClient {
                device: nc0.clone(),
                address,
                mark: 0x0200_0000,
                mask: 0x0f00_0000,
            },
            FilterClause::KeepInside {
                client: "lan".parse().unwrap(),
                device: nc0.clone(),
                address,
            },
            FilterClause::SourceNat {
                device: nc0.clone(),
                address,
            },
            FilterClause::Forward {
                device: nc0,
                address,
                forward: Forward {
                    protocol: PortProtocol::Udp,
                    port: 443,
                    to: "fd00::7".parse().unwrap(),
                    to_port: 8443,
                },
            },
        ] {
            let rules = render(&clause);
            assert!(!rules.is_empty());
            for rule in rules {
                assert_eq!(parse(&rule.comment), Some(clause.clone()));
                // NFTNL_UDATA_COMMENT_MAXLEN is 128 with its NUL.
                assert!(rule.comment.len() < 128);
            }
        }
        for comment in [
            "",
            "own",
            "own x 1 2",
            "nat nc0",
            "inside lan nc0",
            "ssh",
            "own 1.2.3.4 1 2 3",
        ] {
            assert_eq!(parse(comment), None, "{comment}");
        }
    }
}
