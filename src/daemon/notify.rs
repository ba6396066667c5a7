//! Tells the service manager how far we are (sd_notify(3)); a few lines, no library.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixDatagram;

/// Sends `state` (`READY=1`, `STOPPING=1`) to the socket that NOTIFY_SOCKET names, if it does.
pub(super) fn notify(state: &str) {
    if let Some(place) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&place, state)
    {
        log::warn!("cannot tell the service manager {state:?}: {error}");
    }
}

fn send(place: &OsStr, state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    match place.as_bytes().split_first() {
        // A leading '@' stands for the abstract name space of Linux.
        #[cfg(target_os = "linux")]
        Some((b'@', name)) => {
            use std::os::linux::net::SocketAddrExt as _;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.send_to_addr(state.as_bytes(), &address)?;
        }
        _ => {
            socket.send_to(state.as_bytes(), place)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_hears_it() {
        let place = std::env::temp_dir().join(format!("netcombiner-notify-{}", std::process::id()));
        let manager = UnixDatagram::bind(&place).unwrap();
        send(place.as_os_str(), "READY=1").unwrap();
        let mut heard = [0; 32];
        let length = manager.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1");
        std::fs::remove_file(&place).unwrap();
        assert!(send(place.as_os_str(), "READY=1").is_err());
    }
}
