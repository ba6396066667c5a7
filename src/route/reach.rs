//! Who would lose this host when the remote portal takes its address: what listens on it and is
//! not kept goes to the client.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::links::Observed;
use super::remote::kept;
use crate::config::{Config, PortProtocol, Role, Warning};

/// True when a connection to this place on this host would end with the tunnel's start.
pub fn is_cut(config: &Config, place: SocketAddr) -> bool {
    let address = place.ip().to_canonical();
    match &config.role {
        Role::Remote(role) if config.manage_routing => {
            config.public.iter().any(|public| public == address)
                && !kept(config, role, address).iter().any(|keep| {
                    keep.protocol == PortProtocol::Tcp
                        && (keep.first..=keep.last).contains(&place.port())
                })
        }
        Role::Remote(_) | Role::Local(_) => false,
    }
}

/// The listeners that nobody outside would reach any more.
pub(super) fn listeners(warnings: &mut Vec<Warning>, config: &Config, observed: &Observed) {
    let mut lost = BTreeSet::new();
    for listener in &observed.listeners {
        for public in config.public.iter() {
            let hears = match listener.ip() {
                // A socket of all IPv6 addresses hears IPv4 as well (ipv6(7), IPV6_V6ONLY).
                IpAddr::V6(any) if any.is_unspecified() => true,
                IpAddr::V4(any) if any.is_unspecified() => public.is_ipv4(),
                own @ (IpAddr::V4(_) | IpAddr::V6(_)) => own.to_canonical() == public,
            };
            let place = SocketAddr::new(public, listener.port());
            if hears && is_cut(config, place) {
                lost.insert(place);
            }
        }
    }
    warnings.extend(lost.into_iter().map(|place| Warning {
        place: "keep".to_owned(),
        text: format!(
            "a program of this host listens at {place}, and who comes from outside will reach the \
             client instead: add \"tcp:{}\" to keep if that is not wanted",
            place.port()
        ),
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{cases, conflicts};

    #[test]
    fn what_is_kept_is_not_cut() {
        let cut = |place: &str| is_cut(&cases::remote(), place.parse().unwrap());
        assert!(!cut("203.0.113.2:22"));
        // Where flows are waited for.
        assert!(!cut("203.0.113.2:4725"));
        assert!(cut("203.0.113.2:2222"));
        assert!(cut("[::ffff:203.0.113.2]:2222"));
        // udp:60000-61000 keeps no TCP.
        assert!(cut("203.0.113.2:60000"));
        assert!(!cut("10.0.0.5:2222"));
        assert!(!is_cut(
            &cases::local_client(),
            "203.0.113.2:2222".parse().unwrap()
        ));
        let hands_off = Config {
            manage_routing: false,
            ..cases::remote()
        };
        assert!(!is_cut(&hands_off, "203.0.113.2:2222".parse().unwrap()));
    }

    #[test]
    fn listeners_that_would_be_lost_are_warned_of_once() {
        let mut observed = cases::vps();
        let listen = |places: &[&str]| places.iter().map(|it| it.parse().unwrap()).collect();
        observed.listeners = listen(&["0.0.0.0:22", "127.0.0.1:25", "[::]:4725", "[::1]:80"]);
        assert_eq!(conflicts(&cases::remote(), &observed), []);
        observed.listeners = listen(&["0.0.0.0:2222", "[::]:2222", "203.0.113.2:2222"]);
        let warnings = conflicts(&cases::remote(), &observed);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!(warnings[0].place, "keep");
        assert!(
            warnings[0].text.contains("at 203.0.113.2:2222"),
            "{warnings:?}"
        );
        assert!(
            warnings[0].text.contains("add \"tcp:2222\" to keep"),
            "{warnings:?}"
        );
    }
}
