//! Who would lose this host when the remote portal takes its address: what listens on it and is
//! not kept goes to the client.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use thiserror::Error;

use super::handed::HandedOver;
use super::remote::FIRST_SHARED;
use crate::config::units::IfName;
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

/// True for the command line of root's part of an sshd, which does not say whether the client has logged in: its
/// other process says it.
pub fn is_silent(title: &str) -> bool {
    title.trim_end_matches(['\0', ' ']).ends_with("[priv]")
}

/// Accounts below this are the system's own (login.defs(5), UID_MIN).
const FIRST_USER: u32 = 1000;
/// So are those that systemd gives to services while they run (systemd.exec(5), DynamicUser).
const DYNAMIC: RangeInclusive<u32> = 61_184..=65_519;

/// True for an account that no person has.
pub fn is_system(user: u32) -> bool {
    user < FIRST_USER || DYNAMIC.contains(&user)
}

/// True when this process has started something for its client, who so has logged in. `family`: parent,
/// process and name of each process.
pub fn has_shell(process: u32, family: &[(u32, u32, String)]) -> bool {
    let has_child = |process| family.iter().any(|(parent, ..)| *parent == process);
    let mut children = family.iter().filter(|(parent, ..)| *parent == process);
    children.any(|(_, child, name)| name != ASKS_PASSWORD || has_child(*child))
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
    /// There was no time to find who holds it.
    pub is_unknown: bool,
}

/// A program that holds a socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// Its short name: `sshd`.
    pub name: String,
    /// Its number.
    pub process: u32,
    /// Root runs it. Any user can start a program of the same name, by which nobody logs in.
    pub is_root: bool,
    /// Its client has not logged in yet, and may be anybody.
    pub is_before_login: bool,
}

impl HostSocket {
    /// The program that lets people log in by it.
    pub(super) fn login_program(&self) -> Option<&str> {
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
    pub(super) fn is_session(&self) -> bool {
        self.login_program().is_some() && !self.programs.iter().any(|it| it.is_before_login)
    }

    /// The public addresses at which it hears.
    pub(super) fn places(&self, handed: &HandedOver) -> impl Iterator<Item = SocketAddr> {
        let (own, port) = (self.local.ip(), self.local.port());
        let hears = move |public: &IpAddr| match own {
            // A socket of all IPv6 addresses hears IPv4 as well (ipv6(7), IPV6_V6ONLY).
            IpAddr::V6(any) if any.is_unspecified() => true,
            IpAddr::V4(any) if any.is_unspecified() => public.is_ipv4(),
            own @ (IpAddr::V4(_) | IpAddr::V6(_)) => own.to_canonical() == *public,
        };
        let public = handed.addresses.iter().filter(move |it| hears(it));
        public.map(move |public| SocketAddr::new(*public, port))
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
    /// The VPN by which people log in.
    #[error(
        "people log in at {login} by the VPN {device}, whose {program} listens at {protocol} {at}, \
         which would go to the client: add \"{protocol}:{port}\" to keep",
        port = .at.port()
    )]
    Vpn {
        /// The VPN's device.
        device: IfName,
        /// The address at which they log in.
        login: IpAddr,
        /// The program that carries the VPN.
        program: String,
        /// TCP or UDP.
        protocol: PortProtocol,
        /// One of the places where it waits.
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

#[cfg(test)]
#[path = "reach_tests.rs"]
mod tests;
