//! Kernel settings: files below /proc/sys, which show the network namespace of the thread that
//! reads them.
//!
//! The `sysctl` crate is not used here: it turns every dot of a key into a slash, so the settings
//! of a device named `eth0.7` are out of its reach.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::route::resource::Setting;

/// The value, without its line end; nothing when this kernel has no such setting (now).
pub(super) fn read(key: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(path(key)?) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a value, in one write as the kernel wants it.
pub(super) fn write(setting: &Setting) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(path(&setting.key)?)?;
    file.write_all(setting.value.as_bytes())
}

/// The file of a key: dots part its names, and a `/` stands for a dot within a name, as for
/// sysctl(8).
fn path(key: &str) -> io::Result<PathBuf> {
    let mut path = PathBuf::from("/proc/sys");
    for name in key.split('.') {
        let name = name.replace('/', ".");
        if name.is_empty() || name == "." || name == ".." {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{key:?} is not a kernel setting"),
            ));
        }
        path.push(name);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let file = |key| path(key).unwrap().to_string_lossy().into_owned();
        assert_eq!(file("net.ipv4.ip_forward"), "/proc/sys/net/ipv4/ip_forward");
        assert_eq!(
            file("net.ipv4.conf.eth0/7.rp_filter"),
            "/proc/sys/net/ipv4/conf/eth0.7/rp_filter"
        );
        for key in ["", "net..ipv4", "net.//.x", "/.x"] {
            assert!(path(key).is_err(), "{key}");
        }
    }

    #[test]
    fn reads() {
        assert!(read("kernel.ostype").unwrap().is_some());
        assert_eq!(read("kernel.no_such_setting").unwrap(), None);
    }
}
