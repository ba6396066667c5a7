//! The TCP and UDP sockets of this network namespace (proc_net_tcp.rst), with the programs that hold
//! them: the number of a socket's inode stands in both /proc/net and /proc/PID/fd.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;

use crate::config::PortProtocol;
use crate::plain::plain;
use crate::route::reach::{HostSocket, Program};
use crate::sorted::Map;

/// TCP_LISTEN, in hexadecimal as the file has it.
const LISTEN: &str = "0A";
/// TCP_ESTABLISHED.
const ESTABLISHED: &str = "01";
/// TCP_CLOSE: a UDP socket that anybody may send to.
const UNCONNECTED: &str = "07";

/// The sockets that wait for others, and the TCP connections, of this thread's network namespace.
pub fn sockets() -> Vec<HostSocket> {
    let mut holders = holders();
    let mut found = Vec::new();
    for (protocol, file) in [
        (PortProtocol::Tcp, "tcp"),
        (PortProtocol::Tcp, "tcp6"),
        (PortProtocol::Udp, "udp"),
        (PortProtocol::Udp, "udp6"),
    ] {
        // A kernel without one of the families has no such file, and no sockets.
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        for line in text.unwrap_or_default().lines() {
            if let Some((inode, mut socket)) = socket(protocol, line) {
                socket.programs = holders.remove(&inode).unwrap_or_default();
                found.push(socket);
            }
        }
    }
    found
}

/// One line: number, own address, the other's, state, queues, timer, retransmissions, user, timeout,
/// inode.
fn socket(protocol: PortProtocol, line: &str) -> Option<(u64, HostSocket)> {
    let mut words = line.split_whitespace().skip(1);
    let local = place(words.next()?)?;
    let other = place(words.next()?)?;
    let peer = match (protocol, words.next()?) {
        (PortProtocol::Tcp, LISTEN) | (PortProtocol::Udp, UNCONNECTED) => None,
        (PortProtocol::Tcp, ESTABLISHED) => Some(other),
        _ => return None,
    };
    let inode = words.nth(5)?.parse().ok()?;
    Some((
        inode,
        HostSocket {
            protocol,
            local,
            peer,
            programs: Vec::new(),
        },
    ))
}

/// An address, as 32-bit words of this machine, and a port.
fn place(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for word in 0..address.len() / 8 {
        let word = address.get(word * 8..word * 8 + 8)?;
        bytes.extend(u32::from_str_radix(word, 16).ok()?.to_ne_bytes());
    }
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(SocketAddr::new(
        address,
        u16::from_str_radix(port, 16).ok()?,
    ))
}

/// The programs that hold each socket. What may not be looked at, or ends meanwhile, is left out.
fn holders() -> Map<u64, Vec<Program>> {
    let mut holders = Map::<u64, Vec<Program>>::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let folder = process.path();
        let mut program = None;
        for file in fs::read_dir(folder.join("fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let Some(inode) = fs::read_link(file.path()).ok().and_then(|link| {
                let link = link.to_str()?.strip_prefix("socket:[")?;
                link.strip_suffix(']')?.parse().ok()
            }) else {
                continue;
            };
            let program = program.get_or_insert_with(|| {
                let read = |file| fs::read(folder.join(file)).unwrap_or_default();
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace('\0', " ");
                let text = |bytes| plain(text(bytes).trim());
                Program {
                    name: text(read("comm")),
                    title: text(read("cmdline")),
                    is_root: fs::metadata(&folder).is_ok_and(|it| it.uid() == 0),
                }
            });
            holders
                .get_or_insert_with(inode, Vec::new)
                .push(program.clone());
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_and_connections_are_seen_with_their_program() {
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else {
                continue;
            };
            let datagrams = std::net::UdpSocket::bind(address).unwrap();
            let place = listener.local_addr().unwrap();
            let connection = std::net::TcpStream::connect(place).unwrap();
            let from = connection.local_addr().unwrap();
            let seen = sockets();
            let find = |protocol, local, peer| {
                let of =
                    |it: &&HostSocket| (it.protocol, it.local, it.peer) == (protocol, local, peer);
                seen.iter().find(of)
            };
            let tcp = PortProtocol::Tcp;
            for (protocol, local, peer) in [
                (tcp, place, None),
                (tcp, from, Some(place)),
                (PortProtocol::Udp, datagrams.local_addr().unwrap(), None),
            ] {
                let socket = find(protocol, local, peer).unwrap();
                assert_eq!(socket.programs[0].name, own.trim());
            }
            assert_eq!(find(tcp, from, None), None);
        }
    }

    /// Anybody may call his program so, and the log names who listens.
    #[test]
    fn a_program_with_an_evil_name_is_named_harmlessly() {
        let folder = std::env::temp_dir().join(format!("netcombiner-evil-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let evil = folder.join("s\u{1b}[2J\nsshd");
        let _ = fs::remove_file(&evil);
        std::os::unix::fs::symlink("/bin/sleep", &evil).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let mut child = std::process::Command::new(&evil)
            .arg("600")
            .stdin(std::os::fd::OwnedFd::from(listener))
            .spawn()
            .unwrap();
        let seen = sockets();
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let socket = seen.iter().find(|socket| socket.local == place).unwrap();
        let names: Vec<_> = socket.programs.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, [r"s\u{1b}[2J\nsshd"]);
    }

    #[test]
    fn broken_lines_are_left_out() {
        for line in [
            "  sl  local_address rem_address st",
            " 0: xx:1 0:0 0A",
            " 1: 0:0",
            "0: 0100007F:0016 00000000:0000 0A 0:0 00:0 0",
            "",
        ] {
            assert_eq!(socket(PortProtocol::Tcp, line), None, "{line}");
        }
        let line = "0: 0100007F:0016 00000000:0000 0A 0:0 00:0 0 0 0 77 1 0";
        assert_eq!(socket(PortProtocol::Tcp, line).unwrap().0, 77);
    }
}
