//! The links, where flows are waited for and where they are opened to.

use std::net::IpAddr;
use std::str::FromStr;

use super::address::{HostAddress, is_inside};
use super::reader::{Field, Fields};
use super::report::{At, Report};
use super::role::{Around, device};
use super::units::{Prefix, UnitError};
use super::{Congestion, Endpoint, Link, Listen, Transport, Warning, schema};
use crate::proto::wire::MAX_PATHS;
use crate::sorted::Map;

/// Who waits, who opens, and by what.
pub(super) struct Meeting {
    pub(super) listen: Vec<Listen>,
    pub(super) remote: Option<Endpoint>,
    pub(super) links: Vec<Link>,
}

pub(super) fn read(fields: &Fields<'_>, around: &Around<'_>, report: &mut Report<'_>) -> Meeting {
    let listen = listen(fields, report);
    let remote = fields
        .get("remote")
        .and_then(|field| endpoint(&field, around, report));
    let written = fields.tables("link", &schema::LINK, report);
    let links = links(fields, &written, &listen, around, report);
    if fields.get("remote").is_none() {
        without_remote(fields, &written, report);
    }
    Meeting {
        listen,
        remote,
        links,
    }
}

/// The file has no remote of its own: each link needs one, or somebody must be waited for.
fn without_remote(fields: &Fields<'_>, links: &[Fields<'_>], report: &mut Report<'_>) {
    let lost: Vec<_> = links
        .iter()
        .filter(|link| link.get("remote").is_none())
        .collect();
    let listens = fields
        .get("listen")
        .is_some_and(|field| !field.is_empty_list());
    if listens {
        for link in lost {
            report.warnings.push(Warning {
                place: link.own_at().place.clone(),
                text: "no flow is opened by it: neither it nor the file has a remote".to_owned(),
            });
        }
    } else if lost.len() == links.len() {
        report.missing(
            &fields.at("remote"),
            "is missing, and so is listen (the portals meet only when one of them listens, and \
             the other has it as its remote)",
        );
    } else {
        for link in lost {
            report.missing(
                &link.at("remote"),
                "is missing (the file has no remote of its own either)",
            );
        }
    }
}

fn listen(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<Listen> {
    let Some(field) = fields.get("listen") else {
        return Vec::new();
    };
    let mut all: Vec<(At, Listen)> = Vec::new();
    for (at, place) in field.words::<Listen>(report) {
        let clash = all.iter().find(|(_, other)| {
            // All addresses hold each single one.
            let both = place.address == other.address
                || place.address.is_none()
                || other.address.is_none();
            both && place.transport == other.transport && place.port == other.port
        });
        if let Some((other, _)) = clash {
            report.error(&at, format!("{place} is taken by {} already", other.place));
        }
        all.push((at, place));
    }
    all.into_iter().map(|(_, place)| place).collect()
}

fn endpoint(field: &Field<'_>, around: &Around<'_>, report: &mut Report<'_>) -> Option<Endpoint> {
    let endpoint: Endpoint = field.word(report)?;
    if let Some(address) = endpoint.address()
        && is_inside(around.tunnel, address)
    {
        report.error(
            &field.at,
            format!(
                "{address} is an address inside the tunnel (the other portal's address on the \
                 Internet is wanted)"
            ),
        );
        return None;
    }
    Some(endpoint)
}

fn links(
    fields: &Fields<'_>,
    written: &[Fields<'_>],
    listen: &[Listen],
    around: &Around<'_>,
    report: &mut Report<'_>,
) -> Vec<Link> {
    if written.len() > MAX_PATHS {
        report.error(
            &fields.at("link"),
            format!("{} links are too many (at most {MAX_PATHS})", written.len()),
        );
    }
    let mut names = Map::new();
    let mut leaves = Map::new();
    let mut links = Vec::new();
    for own in written {
        let Some(link) = link(own, around, report) else {
            continue;
        };
        // A listener of all addresses has the port on every device.
        if let Some(listener) = listen.iter().find(|listener| {
            listener.address.is_none()
                && listener.transport == link.transport
                && Some(listener.port) == link.port
        }) {
            report.error(
                &own.at("port"),
                format!("{listener} has it already, in listen (give the link another, or none)"),
            );
        }
        let place = own.own_at().place.clone();
        let leaf = (
            link.device.clone(),
            link.transport,
            link.port,
            (link.gateway, link.source),
        );
        if let Some(other) = leaves.insert(leaf, place.clone()) {
            report.error(
                own.own_at(),
                format!(
                    "leaves by the same device, transport and port as {other} (give each flow of \
                     a device its own port)"
                ),
            );
        } else if let Some(other) = names.insert(link.name.clone(), place) {
            report.error(
                &own.at("name"),
                format!("{:?} is the name of {other} already", link.name),
            );
        }
        links.push(link);
    }
    links
}

fn link(fields: &Fields<'_>, around: &Around<'_>, report: &mut Report<'_>) -> Option<Link> {
    let device = device(fields, "the device the link leaves by", around, report);
    let name = fields.get("name").map(|field| name(&field, report));
    let transport = fields.word("transport", report).unwrap_or(Transport::Udp);
    let port = fields.number("port", 1..=65535, "a port", report);
    let remote = fields
        .get("remote")
        .and_then(|field| endpoint(&field, around, report));
    let gateway = fields
        .word("gateway", report)
        .map(|HostAddress::<IpAddr>(address)| address);
    let source = fields.word("source", report).map(|Source(prefix)| prefix);
    let metric = fields
        .number("metric", 0..=255, "a metric", report)
        .unwrap_or(0);
    let rate_up = fields.word("rate_up", report);
    let rate_down = fields.word("rate_down", report);
    let congestion = fields.word("congestion", report).unwrap_or_default();
    if congestion == Congestion::Fixed && fields.get("rate_up").is_none() {
        report.missing(
            &fields.at("rate_up"),
            "is missing (congestion = \"fixed\" sends at this rate, like \"20M\")",
        );
    }
    let device = device?;
    Some(Link {
        name: name.unwrap_or_else(|| Some(device.to_string()))?,
        device,
        transport,
        port,
        remote,
        gateway,
        source,
        metric,
        rate_up,
        rate_down,
        congestion,
    })
}

/// An own address, or the prefix that it is in.
struct Source(Prefix);

impl FromStr for Source {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let prefix = text
            .parse::<HostAddress<IpAddr>>()
            .map(|HostAddress(address)| Prefix::host(address))
            .or_else(|_| text.parse());
        let good = prefix
            .ok()
            .filter(|prefix: &Prefix| !prefix.is_default() && !prefix.address().is_multicast());
        good.map(Self).ok_or_else(|| {
            UnitError(format!(
                "{text:?} is no own address and no prefix of one (like 192.0.2.10 or 2001:db8::/64)"
            ))
        })
    }
}

fn name(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let name = field.text(report)?;
    // Printed in tables and in JSON, and typed at a shell.
    let good = (1..=32).contains(&name.chars().count())
        && !name.chars().any(|c| c.is_control() || c.is_whitespace());
    if !good {
        report.error(
            &field.at,
            "is not a name (1-32 characters, no spaces or control characters)",
        );
    }
    good.then(|| name.to_owned())
}
