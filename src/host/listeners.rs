//! Who may lose this host: the programs that listen on it, and the session we were started from.

use std::net::{IpAddr, SocketAddr};

/// Where the ssh session that this process was started from ends on this host.
///
/// `SSH_CONNECTION` says so (ssh(1)); sudo(8) takes it out of the environment, so that of the
/// processes above is asked too.
pub fn ssh_session() -> Option<SocketAddr> {
    let own = std::env::var("SSH_CONNECTION").ok();
    own.as_deref().and_then(server).or_else(above)
}

/// Client's address and port, server's address and port.
fn server(connection: &str) -> Option<SocketAddr> {
    let mut words = connection.split_whitespace().skip(2);
    let address: IpAddr = words.next()?.parse().ok()?;
    Some(SocketAddr::new(address, words.next()?.parse().ok()?))
}

#[cfg(not(target_os = "linux"))]
fn above() -> Option<SocketAddr> {
    None
}

#[cfg(target_os = "linux")]
fn above() -> Option<SocketAddr> {
    let mut process = std::os::unix::process::parent_id();
    // A shell, sudo, a script or two; init has no session.
    while process > 1 {
        let environment = std::fs::read(format!("/proc/{process}/environ")).ok()?;
        let found = environment
            .split(|byte| *byte == 0)
            .filter_map(|entry| entry.strip_prefix(b"SSH_CONNECTION="))
            .find_map(|value| server(std::str::from_utf8(value).ok()?));
        if found.is_some() {
            return found;
        }
        process = parent(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)?;
    }
    None
}

/// The parent in proc_pid_stat(5): the second word after the name, which may hold brackets itself.
#[cfg(target_os = "linux")]
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Where TCP connections are waited for in the network namespace of this thread.
#[cfg(target_os = "linux")]
pub fn listeners() -> Vec<SocketAddr> {
    let read = |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    // A kernel without one of the families has no such file, and no listeners.
    let texts = ["tcp", "tcp6"]
        .into_iter()
        .filter_map(|file| read(file).ok());
    texts.flat_map(|text| listening(&text)).collect()
}

/// The listeners of /proc/net/tcp (proc_net_tcp.rst): the address as 32-bit words of this machine,
/// the port, and the state 0A.
#[cfg(target_os = "linux")]
fn listening(text: &str) -> Vec<SocketAddr> {
    let place = |line: &str| {
        let mut words = line.split_whitespace();
        let (address, port) = words.nth(1)?.split_once(':')?;
        if words.nth(1)? != "0A" {
            return None;
        }
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
    };
    text.lines().filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_read() {
        let place = |text: &str| Some(text.parse().unwrap());
        assert_eq!(
            server("198.51.100.9 50123 203.0.113.2 2222"),
            place("203.0.113.2:2222")
        );
        assert_eq!(
            server("2001:db8::9 1 2001:db8::2 22"),
            place("[2001:db8::2]:22")
        );
        for bad in ["", "1.2.3.4 5", "a b c d", "1.2.3.4 5 6.7.8.9 70000"] {
            assert_eq!(server(bad), None, "{bad}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_parent_of_an_evil_name() {
        assert_eq!(parent("7 (a) S 9 (b)) S 3 7 7 0"), Some(3));
        assert_eq!(parent("7 (a"), None);
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert_eq!(parent(&stat), Some(std::os::unix::process::parent_id()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_listener_is_seen_and_a_connection_is_none() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else {
                continue;
            };
            let place = listener.local_addr().unwrap();
            assert!(listeners().contains(&place), "{place}");
            let connection = std::net::TcpStream::connect(place).unwrap();
            assert!(!listeners().contains(&connection.local_addr().unwrap()));
            drop(listener);
            assert!(!listeners().contains(&place), "{place}");
        }
        assert_eq!(
            listening("  sl  local_address\n 0: xx:1 0:0 0A\n 1: 0:0\n"),
            []
        );
    }
}
