//! Who may lose this host: the programs that listen on it, and the session we were started from.

use std::net::{IpAddr, SocketAddr};

#[cfg(target_os = "linux")]
pub use super::linux::{holders, sockets};

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

/// Without a reader of this system's sockets, the session of the shell is all that is known.
#[cfg(not(target_os = "linux"))]
pub fn sockets() -> Vec<crate::route::reach::HostSocket> {
    Vec::new()
}

/// Nor is it known who has a port.
#[cfg(not(target_os = "linux"))]
pub fn holders(_: crate::config::PortProtocol, _: u16) -> Vec<crate::route::reach::HostSocket> {
    Vec::new()
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
}
