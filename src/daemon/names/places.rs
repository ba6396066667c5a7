//! Where names are asked for: the host's own list of names and its resolvers, as files tell them.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::net::IpAddr;
#[cfg(any(target_env = "musl", test))]
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Names of this host's own (hosts(5)).
const HOSTS: &str = "/etc/hosts";
/// Files that name resolvers, in resolv.conf(5)'s words: the host's; those of the links, where a resolver
/// on the host itself stands before them (OpenWrt's netifd, systemd-resolved, NetworkManager).
const RESOLVERS: [&str; 5] = [
    "/etc/resolv.conf",
    "/tmp/resolv.conf.d/resolv.conf.auto",
    "/tmp/resolv.conf.auto",
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
];
/// The most that is read of a file, bytes.
const MOST_BYTES: u64 = 256 * 1024;
/// The most resolvers that are asked.
const MOST_RESOLVERS: usize = 8;

/// Where every user can put files.
const EVERYBODYS: &str = "/tmp";

/// The text of a file. One that cannot be read names nothing.
fn read(path: &str) -> String {
    let path = Path::new(path);
    let is_trusted = !path.starts_with(EVERYBODYS) || is_roots(path, Path::new(EVERYBODYS));
    let text = if is_trusted { text(path).ok() } else { None };
    text.unwrap_or_default()
}

/// True where root made the file and every directory it lies in below `top`, so that nobody else can put
/// another in its place: a FIFO would hold us up, a device do something when it is opened.
fn is_roots(path: &Path, top: &Path) -> bool {
    let mut below = path.ancestors().take_while(|it| *it != top);
    below.all(|it| {
        let there = it.symlink_metadata();
        there.is_ok_and(|it| it.uid() == 0 && (it.is_symlink() || it.mode() & 0o022 == 0))
    })
}

fn text(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The addresses that the host itself gives a name.
pub(super) fn of_hosts(name: &str) -> Vec<IpAddr> {
    in_hosts(&read(HOSTS), name)
}

/// The resolvers that can be asked over a link, each once.
pub(super) fn resolvers() -> Vec<IpAddr> {
    let mut all = Vec::new();
    for path in RESOLVERS {
        add_resolvers(&read(path), &mut all);
    }
    all
}

/// The resolvers of resolv.conf(5), those on this host too, with its default where it names none.
#[cfg(target_env = "musl")]
pub(super) fn own_resolvers() -> Vec<SocketAddr> {
    own(&read(RESOLVERS[0]))
}

#[cfg(any(target_env = "musl", test))]
fn own(text: &str) -> Vec<SocketAddr> {
    let places = named(text).filter_map(with_port);
    let mut all: Vec<SocketAddr> = places.take(MOST_RESOLVERS).collect();
    if all.is_empty() {
        all.push((Ipv4Addr::LOCALHOST, super::PORT).into());
    }
    all
}

/// The words behind `nameserver`.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    })
}

/// Where a resolver is asked; a link-local one has the number of its device behind a `%`, or its name.
#[cfg(any(target_env = "musl", test))]
fn with_port(word: &str) -> Option<SocketAddr> {
    let (address, zone) = word.split_once('%').unwrap_or((word, ""));
    match address.parse().ok()? {
        IpAddr::V4(v4) => Some((v4, super::PORT).into()),
        IpAddr::V6(v6) => {
            let index = || std::fs::read_to_string(format!("/sys/class/net/{zone}/ifindex"));
            let number = |text: String| text.trim().parse().ok();
            let scope = match zone {
                "" => 0,
                _ => zone.parse().ok().or_else(|| number(index().ok()?))?,
            };
            Some(SocketAddrV6::new(v6, super::PORT, 0, scope).into())
        }
    }
}

fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let of_line = |line: &str| {
        let line = line.split_once('#').map_or(line, |(line, _)| line);
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|word| word.eq_ignore_ascii_case(name))
            .then_some(address)
    };
    text.lines().filter_map(of_line).collect()
}

/// A resolver on this host is asked by the C library; one with a zone belongs to one device.
fn add_resolvers(text: &str, all: &mut Vec<IpAddr>) {
    for word in named(text) {
        let address = word.parse::<IpAddr>().ok();
        let outside = |it: &IpAddr| !it.is_loopback() && !it.is_unspecified();
        if let Some(address) = address.filter(outside)
            && !all.contains(&address)
            && all.len() < MOST_RESOLVERS
        {
            all.push(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn resolvers_of_all_files_without_those_of_this_host() {
        let mut all = Vec::new();
        add_resolvers(
            "search lan\nnameserver 127.0.0.53\noptions edns0\n",
            &mut all,
        );
        assert!(all.is_empty());
        let netifd = "# Interface wan\nnameserver 192.0.2.53\n# Interface wwan\n\
             nameserver 198.51.100.53\nnameserver fe80::1%wwan0\nnameserver 192.0.2.53\n";
        add_resolvers(netifd, &mut all);
        let wanted = [[192, 0, 2, 53], [198, 51, 100, 53]].map(IpAddr::from);
        assert_eq!(all, wanted);
        let many: String = (0..99)
            .map(|n| format!("nameserver 203.0.113.{n}\n"))
            .collect();
        add_resolvers(&many, &mut all);
        assert_eq!(all.len(), MOST_RESOLVERS);
    }

    /// A FIFO has no reader: to open it would wait for ever, and the whole control thread with it.
    #[test]
    fn only_plain_files_are_read_and_below_tmp_only_roots() {
        let dir = std::env::temp_dir().join(format!("netcombiner-places-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let plain = dir.join("plain");
        std::fs::write(&plain, "nameserver 192.0.2.53\n").unwrap();
        let fifo = dir.join("fifo");
        assert!(
            Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(text(&plain).unwrap(), "nameserver 192.0.2.53\n");
        assert!(text(&fifo).is_err() && text(&dir).is_err());
        if plain.metadata().unwrap().uid() == 0 {
            let set_mode = |path: &Path, mode| {
                std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            };
            set_mode(&dir, 0o755);
            assert!(is_roots(&plain, &dir) && is_roots(&plain, dir.parent().unwrap()));
            set_mode(&dir, 0o1777);
            assert!(is_roots(&plain, &dir) && !is_roots(&plain, dir.parent().unwrap()));
            std::os::unix::fs::chown(&plain, Some(65534), None).unwrap();
            assert!(!is_roots(&plain, &dir));
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_hosts_own_resolvers() {
        let text = "search lan\nnameserver 127.0.0.1\nnameserver\nnameserver ::1\n\
             nameserver fe80::1%7\nnameserver fe80::1%lo\nnameserver fe80::1%no-such-device\nnameserver x\n";
        let words: Vec<String> = own(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(words[..3], ["127.0.0.1:53", "[::1]:53", "[fe80::1%7]:53"]);
        // The loopback's number is 1 where there is /sys.
        assert!(
            words[3..].iter().all(|it| it == "[fe80::1%1]:53"),
            "{words:?}"
        );
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
        assert_eq!(own("# none\n"), [default]);
        let many: String = (0..99)
            .map(|n| format!("nameserver 203.0.113.{n}\n"))
            .collect();
        assert_eq!(own(&many).len(), MOST_RESOLVERS);
    }

    #[test]
    fn names_of_hosts() {
        let text = "127.0.0.1 localhost # vps.example\n203.0.113.2\tother VPS.example\nbad vps.example\n\
             2001:db8::2 vps.example\n";
        let found = in_hosts(text, "vps.example.");
        let wanted = ["203.0.113.2", "2001:db8::2"].map(|it| it.parse::<IpAddr>().unwrap());
        assert_eq!(found, wanted);
        assert_eq!(in_hosts(text, "nobody").len(), 0);
    }
}
