//! Configurations without files: keys by name, key files from memory.

use std::path::Path;
use std::sync::LazyLock;

use netcombiner::config::{Config, ConfigErrors, KeyFile, Loader, Warning};
use netcombiner::proto::crypto::keys::{PresharedKey, PrivateKey};
use zeroize::Zeroizing;

/// What the words for keys stand for. Made once: the curve is slow without optimisation.
static WORDS: LazyLock<[(&str, String); 4]> = LazyLock::new(|| {
    let own = PrivateKey::from_bytes([7; 32]);
    let peer = PrivateKey::from_bytes([8; 32]);
    let preshared = PresharedKey::from_bytes([9; 32]);
    [
        ("PRIVATE", own.reveal().to_string()),
        ("OWN", own.public().to_string()),
        ("PEER", peer.public().to_string()),
        ("PSK", preshared.reveal().to_string()),
    ]
});

/// The words `PRIVATE`, `OWN` (its public key), `PEER` and `PSK` as keys.
pub(crate) fn filled(text: &str) -> String {
    let fill = |text: String, (word, key): &(&str, String)| text.replace(word, key);
    WORDS.iter().fold(text.to_owned(), fill)
}

/// Reads a text as the configuration of nc0, its words for keys filled in.
pub(crate) fn parse(text: &str) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    Config::parse(&filled(text), "nc0", &Memory)
}

/// Some key files.
pub(crate) struct Memory;

impl Loader for Memory {
    fn load(&self, path: &Path) -> Result<KeyFile, String> {
        let (text, warning) = match path.to_str() {
            Some("good.key") => ("PRIVATE", None),
            Some("good.psk") => ("PSK", None),
            Some("garbled.psk") => ("no key", None),
            Some("open.key") => (
                "PRIVATE",
                Some(Warning {
                    place: "open.key".to_owned(),
                    text: "is open".to_owned(),
                }),
            ),
            Some(_) | None => return Err(format!("{}: there is no such file", path.display())),
        };
        Ok(KeyFile {
            text: Zeroizing::new(filled(text)),
            warning,
        })
    }
}
