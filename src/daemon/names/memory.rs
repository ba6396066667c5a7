//! The addresses of names where the peer was met, in a file beside the configuration: at the next start DNS
//! may be dead, and only such places outlive a reboot on every router.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::message::MOST_ADDRESSES;
use crate::daemon::links::Resolved;

/// The most that is read of the file, bytes: the names of 32 links and their addresses are less.
const MOST_BYTES: u64 = 64 * 1024;

/// The file of a configuration.
pub(in crate::daemon) fn file_of(config: &Path) -> PathBuf {
    config.with_extension("addresses")
}

/// What is remembered of these hosts; without the file nothing.
pub(in crate::daemon) fn load(file: &Path, hosts: &[String]) -> Resolved {
    let mut text = Vec::new();
    if let Ok(file) = fs::File::open(file) {
        // What cannot be read is not known.
        let _ = file.take(MOST_BYTES).read_to_end(&mut text);
    }
    parse(&String::from_utf8_lossy(&text), hosts)
}

/// Writes what is known now, whole or not at all, and only when it has changed. Gives whether it wrote.
pub(in crate::daemon) fn save(file: &Path, known: &Resolved) -> io::Result<bool> {
    let text = print(known);
    if text.is_empty() || fs::read_to_string(file).is_ok_and(|before| before == text) {
        return Ok(false);
    }
    let new = file.with_extension("addresses.new");
    // One of a start that was cut off.
    let _ = fs::remove_file(&new);
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.sync_all())
        .and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.map(|()| true)
}

/// A line for each name, with its addresses in the order in which they were met.
fn print(known: &Resolved) -> String {
    let mut text = String::new();
    for (host, addresses) in known {
        if host.parse::<IpAddr>().is_ok() || addresses.is_empty() {
            continue;
        }
        text.push_str(host);
        for address in addresses.iter().take(MOST_ADDRESSES) {
            text.push_str(&format!(" {address}"));
        }
        text.push('\n');
    }
    text
}

fn parse(text: &str, hosts: &[String]) -> Resolved {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let host = words.next()?;
        let host = hosts.iter().find(|it| it.as_str() == host)?.clone();
        let addresses: Vec<IpAddr> = words
            .filter_map(|word| word.parse().ok())
            .take(MOST_ADDRESSES)
            .collect();
        (!addresses.is_empty() && host.parse::<IpAddr>().is_err()).then_some((host, addresses))
    };
    text.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn known(host: &str, addresses: &[[u8; 4]]) -> Resolved {
        let addresses = addresses.iter().map(|it| IpAddr::from(*it)).collect();
        Resolved::from([(host.to_owned(), addresses)])
    }

    /// Field row C5: written on change only, for nobody else's eyes, whole or not at all.
    #[test]
    fn it_is_written_when_something_changed() {
        let dir = std::env::temp_dir().join(format!("netcombiner-names-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = file_of(&dir.join("nc0.toml"));
        assert!(file.ends_with("nc0.addresses"));
        let hosts = ["vps.example".to_owned()];
        assert_eq!(load(&file, &hosts), Resolved::new());
        let one = known("vps.example", &[[203, 0, 113, 5], [203, 0, 113, 2]]);
        assert!(save(&file, &one).unwrap());
        let first = fs::metadata(&file).unwrap();
        assert_eq!(first.permissions().mode() & 0o777, 0o600);
        assert!(!save(&file, &one).unwrap());
        assert_eq!(fs::metadata(&file).unwrap().ino(), first.ino());
        // The order stays: the newest is tried first.
        assert_eq!(load(&file, &hosts), one);
        // Addresses need no memory, and no answer is no reason to forget.
        assert!(!save(&file, &known("203.0.113.2", &[[203, 0, 113, 2]])).unwrap());
        assert!(!save(&file, &known("vps.example", &[])).unwrap());
        assert_eq!(load(&file, &hosts), one);
        let names = fs::read_dir(&dir).unwrap().count();
        assert_eq!(names, 1);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn nonsense_in_the_file_is_nothing() {
        let hosts = ["vps.example".to_owned(), "203.0.113.2".to_owned()];
        let text = "vps.example\nother 1.2.3.4\n203.0.113.2 1.2.3.4\n\u{fffd} \u{0} vps.example nonsense\n";
        assert_eq!(parse(text, &hosts), Resolved::new());
    }
}
