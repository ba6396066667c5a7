//! The TCP and UDP sockets of this network namespace (proc_net_tcp.rst), with the programs that hold
//! them: the number of a socket's inode stands in both /proc/net and /proc/PID/fd.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::PortProtocol;
use crate::io::clock;
use crate::plain::plain;
use crate::route::reach::{self, HostSocket, Login, Program, is_system};

/// TCP_LISTEN, in hexadecimal as the file has it.
const LISTEN: &str = "0A";
/// TCP_ESTABLISHED.
const ESTABLISHED: &str = "01";
/// TCP_CLOSE: a UDP socket that anybody may send to.
const UNCONNECTED: &str = "07";

/// The most bytes of a file about a process that are read: its command line may be as long as its user
/// likes.
const MOST_TEXT: u64 = 4096;
/// The most sockets that are listed of the system's accounts other than root, and of all users. Nobody logs in
/// by those, and a user may have any number.
const MOST_OTHERS: usize = 4096;
/// The most programs that are named for one socket.
const MOST_HOLDERS: usize = 8;
/// The descriptors, by number, that are looked at first of a process that is not root's: a server opens its
/// sockets early, and a process that has thousands takes no time from it.
const FIRST_DESCRIPTORS: u32 = 32;
/// The most that are looked at.
const MOST_DESCRIPTORS: usize = 4096;
/// How long the processes of the system's accounts other than root are looked through, and then those of users.
/// A user may have thousands, and the daemon does nothing else meanwhile.
const PATIENCE: Duration = Duration::from_millis(500);

/// The sockets that wait for others, and the TCP connections, of this thread's network namespace.
pub fn sockets() -> Vec<HostSocket> {
    read(|it| it.protocol == PortProtocol::Tcp || it.peer.is_none())
}

/// The sockets that keep others from this port.
pub fn holders(protocol: PortProtocol, port: u16) -> Vec<HostSocket> {
    read(|it| {
        let holds = it.protocol == PortProtocol::Udp || it.peer.is_none();
        holds && (it.protocol, it.local.port()) == (protocol, port)
    })
}

fn read(is_wanted: impl Fn(&HostSocket) -> bool) -> Vec<HostSocket> {
    let (mut found, mut inodes, mut others) = (Vec::new(), Vec::new(), [0; 2]);
    for (protocol, file) in [
        (PortProtocol::Tcp, "tcp"),
        (PortProtocol::Tcp, "tcp6"),
        (PortProtocol::Udp, "udp"),
        (PortProtocol::Udp, "udp6"),
    ] {
        // A kernel without one of the families has no such file, and no sockets.
        let Ok(file) = File::open(format!("/proc/thread-self/net/{file}")) else {
            continue;
        };
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            let Some((inode, socket)) = socket(protocol, &line) else {
                continue;
            };
            let others = &mut others[usize::from(is_system(socket.user))];
            if is_wanted(&socket) && (socket.user == 0 || *others < MOST_OTHERS) {
                *others += usize::from(socket.user != 0);
                inodes.push((inode, found.len()));
                found.push(socket);
            }
        }
    }
    inodes.sort_unstable();
    let is_complete = add_holders(&mut found, &inodes);
    for socket in &mut found {
        socket.is_unknown = !is_complete && socket.programs.is_empty();
    }
    judge_logins(&mut found, is_complete);
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
        (_, ESTABLISHED) => Some(other),
        _ => return None,
    };
    let user = words.nth(3)?.parse().ok()?;
    let inode = words.nth(1)?.parse().ok()?;
    let socket = HostSocket {
        protocol,
        local,
        peer,
        user,
        programs: Vec::new(),
        is_unknown: false,
    };
    Some((inode, socket))
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

/// Adds the programs that hold these sockets, root's first. `inodes` has each socket's inode and its place in
/// `sockets`. A process that may not be looked at, or ends meanwhile, is left out. False when there was no time to
/// look at all.
fn add_holders(sockets: &mut [HostSocket], inodes: &[(u64, usize)]) -> bool {
    let mut others = Vec::new();
    for process in processes() {
        match owner(process) {
            0 => add_holder(sockets, inodes, (process, true), descriptors(process)),
            user => others.push((user, process)),
        }
    }
    let mut is_complete = true;
    for (is_users, group) in [false, true].into_iter().zip(by_turns(others)) {
        let end = clock::now() + PATIENCE;
        is_complete &= group.iter().all(|process| {
            // By their numbers: a list of all costs more, and may be long.
            let first = (0..FIRST_DESCRIPTORS).map(|it| format!("/proc/{process}/fd/{it}").into());
            add_holder(sockets, inodes, (*process, false), first);
            clock::now() < end
        });
        let is_whole = group.iter().all(|process| {
            let most = descriptors(*process).take(MOST_DESCRIPTORS);
            add_holder(sockets, inodes, (*process, false), most);
            clock::now() < end
        });
        // A user's server that opened its socket late is no reason for doubt.
        is_complete &= is_whole || is_users;
    }
    is_complete
}

/// These processes, each with its user: those of the system's accounts, and those of users. Within both, every
/// account has its turn, so that none hides another's.
fn by_turns(mut processes: Vec<(u32, u32)>) -> [Vec<u32>; 2] {
    processes.sort_unstable();
    let (mut last, mut turn) = (None, 0_u32);
    let mut turns: Vec<_> = processes
        .into_iter()
        .map(|(user, process)| {
            turn = if last == Some(user) { turn + 1 } else { 0 };
            last = Some(user);
            (turn, user, process)
        })
        .collect();
    turns.sort_unstable();
    [true, false].map(|system| {
        let of = turns
            .iter()
            .filter(|(_, user, _)| is_system(*user) == system);
        of.map(|(.., process)| *process).collect()
    })
}

/// Where the kernel says what a process has open.
fn descriptors(process: u32) -> impl Iterator<Item = PathBuf> {
    let files = fs::read_dir(format!("/proc/{process}/fd"));
    files.into_iter().flatten().flatten().map(|it| it.path())
}

/// Adds a program to the sockets that it holds among these descriptors.
fn add_holder(
    sockets: &mut [HostSocket],
    inodes: &[(u64, usize)],
    (process, is_root): (u32, bool),
    descriptors: impl Iterator<Item = PathBuf>,
) {
    let mut program = None;
    for file in descriptors {
        let place = fs::read_link(file).ok().and_then(|link| {
            let link = link.to_str()?.strip_prefix("socket:[")?;
            let inode: u64 = link.strip_suffix(']')?.parse().ok()?;
            let found = inodes.binary_search_by_key(&inode, |(inode, _)| *inode);
            Some(inodes.get(found.ok()?)?.1)
        });
        let Some(socket) = place.and_then(|place| sockets.get_mut(place)) else {
            continue;
        };
        let holders = &mut socket.programs;
        // It may have many descriptors of one socket.
        let is_named = holders.iter().any(|it| it.process == process);
        if !is_named && holders.len() < MOST_HOLDERS {
            let program = program.get_or_insert_with(|| Program {
                name: plain(text(process, "comm").trim()),
                process,
                is_root,
                is_before_login: false,
            });
            holders.push(program.clone());
        }
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|it| it.file_name().to_str()?.parse().ok())
}

/// The user who started a process. A setuid program (passwd, su) that a user started is not root's: the user
/// chooses its name. That of a process that has changed its user is root's to look at, whoever it runs as.
fn owner(process: u32) -> u32 {
    let seen = fs::metadata(format!("/proc/{process}")).map_or(u32::MAX, |it| it.uid());
    if seen != 0 {
        return seen;
    }
    let status = text(process, "status");
    let line = status.lines().find_map(|it| it.strip_prefix("Uid:"));
    let real = line.and_then(|it| it.split_whitespace().next()?.parse().ok());
    real.unwrap_or(u32::MAX)
}

/// A file about a process; empty when it has ended.
fn text(process: u32, file: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(format!("/proc/{process}/{file}")) {
        // What there was before an error is as good as nothing.
        let _ = file.take(MOST_TEXT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Finds out which login programs still wait for their client's password. Only connections that root accepted
/// are looked at: a user can make reading a command line take any time (it may lie in a file system of the
/// user's own). Where not all processes could be looked at, sshd's root part may be all that was found of one.
fn judge_logins(sockets: &mut [HostSocket], is_complete: bool) {
    let mut family = None;
    let accepted = sockets
        .iter_mut()
        .filter(|it| it.peer.is_some() && it.user == 0);
    for socket in accepted {
        let in_doubt = !is_complete && socket.programs.iter().all(|it| it.is_root);
        for program in &mut socket.programs {
            program.is_before_login = match Login::of(&program.name) {
                None => false,
                Some(Login::Titled) => {
                    let title = text(program.process, "cmdline");
                    reach::is_stranger(&title) || in_doubt && reach::is_silent(&title)
                }
                Some(Login::Untitled) => {
                    !reach::has_shell(program.process, family.get_or_insert_with(read_family))
                }
            };
        }
    }
}

/// Every process: its parent, its number and its name.
fn read_family() -> Vec<(u32, u32, String)> {
    let relation = |process| {
        let stat = text(process, "stat");
        // The name may hold brackets itself.
        let (name, rest) = stat.rsplit_once(')')?;
        let name = name.split_once('(')?.1.to_owned();
        let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
        Some((parent, process, name))
    };
    processes().filter_map(relation).collect()
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

    /// Field row A5: any user may have thousands of descriptors of one socket, and a command line of
    /// megabytes.
    #[test]
    fn descriptors_and_command_lines_of_others_cost_no_memory() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        // Unlike std's, these are inherited.
        let duplicates: Vec<_> = (0..300)
            .map(|_| rustix::io::dup(&listener).unwrap())
            .collect();
        let mut children: Vec<_> = (0..12)
            .map(|_| {
                let mut command = std::process::Command::new("sh");
                command
                    .args(["-c", "read x"])
                    .args(vec!["x".repeat(100_000); 10]);
                command.stdin(std::process::Stdio::piped()).spawn().unwrap()
            })
            .collect();
        drop(duplicates);
        let seen = sockets();
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let socket = seen.iter().find(|socket| socket.local == place).unwrap();
        let mut holders: Vec<_> = socket.programs.iter().map(|it| it.process).collect();
        assert_eq!(holders.len(), MOST_HOLDERS);
        holders.dedup();
        assert_eq!(holders.len(), MOST_HOLDERS);
        assert!(text(std::process::id(), "environ").len() <= MOST_TEXT as usize);
    }

    /// Field row B1: thousands of processes of one account hide no other's.
    #[test]
    fn every_account_has_its_turn() {
        let mut processes: Vec<_> = (10..5000).map(|process| (65_534, process)).collect();
        processes.extend((5000..9000).map(|process| (33, process)));
        processes.extend([(101, 9001), (1000, 9002), (101, 9003), (61_184, 9004)]);
        let [system, users] = by_turns(processes);
        assert_eq!(system[..5], [5000, 9001, 9004, 5001, 9003]);
        assert_eq!(users[..3], [9002, 10, 11]);
        assert_eq!((system.len(), users.len()), (4003, 4991));
    }

    #[test]
    fn relations_of_processes_are_read() {
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let family = read_family();
        child.kill().unwrap();
        child.wait().unwrap();
        let relation = (std::process::id(), child.id(), "sleep".to_owned());
        assert!(family.contains(&relation));
        assert!(reach::has_shell(std::process::id(), &family));
        assert!(!reach::has_shell(child.id(), &family));
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
        let line = "0: 0100007F:0016 00000000:0000 0A 0:0 00:0 0 65534 0 77 1 0";
        let (inode, socket) = socket(PortProtocol::Tcp, line).unwrap();
        assert_eq!((inode, socket.user), (77, 65_534));
    }
}
