//! Who would lose this host when the remote portal takes its address: what listens on it and is
//! not kept goes to the client.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use super::links::Observed;
use super::remote::{FIRST_SHARED, kept};
use crate::config::{Config, PortProtocol, Role, Warning};
use crate::sorted::Set;

/// Programs by which people log in over TCP. A newer sshd gives each session to `sshd-session`.
const LOGIN_PROGRAMS: [&str; 11] = [
    "sshd",
    "sshd-session",
    "sshd-auth",
    "dropbear",
    "dropbearmulti",
    "tinysshd",
    "lshd",
    "telnetd",
    "in.telnetd",
    "utelnetd",
    "in.rlogind",
];

/// Programs that wait for others' connections and start them when one comes: `ssh.socket`, for one.
const STARTERS: [&str; 5] = ["systemd", "init", "inetd", "xinetd", "tcpsvd"];

/// How sshd calls a process whose client has not logged in yet: a stranger who tries passwords.
const BEFORE_LOGIN: [&str; 3] = ["[net]", "[accepted]", "[preauth]"];

/// DHCP clients (RFC 2131, RFC 8415): they hear answers to what they asked, and those stay theirs.
const DHCP_CLIENTS: [u16; 2] = [68, 546];

/// So many listeners are named; more are counted.
const NAMED: usize = 20;

/// A socket of this host: it waits for others, or is connected.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostSocket {
    /// TCP or UDP.
    pub protocol: PortProtocol,
    /// Its own address.
    pub local: SocketAddr,
    /// The other end of a TCP connection; `None`: it listens.
    pub peer: Option<SocketAddr>,
    /// The programs that hold it, as far as they could be found; the kernel's own have none.
    pub programs: Vec<Program>,
}

/// A program that holds a socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// Its short name: `sshd`.
    pub name: String,
    /// Its command line: `sshd: root [priv]`.
    pub title: String,
    /// It is root's. Any user may give his own the name of another, and nobody logs in by it.
    pub is_root: bool,
}

impl Program {
    fn is_login(&self) -> bool {
        self.is_root && LOGIN_PROGRAMS.contains(&self.name.as_str())
    }

    fn is_before_login(&self) -> bool {
        BEFORE_LOGIN
            .iter()
            .any(|word| self.title.trim_end().ends_with(word))
    }
}

impl HostSocket {
    /// The program that lets people log in by it.
    fn login_program(&self) -> Option<&str> {
        let mut programs = self.programs.iter();
        Some(programs.find(|it| it.is_login())?.name.as_str())
    }

    /// True when people may log in at this port.
    fn admits_to(&self, port: u16) -> bool {
        self.peer.is_none()
            && self.protocol == PortProtocol::Tcp
            && self.local.port() == port
            && (self.login_program().is_some() || self.starter().is_some())
    }

    /// The program that starts another for who connects, when nobody else holds the listener.
    fn starter(&self) -> Option<&str> {
        let starts = |it: &Program| it.is_root && STARTERS.contains(&it.name.as_str());
        let first = self.programs.first()?;
        self.programs
            .iter()
            .all(starts)
            .then_some(first.name.as_str())
    }

    /// True when somebody is logged in by this connection.
    fn is_session(&self) -> bool {
        self.login_program().is_some() && !self.programs.iter().any(Program::is_before_login)
    }

    /// The public addresses at which it hears.
    fn places(&self, config: &Config) -> impl Iterator<Item = SocketAddr> {
        let (own, port) = (self.local.ip(), self.local.port());
        let hears = move |public: &IpAddr| match own {
            // A socket of all IPv6 addresses hears IPv4 as well (ipv6(7), IPV6_V6ONLY).
            IpAddr::V6(any) if any.is_unspecified() => true,
            IpAddr::V4(any) if any.is_unspecified() => public.is_ipv4(),
            own @ (IpAddr::V4(_) | IpAddr::V6(_)) => own.to_canonical() == *public,
        };
        let public = config.public.iter().filter(hears);
        public
            .map(move |public| SocketAddr::new(public, port))
            .collect::<Vec<_>>()
            .into_iter()
    }
}

/// How the administrator would lose this host.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LockOut {
    /// The ssh session that we were started from: where it ends on this host.
    #[error(
        "the ssh session of this very shell comes in at {0}, which would go to the client: add \
         \"tcp:{port}\" to keep",
        port = .0.port()
    )]
    Shell(SocketAddr),
    /// Somebody's login session.
    #[error(
        "the login session ({program}) from {from} comes in at {at}, which would go to the client: \
         add \"tcp:{port}\" to keep",
        port = .at.port()
    )]
    Session {
        /// Whose session it is.
        program: String,
        /// The other end.
        from: SocketAddr,
        /// Where it ends on this host.
        at: SocketAddr,
    },
    /// The only program by which people log in.
    #[error(
        "{program} listens at {at}, which would go to the client, and nobody could log in on this \
         host any more: add \"tcp:{port}\" to keep",
        port = .at.port()
    )]
    Service {
        /// The program.
        program: String,
        /// One of the places.
        at: SocketAddr,
    },
}

/// How this configuration would lock the administrator out; `shell` is where the ssh session ends
/// that we were started from.
pub fn lock_out(
    config: &Config,
    sockets: &[HostSocket],
    shell: Option<SocketAddr>,
) -> Option<LockOut> {
    shell
        .filter(|place| is_cut(config, *place))
        .map(LockOut::Shell)
        .or_else(|| sessions(config, sockets).next())
        .or_else(|| service(config, sockets))
}

/// The same for a change of the configuration: only what the old one did not cut.
pub fn newly_locked_out(old: &Config, new: &Config, sockets: &[HostSocket]) -> Option<LockOut> {
    let before: Vec<_> = sessions(old, sockets).collect();
    sessions(new, sockets)
        .find(|session| !before.contains(session))
        .or_else(|| service(new, sockets).filter(|_| service(old, sockets).is_none()))
}

/// The login sessions that would be cut off.
fn sessions(config: &Config, sockets: &[HostSocket]) -> impl Iterator<Item = LockOut> {
    sockets.iter().filter_map(|socket| {
        let from = socket.peer.filter(|_| socket.is_session())?;
        // One that sshd opened itself, for `ssh -L` or `-D`.
        let port = socket.local.port();
        if port >= FIRST_SHARED && !sockets.iter().any(|it| it.admits_to(port)) {
            return None;
        }
        (socket.protocol == PortProtocol::Tcp && is_cut(config, socket.local)).then(|| {
            LockOut::Session {
                program: socket.login_program().unwrap_or_default().to_owned(),
                from: canonical(from),
                at: canonical(socket.local),
            }
        })
    })
}

/// The first login service, when all that hear at a public address are lost.
fn service(config: &Config, sockets: &[HostSocket]) -> Option<LockOut> {
    let listens =
        |socket: &&HostSocket| socket.peer.is_none() && socket.protocol == PortProtocol::Tcp;
    let lost = |program: fn(&HostSocket) -> Option<&str>| {
        let mut first = None;
        for socket in sockets.iter().filter(listens) {
            let Some(program) = program(socket) else {
                continue;
            };
            for at in socket.places(config) {
                if !is_cut(config, at) {
                    return Err(());
                }
                first.get_or_insert_with(|| LockOut::Service {
                    program: program.to_owned(),
                    at,
                });
            }
        }
        Ok(first)
    };
    match lost(HostSocket::login_program) {
        Err(()) => None,
        Ok(Some(service)) => Some(service),
        // Nobody is known to admit people: who starts programs may.
        Ok(None) => lost(HostSocket::starter).ok().flatten(),
    }
}

fn canonical(place: SocketAddr) -> SocketAddr {
    SocketAddr::new(place.ip().to_canonical(), place.port())
}

/// True when a TCP connection to this place on this host would end with the tunnel's start.
pub fn is_cut(config: &Config, place: SocketAddr) -> bool {
    goes_to_client(config, PortProtocol::Tcp, place)
}

fn goes_to_client(config: &Config, protocol: PortProtocol, place: SocketAddr) -> bool {
    let address = place.ip().to_canonical();
    match &config.role {
        Role::Remote(role) if config.manage_routing => {
            config.public.iter().any(|public| public == address)
                && !kept(config, role, address).iter().any(|keep| {
                    keep.protocol == protocol && (keep.first..=keep.last).contains(&place.port())
                })
        }
        Role::Remote(_) | Role::Local(_) => false,
    }
}

/// The listeners that nobody outside would reach any more, each once.
pub fn lost_listeners(config: &Config, sockets: &[HostSocket]) -> Vec<Warning> {
    let mut lost = Set::new();
    for socket in sockets.iter().filter(|socket| socket.peer.is_none()) {
        let (protocol, port) = (socket.protocol, socket.local.port());
        if protocol == PortProtocol::Udp && DHCP_CLIENTS.contains(&port) {
            continue;
        }
        let first = socket.programs.first().map(|it| it.name.as_str());
        // WireGuard's is the kernel's, for one.
        let who = socket.login_program().or(first);
        let who = who.unwrap_or("the kernel or an unknown program");
        for place in socket.places(config) {
            if goes_to_client(config, protocol, place) {
                lost.insert((protocol, place, who));
            }
        }
    }
    // A port that several programs share is named once.
    let mut lost: Vec<_> = lost.into_iter().collect();
    lost.dedup_by_key(|(protocol, place, _)| (*protocol, *place));
    let more = lost.len().saturating_sub(NAMED);
    let mut warnings: Vec<_> = lost
        .into_iter()
        .take(NAMED)
        .map(|(protocol, place, who)| {
            let port = place.port();
            let text = format!(
                "{who} listens at {protocol} {place}: what comes there from outside will go to the \
                 client; add \"{protocol}:{port}\" to keep if that is not wanted"
            );
            keep_warning(text)
        })
        .collect();
    if more > 0 {
        warnings.push(keep_warning(format!(
            "{more} more listeners of this host will not be reached from outside (see `ss -tulpn`)"
        )));
    }
    warnings
}

fn keep_warning(text: String) -> Warning {
    Warning {
        place: "keep".to_owned(),
        text,
    }
}

/// The listeners that were seen, as questions of `check`.
pub(super) fn listeners(warnings: &mut Vec<Warning>, config: &Config, observed: &Observed) {
    warnings.extend(lost_listeners(config, &observed.sockets));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Keep, Remote};
    use crate::route::{cases, conflicts};

    /// A socket of a program: `sshd`, or `sshd/sshd: root [net]` with its command line.
    fn socket(protocol: PortProtocol, local: &str, peer: Option<&str>, who: &str) -> HostSocket {
        let (name, title) = who.split_once('/').unwrap_or((who, who));
        let program = Program {
            name: name.to_owned(),
            title: title.to_owned(),
            is_root: true,
        };
        HostSocket {
            protocol,
            local: local.parse().unwrap(),
            peer: peer.map(|peer| peer.parse().unwrap()),
            programs: if name.is_empty() {
                Vec::new()
            } else {
                vec![program]
            },
        }
    }

    fn tcp(local: &str, who: &str) -> HostSocket {
        socket(PortProtocol::Tcp, local, None, who)
    }

    fn connection(local: &str, who: &str) -> HostSocket {
        socket(PortProtocol::Tcp, local, Some("198.51.100.9:50000"), who)
    }

    fn keeping(ports: &[u16]) -> Config {
        let keep = ports.iter().map(|port| Keep {
            protocol: PortProtocol::Tcp,
            first: *port,
            last: *port,
        });
        Config {
            role: Role::Remote(Remote {
                keep: keep.collect(),
            }),
            ..cases::remote()
        }
    }

    #[test]
    fn what_is_kept_is_not_cut() {
        let cut = |place: &str| is_cut(&cases::remote(), place.parse().unwrap());
        assert!(!cut("203.0.113.2:22"));
        // Where flows are waited for.
        assert!(!cut("203.0.113.2:4725"));
        assert!(cut("203.0.113.2:2222"));
        assert!(cut("[::ffff:203.0.113.2]:2222"));
        // udp:27000-27100 keeps no TCP.
        assert!(cut("203.0.113.2:27000"));
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

    /// Field row B1: without the shell that says `up`, the sockets tell.
    #[test]
    fn sessions_and_the_only_login_service_are_not_cut_off() {
        let is_locked_out = |sockets: &[HostSocket]| lock_out(&keeping(&[22]), sockets, None);
        let kept = tcp("0.0.0.0:22", "sshd");
        for login in ["sshd", "sshd-session", "dropbear", "in.telnetd"] {
            let session = connection("203.0.113.2:2222", login);
            let said = is_locked_out(&[kept.clone(), session]).unwrap().to_string();
            assert!(said.contains("from 198.51.100.9:50000"), "{said}");
            assert!(said.contains("\"tcp:2222\" to keep"), "{said}");
        }
        let mapped = connection("[::ffff:203.0.113.2]:2222", "sshd");
        assert!(is_locked_out(&[mapped]).is_some());
        let said = is_locked_out(&[tcp("[::]:2222", "sshd")])
            .unwrap()
            .to_string();
        assert!(said.contains("sshd listens at 203.0.113.2:2222"), "{said}");

        // A socket unit waits for sshd's connections; a second place that is kept will do.
        let unit = tcp("[::]:2222", "systemd");
        let said = is_locked_out(std::slice::from_ref(&unit))
            .unwrap()
            .to_string();
        assert!(
            said.contains("systemd listens at 203.0.113.2:2222"),
            "{said}"
        );
        assert_eq!(
            is_locked_out(&[unit.clone(), tcp("0.0.0.0:22", "systemd")]),
            None
        );
        assert_eq!(is_locked_out(&[unit, kept.clone()]), None);

        // `ssh -L` through this host is no session at that port.
        assert_eq!(
            is_locked_out(&[connection("203.0.113.2:45678", "sshd")]),
            None
        );

        // Who is not cut off: kept, elsewhere, a stranger, one who tries passwords; and a second
        // place of a service that can still be reached.
        for harmless in [
            connection("203.0.113.2:22", "sshd"),
            connection("10.0.0.5:2222", "sshd"),
            connection("203.0.113.2:443", "nginx"),
            connection("203.0.113.2:443", ""),
            connection("203.0.113.2:2222", "sshd/sshd: root [net]"),
            tcp("0.0.0.0:2222", "sshd"),
            tcp("0.0.0.0:443", "nginx"),
        ] {
            let sockets = [kept.clone(), harmless];
            assert_eq!(is_locked_out(&sockets), None, "{sockets:?}");
        }
        assert_eq!(is_locked_out(&[tcp("10.0.0.5:2222", "sshd")]), None);
        assert_eq!(is_locked_out(&[]), None);

        // A user of this host calls his own programs so.
        for mut feigned in [
            connection("203.0.113.2:2222", "sshd"),
            tcp("0.0.0.0:2222", "sshd"),
            tcp("0.0.0.0:2222", "systemd"),
        ] {
            feigned.programs[0].is_root = false;
            assert_eq!(is_locked_out(&[feigned]), None);
        }
    }

    /// Field row B1: a narrower `keep`.
    #[test]
    fn a_change_is_judged_by_what_it_takes_away() {
        let sockets = [
            tcp("0.0.0.0:22", "sshd"),
            tcp("0.0.0.0:2222", "sshd"),
            connection("203.0.113.2:2222", "sshd"),
        ];
        let change =
            |old: &[u16], new: &[u16]| newly_locked_out(&keeping(old), &keeping(new), &sockets);
        assert!(matches!(
            change(&[22, 2222], &[22]),
            Some(LockOut::Session { .. })
        ));
        assert!(matches!(change(&[22], &[]), Some(LockOut::Service { .. })));
        // By force it was cut already, or it comes back.
        assert_eq!(change(&[22], &[22, 80]), None);
        assert_eq!(change(&[], &[22, 2222]), None);
    }

    #[test]
    fn listeners_that_would_be_lost_are_warned_of_once() {
        let mut observed = cases::vps();
        let listen = |places: &[&str]| places.iter().map(|it| tcp(it, "nginx")).collect();
        observed.sockets = listen(&["0.0.0.0:22", "127.0.0.1:25", "[::]:4725", "[::1]:80"]);
        assert_eq!(conflicts(&cases::remote(), &observed), []);
        observed.sockets = listen(&["0.0.0.0:2222", "[::]:2222", "203.0.113.2:2222"]);
        let warnings = conflicts(&cases::remote(), &observed);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!(warnings[0].place, "keep");
        for words in [
            "nginx listens at tcp 203.0.113.2:2222",
            "add \"tcp:2222\" to keep",
        ] {
            assert!(warnings[0].text.contains(words), "{warnings:?}");
        }
    }

    /// Field row B1: WireGuard's socket is the kernel's.
    #[test]
    fn udp_listeners_are_warned_of_too() {
        let udp = |place: &str, who: &str| socket(PortProtocol::Udp, place, None, who);
        let sockets = [
            udp("0.0.0.0:51820", ""),
            udp("0.0.0.0:68", "dhclient"),
            udp("0.0.0.0:4725", "other"),
            udp("127.0.0.53:53", "systemd-resolve"),
        ];
        let warnings = lost_listeners(&cases::remote(), &sockets);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let text = &warnings[0].text;
        assert!(text.contains("udp 203.0.113.2:51820"), "{text}");
        assert!(text.contains("\"udp:51820\" to keep"), "{text}");
        let many: Vec<_> = (1000..1050)
            .map(|port| udp(&format!("0.0.0.0:{port}"), "named"))
            .collect();
        let warnings = lost_listeners(&cases::remote(), &many);
        assert_eq!(warnings.len(), NAMED + 1);
        assert!(warnings[NAMED].text.starts_with("30 more listeners"));
    }
}
