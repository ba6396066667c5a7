//! What only one of the two portals has.

use std::net::{IpAddr, Ipv4Addr};

use super::address::{HostAddress, is_inside};
use super::forward;
use super::reader::Fields;
use super::report::{At, Report};
use super::schema::{self, Portal};
use super::units::IfName;
use super::words::quoted;
use super::{
    Deliver, Forward, Keep, Local, PortProtocol, PublicAddresses, Remote, Role, TunnelAddresses,
    WithoutTunnel,
};

/// What of the rest of the file a role is checked against.
pub(super) struct Around<'a> {
    pub(super) name: &'a IfName,
    pub(super) public: Option<&'a PublicAddresses>,
    pub(super) tunnel: &'a TunnelAddresses,
}

pub(super) fn read(
    fields: &Fields<'_>,
    around: &Around<'_>,
    report: &mut Report<'_>,
) -> Option<Role> {
    const NEED: &str = "\"local\" on the router at home, \"remote\" on the VPS";
    let field = fields.need("role", NEED, report)?;
    let portal = match field.text(report)? {
        "local" => Portal::Local,
        "remote" => Portal::Remote,
        other => {
            report.error(
                &field.at,
                format!("{} is not a role ({NEED})", quoted(other)),
            );
            return None;
        }
    };
    fields.refuse_keys_of_the_other(portal, report);
    match portal {
        Portal::Local => {
            let keep = keep(fields, report).unwrap_or_default();
            let without_tunnel = without_tunnel(fields, report);
            let native_ipv6 = fields.word("native_ipv6", report).unwrap_or_default();
            Some(Role::Local(Local {
                deliver: deliver(fields, around, report)?,
                keep,
                without_tunnel,
                native_ipv6,
            }))
        }
        // By default ssh stays on the VPS, so that nobody locks himself out of it.
        Portal::Remote => Some(Role::Remote(Remote {
            keep: keep(fields, report).unwrap_or_else(|| {
                vec![Keep {
                    protocol: PortProtocol::Tcp,
                    first: 22,
                    last: 22,
                }]
            }),
        })),
    }
}

fn keep(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<Vec<Keep>> {
    let words = fields.get("keep")?.words(report);
    Some(words.into_iter().map(|(_, keep)| keep).collect())
}

/// Who owns the public address himself has none to go by without the tunnel.
fn without_tunnel(fields: &Fields<'_>, report: &mut Report<'_>) -> WithoutTunnel {
    let word = fields.word("without_tunnel", report).unwrap_or_default();
    let is_nat = fields
        .get("deliver")
        .is_some_and(|field| field.text(report) == Some("nat"));
    if word == WithoutTunnel::Direct && !is_nat {
        report.error(
            &fields.at("without_tunnel"),
            "\"direct\" needs deliver = \"nat\" (the public address is of no use without the tunnel)",
        );
    }
    word
}

fn deliver(fields: &Fields<'_>, around: &Around<'_>, report: &mut Report<'_>) -> Option<Deliver> {
    let how = match fields.get("deliver") {
        Some(field) => {
            let text = field.text(report)?;
            if !["client", "nat", "none"].contains(&text) {
                report.error(
                    &field.at,
                    format!(
                        "{} is not allowed (allowed: \"client\", \"nat\", \"none\")",
                        quoted(text)
                    ),
                );
                return None;
            }
            text
        }
        None => "client",
    };
    for (key, owner) in [("client", "client"), ("lan", "nat"), ("forwards", "nat")] {
        if owner != how && fields.get(key).is_some() {
            report.error(
                &fields.at(key),
                format!("only with deliver = \"{owner}\", and here it is \"{how}\""),
            );
        }
    }
    match how {
        "client" => client(fields, around, report),
        "nat" => nat(fields, around, report),
        _ => Some(Deliver::Nothing),
    }
}

fn client(fields: &Fields<'_>, around: &Around<'_>, report: &mut Report<'_>) -> Option<Deliver> {
    fields.need(
        "client",
        "deliver = \"client\" needs it, like client = { device = \"lan\", gateway = \
         \"192.168.1.1\" }",
        report,
    )?;
    let client = fields.table("client", &schema::CLIENT, report)?;
    let device = device(&client, "the device towards the client", around, report);
    let gateway = client
        .need(
            "gateway",
            "this router's IPv4 address on the client's device",
            report,
        )
        .and_then(|field| {
            let HostAddress(gateway) = field.word::<HostAddress<Ipv4Addr>>(report)?;
            if is_inside(around.tunnel, IpAddr::V4(gateway)) {
                report.error(
                    &field.at,
                    format!("{gateway} is an address inside the tunnel (change one of the two)"),
                );
            }
            if around
                .public
                .is_some_and(|public| public.v4 == Some(gateway))
            {
                report.error(
                    &field.at,
                    format!(
                        "{gateway} is the public address, which the client has (the router needs \
                         another, like 192.168.1.1)"
                    ),
                );
            }
            Some(gateway)
        });
    Some(Deliver::Client {
        device: device?,
        gateway: gateway?,
    })
}

fn nat(fields: &Fields<'_>, around: &Around<'_>, report: &mut Report<'_>) -> Option<Deliver> {
    let forwards = forwards(fields, around, report);
    fields.need(
        "lan",
        "deliver = \"nat\" needs it, like lan = { device = \"lan\" }",
        report,
    )?;
    let lan = fields.table("lan", &schema::LAN, report)?;
    Some(Deliver::Nat {
        devices: lans(&lan, around, report)?,
        forwards,
    })
}

/// The devices of `lan`: `device` names one, `devices` several.
fn lans(lan: &Fields<'_>, around: &Around<'_>, report: &mut Report<'_>) -> Option<Vec<IfName>> {
    const NEED: &str = "the device towards the LAN";
    let Some(field) = lan.get("devices") else {
        return device(lan, NEED, around, report).map(|device| vec![device]);
    };
    if let Some(one) = lan.get("device") {
        report.error(&one.at, "not beside \"devices\" (name every device there)");
    }
    if field.is_empty_list() {
        report.error(
            &field.at,
            "is empty (like devices = [\"br-lan\", \"br-guest\"])",
        );
    }
    let mut devices = Vec::new();
    for (at, device) in field.words::<IfName>(report) {
        if is_tunnel(&device, &at, NEED, around, report) {
            continue;
        }
        if devices.contains(&device) {
            report.error(&at, format!("{device} is in the list already"));
        } else {
            devices.push(device);
        }
    }
    (!devices.is_empty()).then_some(devices)
}

fn forwards(fields: &Fields<'_>, around: &Around<'_>, report: &mut Report<'_>) -> Vec<Forward> {
    let Some(field) = fields.get("forwards") else {
        return Vec::new();
    };
    let forwards = field.words::<Forward>(report);
    forward::check(&forwards, around.public, report);
    forwards.into_iter().map(|(_, forward)| forward).collect()
}

/// The key `device` of a table: any device but the tunnel's own.
pub(super) fn device(
    fields: &Fields<'_>,
    need: &str,
    around: &Around<'_>,
    report: &mut Report<'_>,
) -> Option<IfName> {
    let field = fields.need("device", need, report)?;
    let device: IfName = field.word(report)?;
    (!is_tunnel(&device, &field.at, need, around, report)).then_some(device)
}

/// True, with an error, for the tunnel's own device.
fn is_tunnel(
    device: &IfName,
    at: &At,
    need: &str,
    around: &Around<'_>,
    report: &mut Report<'_>,
) -> bool {
    let is_tunnel = device == around.name;
    if is_tunnel {
        report.error(
            at,
            format!("{device} is the tunnel itself ({need} is wanted)"),
        );
    }
    is_tunnel
}
