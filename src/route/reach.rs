//! Who would lose this host when the remote portal takes its address: what listens on it and is
//! not kept goes to the client.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use super::handed::HandedOver;
use super::links::Observed;
use super::remote::FIRST_SHARED;
use crate::config::{Config, PortProtocol, Warning};
use crate::sorted::Set;

/// A program by which people log in over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// Its command line says how far its client has come.
    Titled,
    /// It does not.
    Untitled,
}

impl Login {
    /// By a program's name. A newer sshd gives each session to `sshd-session`.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "sshd" | "sshd-session" | "sshd-auth" => Some(Self::Titled),
            "dropbear" | "dropbearmulti" | "tinysshd" | "lshd" | "telnetd" | "in.telnetd"
            | "utelnetd" | "in.rlogind" => Some(Self::Untitled),
            _ => None,
        }
    }
}

/// Programs that wait for others' connections and start them when one comes: `ssh.socket`, for one.
const STARTERS: [&str; 5] = ["systemd", "init", "inetd", "xinetd", "tcpsvd"];

/// How sshd calls a process whose client has not logged in yet: a stranger who tries passwords.
const BEFORE_LOGIN: [&str; 3] = ["[net]", "[accepted]", "[preauth]"];
/// How it calls the process that hands a new connection on.
const LISTENER: &str = "[listener]";
/// The program that asks for the password, where the one that holds the connection does not.
const ASKS_PASSWORD: &str = "login";

/// True for the command line of an sshd whose client has not logged in yet.
pub fn is_stranger(title: &str) -> bool {
    let title = title.trim_end_matches(|c: char| c == '\0' || c.is_whitespace());
    BEFORE_LOGIN.iter().any(|word| title.ends_with(word)) || title.contains(LISTENER)
}

/// True when this process has started something for its client, so that he has logged in; the others are
/// parent, process and name.
pub fn has_shell(process: u32, family: &[(u32, u32, String)]) -> bool {
    let has_child = |process| family.iter().any(|(parent, ..)| *parent == process);
    let children = family.iter().filter(|(parent, ..)| *parent == process);
    children
        .into_iter()
        .any(|(_, child, name)| name != ASKS_PASSWORD || has_child(*child))
}

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
    /// The user it was made by.
    pub user: u32,
    /// The programs that hold it, as far as they could be found; the kernel's own have none.
    pub programs: Vec<Program>,
}

/// A program that holds a socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// Its short name: `sshd`.
    pub name: String,
    /// Its number.
    pub process: u32,
    /// It is root's. Any user may give his own the name of another, and nobody logs in by it.
    pub is_root: bool,
    /// Its client has not logged in yet, and may be anybody.
    pub is_before_login: bool,
}

impl HostSocket {
    /// The program that lets people log in by it.
    fn login_program(&self) -> Option<&str> {
        // A newer dropbear becomes the user who has logged in.
        let was_root = self.peer.is_some() && self.user == 0;
        let is_login = |it: &&Program| (it.is_root || was_root) && Login::of(&it.name).is_some();
        Some(self.programs.iter().find(is_login)?.name.as_str())
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
        self.login_program().is_some() && !self.programs.iter().any(|it| it.is_before_login)
    }

    /// The public addresses at which it hears.
    fn places(&self, handed: &HandedOver) -> impl Iterator<Item = SocketAddr> {
        let (own, port) = (self.local.ip(), self.local.port());
        let hears = move |public: &IpAddr| match own {
            // A socket of all IPv6 addresses hears IPv4 as well (ipv6(7), IPV6_V6ONLY).
            IpAddr::V6(any) if any.is_unspecified() => true,
            IpAddr::V4(any) if any.is_unspecified() => public.is_ipv4(),
            own @ (IpAddr::V4(_) | IpAddr::V6(_)) => own.to_canonical() == *public,
        };
        let public = handed.addresses.iter().filter(|it| hears(it));
        public
            .map(move |public| SocketAddr::new(*public, port))
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
    let handed = HandedOver::by(config);
    shell
        .filter(|place| handed.takes(PortProtocol::Tcp, *place))
        .map(LockOut::Shell)
        .or_else(|| sessions(&handed, sockets).next())
        .or_else(|| service(&handed, sockets))
}

/// The same for a change of the configuration: only what the old one did not cut.
pub fn newly_locked_out(old: &Config, new: &Config, sockets: &[HostSocket]) -> Option<LockOut> {
    let (old, new) = (HandedOver::by(old), HandedOver::by(new));
    let before: Vec<_> = sessions(&old, sockets).collect();
    sessions(&new, sockets)
        .find(|session| !before.contains(session))
        .or_else(|| new_service(&old, &new, sockets))
}

/// The same for a start after a crash, where the old daemon had handed this over: of the sessions only
/// the one that we were started from counts, or one that was left open would keep the tunnel down.
pub fn locked_out_after(
    old: &HandedOver,
    new: &Config,
    sockets: &[HostSocket],
    shell: Option<SocketAddr>,
) -> Option<LockOut> {
    let (tcp, new) = (PortProtocol::Tcp, HandedOver::by(new));
    shell
        .filter(|place| new.takes(tcp, *place) && !old.takes(tcp, *place))
        .map(LockOut::Shell)
        .or_else(|| new_service(old, &new, sockets))
}

fn new_service(old: &HandedOver, new: &HandedOver, sockets: &[HostSocket]) -> Option<LockOut> {
    service(new, sockets).filter(|_| service(old, sockets).is_none())
}

/// The login sessions that would be cut off.
fn sessions(handed: &HandedOver, sockets: &[HostSocket]) -> impl Iterator<Item = LockOut> {
    sockets.iter().filter_map(|socket| {
        let from = socket.peer.filter(|_| socket.is_session())?;
        // One that sshd opened itself, for `ssh -L` or `-D`.
        let port = socket.local.port();
        if port >= FIRST_SHARED && !sockets.iter().any(|it| it.admits_to(port)) {
            return None;
        }
        handed
            .takes(socket.protocol, socket.local)
            .then(|| LockOut::Session {
                program: socket.login_program().unwrap_or_default().to_owned(),
                from: canonical(from),
                at: canonical(socket.local),
            })
    })
}

/// The first login service, when all that hear at a public address are lost.
fn service(handed: &HandedOver, sockets: &[HostSocket]) -> Option<LockOut> {
    let listens =
        |socket: &&HostSocket| socket.peer.is_none() && socket.protocol == PortProtocol::Tcp;
    let lost = |program: fn(&HostSocket) -> Option<&str>| {
        let mut first = None;
        for socket in sockets.iter().filter(listens) {
            let Some(program) = program(socket) else {
                continue;
            };
            for at in socket.places(handed) {
                if !handed.takes(PortProtocol::Tcp, at) {
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

/// The listeners that nobody outside would reach any more, each once.
pub fn lost_listeners(config: &Config, sockets: &[HostSocket]) -> Vec<Warning> {
    let (handed, mut lost) = (HandedOver::by(config), Set::new());
    for socket in sockets.iter().filter(|socket| socket.peer.is_none()) {
        let (protocol, port) = (socket.protocol, socket.local.port());
        if protocol == PortProtocol::Udp && DHCP_CLIENTS.contains(&port) {
            continue;
        }
        let first = socket.programs.first().map(|it| it.name.as_str());
        // WireGuard's is the kernel's, for one.
        let who = socket.login_program().or(first);
        let who = who.unwrap_or("the kernel or an unknown program");
        for place in socket.places(&handed) {
            if handed.takes(protocol, place) {
                lost.insert((protocol, place, socket.user != 0, who));
            }
        }
    }
    // A port that several programs share is named once.
    let mut lost: Vec<_> = lost.into_iter().collect();
    lost.dedup_by_key(|(protocol, place, ..)| (*protocol, *place));
    // Any user may have many: root's and the kernel's come first.
    lost.sort_by_key(|(_, _, is_users, _)| *is_users);
    let more = lost.len().saturating_sub(NAMED);
    let mut warnings: Vec<_> = lost
        .into_iter()
        .take(NAMED)
        .map(|(protocol, place, _, who)| {
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
    use crate::config::{Keep, Remote, Role};
    use crate::route::{cases, conflicts};

    /// A socket of a program: `sshd`, or `sshd/sshd: root [net]` with its command line.
    fn socket(protocol: PortProtocol, local: &str, peer: Option<&str>, who: &str) -> HostSocket {
        let (name, title) = who.split_once('/').unwrap_or((who, who));
        let program = Program {
            name: name.to_owned(),
            process: 77,
            is_root: true,
            is_before_login: is_stranger(title),
        };
        HostSocket {
            protocol,
            local: local.parse().unwrap(),
            peer: peer.map(|peer| peer.parse().unwrap()),
            user: 0,
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

    fn is_cut(config: &Config, place: SocketAddr) -> bool {
        HandedOver::by(config).takes(PortProtocol::Tcp, place)
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
            feigned.user = 65_534;
            assert_eq!(is_locked_out(&[feigned]), None);
        }
    }

    /// Field row B1: a stranger who only connects has not logged in.
    #[test]
    fn who_has_logged_in() {
        for stranger in [
            "sshd: root [net]\0\0",
            "sshd-session: [accepted] ",
            "sshd: /usr/sbin/sshd -D [listener] 1 of 10-100 startups\0",
        ] {
            assert!(is_stranger(stranger), "{stranger}");
        }
        for session in ["sshd: root@pts/0\0", "sshd: root [priv]", ""] {
            assert!(!is_stranger(session), "{session}");
        }
        let family = [
            (1, 10, "dropbear"),
            (10, 11, "dropbear"),
            (10, 12, "dropbear"),
            (12, 13, "sh"),
            (1, 20, "in.telnetd"),
            (20, 21, "login"),
            (1, 30, "in.telnetd"),
            (30, 31, "login"),
            (31, 32, "sh"),
        ];
        let family = family.map(|(parent, own, name)| (parent, own, name.to_owned()));
        let shells = [11, 12, 20, 30].map(|process| has_shell(process, &family));
        assert_eq!(shells, [false, true, false, true]);
        // A newer dropbear gives up root's rights with the login.
        let mut session = connection("203.0.113.2:2222", "dropbear");
        session.programs[0].is_root = false;
        assert!(
            lock_out(
                &keeping(&[22]),
                &[tcp("0.0.0.0:2222", "dropbear"), session],
                None
            )
            .is_some()
        );
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

        // After a crash. A session that is left open does not keep the tunnel down.
        let restart = |old: &HandedOver, new: &[u16], shell: Option<&str>| {
            let shell = shell.map(|it| it.parse().unwrap());
            locked_out_after(old, &keeping(new), &sockets, shell)
        };
        let old = HandedOver::by(&keeping(&[22, 2222]));
        assert!(matches!(
            restart(&old, &[], None),
            Some(LockOut::Service { .. })
        ));
        assert_eq!(restart(&old, &[22], None), None);
        let shell = restart(&old, &[22], Some("203.0.113.2:2222"));
        assert!(matches!(shell, Some(LockOut::Shell(_))));
        // The same again, whatever it cuts off.
        let old = HandedOver::by(&keeping(&[]));
        assert_eq!(restart(&old, &[], Some("203.0.113.2:22")), None);
        // It had handed nothing over yet, or did not manage the routing.
        assert!(restart(&HandedOver::default(), &[], None).is_some());
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
        // Any user may have as many as he likes.
        let mut users: Vec<_> = (1025..1050)
            .map(|port| tcp(&format!("0.0.0.0:{port}"), "nc"))
            .collect();
        users.iter_mut().for_each(|it| it.user = 1000);
        let warnings = lost_listeners(&cases::remote(), &[users, sockets.to_vec()].concat());
        assert!(warnings[0].text.contains("udp:51820"), "{warnings:?}");
    }
}
