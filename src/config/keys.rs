//! The keys: in the file itself, or each in a file of its own.

use std::path::Path;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::reader::Fields;
use super::report::Report;
use super::{Keys, Warning};
use crate::proto::crypto::keys::KeyError;

/// Where key files are read from; a test gives them from memory.
pub trait Loader {
    /// Reads a file that a key of the configuration names, or says why it cannot.
    fn load(&self, path: &Path) -> Result<KeyFile, String>;
}

/// A file with a secret.
pub struct KeyFile {
    /// What it holds.
    pub text: Zeroizing<String>,
    /// A word on it, when others than its owner can read it.
    pub warning: Option<Warning>,
}

/// The keys, and whether one of the secret ones stands in the configuration itself.
pub(super) struct Found {
    pub(super) keys: Option<Keys>,
    pub(super) secret_inside: bool,
}

pub(super) fn read(fields: &Fields<'_>, loader: &dyn Loader, report: &mut Report<'_>) -> Found {
    let private = secret(fields, "private_key", "private_key_file", loader, report);
    if fields.get("private_key").is_none() && fields.get("private_key_file").is_none() {
        report.missing(
            &fields.at("private_key_file"),
            "is missing (the file that `netcombiner genkey` was written to)",
        );
    }
    let preshared = secret(
        fields,
        "preshared_key",
        "preshared_key_file",
        loader,
        report,
    );
    let peer = fields
        .need(
            "peer_public_key",
            "what `netcombiner pubkey` prints for the other portal's private key",
            report,
        )
        .and_then(|field| {
            field
                .text(report)?
                .parse()
                .map_err(|error: KeyError| report.error(&field.at, error.to_string()))
                .ok()
        });
    let secret_inside =
        fields.get("private_key").is_some() || fields.get("preshared_key").is_some();
    let keys = private.zip(peer).map(|(private, peer)| Keys {
        private,
        peer,
        preshared,
    });
    if let Some(keys) = keys.as_ref()
        && keys.private.public() == keys.peer
    {
        report.error(
            &fields.at("peer_public_key"),
            "is this portal's own public key (each portal has its own private key and the \
             other's public key)",
        );
    }
    Found {
        keys,
        secret_inside,
    }
}

fn secret<T: FromStr<Err = KeyError>>(
    fields: &Fields<'_>,
    inside: &'static str,
    file: &'static str,
    loader: &dyn Loader,
    report: &mut Report<'_>,
) -> Option<T> {
    let written = fields.get(inside).and_then(|field| {
        field
            .text(report)?
            .parse()
            .map_err(|error: KeyError| report.error(&field.at, error.to_string()))
            .ok()
    });
    let Some(field) = fields.get(file) else {
        return written;
    };
    if fields.get(inside).is_some() {
        report.error(
            &field.at,
            format!("{inside} is there too (only one of the two is allowed)"),
        );
        return None;
    }
    let path = field.text(report)?;
    match loader.load(Path::new(path)) {
        Ok(found) => {
            report.warnings.extend(found.warning);
            found
                .text
                .parse()
                .map_err(|error: KeyError| {
                    report.error(&field.at, format!("what is in {path} {error}"));
                })
                .ok()
        }
        Err(why) => {
            report.error(&field.at, why);
            None
        }
    }
}
