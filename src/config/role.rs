//! What only one of the two portals has.

use std::net::{IpAddr, Ipv4Addr};

use super::address::{HostAddress, is_inside};
use super::forward;
use super::reader::Fields;
use super::report::Report;
use super::schema::{self, Portal};
use super::units::IfName;
use super::words::quoted;
use super::{
    Deliver, Forward, Keep, Local, PortProtocol, PublicAddresses, Remote, Role, TunnelAddresses,
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
            deliver(fields, around, report).map(|deliver| Role::Local(Local { deliver }))
        }
        Portal::Remote => Some(Role::Remote(Remote {
            keep: keep(fields, report),
        })),
    }
}

/// Without a word, ssh stays on the host: nobody is to lock himself out of a VPS.
fn keep(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<Keep> {
    match fields.get("keep") {
        Some(field) => field
            .words(report)
            .into_iter()
            .map(|(_, keep)| keep)
            .collect(),
        None => vec![Keep {
            protocol: PortProtocol::Tcp,
            first: 22,
            last: 22,
        }],
    }
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
        device: device(&lan, "the device towards the LAN", around, report)?,
        forwards,
    })
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
    if device == *around.name {
        report.error(
            &field.at,
            format!("{device} is the tunnel itself ({need} is wanted)"),
        );
        return None;
    }
    Some(device)
}
