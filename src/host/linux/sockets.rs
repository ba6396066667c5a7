//! The TCP and UDP sockets of this network namespace (proc_net_tcp.rst), with the programs that hold
//! them: the number of a socket's inode stands in both /proc/net and /proc/PID/fd.

use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::config::PortProtocol;
use crate::plain::plain;
use crate::route::reach::{HostSocket, Program};

/// TCP_LISTEN, in hexadecimal as the file has it.
const LISTEN: &str = "0A";
/// TCP_ESTABLISHED.
const ESTABLISHED: &str = "01";
/// TCP_CLOSE: a UDP socket that anybody may send to.
const UNCONNECTED: &str = "07";

/// So much of a program's command line is read, bytes: it may be as long as its user likes.
const MOST_TITLE: u64 = 4096;

/// The sockets that wait for others, and the TCP connections, of this thread's network namespace.
pub fn sockets() -> Vec<HostSocket> {
    let (mut found, mut inodes) = (Vec::new(), Vec::new());
    for (protocol, file) in [
        (PortProtocol::Tcp, "tcp"),
        (PortProtocol::Tcp, "tcp6"),
        (PortProtocol::Udp, "udp"),
        (PortProtocol::Udp, "udp6"),
    ] {
        // A kernel without one of the families has no such file, and no sockets.
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        for line in text.unwrap_or_default().lines() {
            if let Some((inode, socket)) = socket(protocol, line) {
                inodes.push((inode, found.len()));
                found.push(socket);
            }
        }
    }
    inodes.sort_unstable();
    add_holders(&mut found, &inodes);
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

/// Adds the programs that hold these sockets, whose places stand beside their inodes. Other programs may
/// have as many others as they like. What may not be looked at, or ends meanwhile, is left out.
fn add_holders(sockets: &mut [HostSocket], inodes: &[(u64, usize)]) {
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let folder = process.path();
        let mut program = None;
        for file in fs::read_dir(folder.join("fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let place = fs::read_link(file.path()).ok().and_then(|link| {
                let link = link.to_str()?.strip_prefix("socket:[")?;
                let inode: u64 = link.strip_suffix(']')?.parse().ok()?;
                let found = inodes.binary_search_by_key(&inode, |(inode, _)| *inode);
                Some(inodes.get(found.ok()?)?.1)
            });
            let Some(socket) = place.and_then(|place| sockets.get_mut(place)) else {
                continue;
            };
            let program = program.get_or_insert_with(|| read_program(&folder));
            socket.programs.push(program.clone());
        }
    }
}

fn read_program(folder: &Path) -> Program {
    let text = |file| {
        let mut bytes = Vec::new();
        if let Ok(file) = fs::File::open(folder.join(file)) {
            // What there was before an error is as good as nothing.
            let _ = file.take(MOST_TITLE).read_to_end(&mut bytes);
        }
        plain(String::from_utf8_lossy(&bytes).replace('\0', " ").trim())
    };
    Program {
        name: text("comm"),
        title: text("cmdline"),
        is_root: fs::metadata(folder).is_ok_and(|it| it.uid() == 0),
    }
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

    /// Field row A5: any user may have thousands of sockets, in a namespace of his own too, and a command line
    /// of megabytes.
    #[test]
    fn a_long_command_line_is_not_read_to_its_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let mut child = std::process::Command::new("sh")
            .args(["-c", "while :; do sleep 1; done"])
            .args(vec!["x".repeat(100_000); 10])
            .stdin(std::os::fd::OwnedFd::from(listener))
            .spawn()
            .unwrap();
        let seen = sockets();
        child.kill().unwrap();
        child.wait().unwrap();
        let socket = seen.iter().find(|socket| socket.local == place).unwrap();
        let lengths: Vec<_> = socket.programs.iter().map(|it| it.title.len()).collect();
        assert!(!lengths.is_empty());
        assert!(
            lengths.iter().all(|it| *it <= MOST_TITLE as usize),
            "{lengths:?}"
        );
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
