//! `netcombiner pubkey`: the public key of a private one.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use zeroize::Zeroizing;

use super::args::{CliError, no_more};
use super::help;
use crate::proto::crypto::keys::PrivateKey;

pub(super) const HELP: &str = "\
usage: netcombiner pubkey < PRIVATE-KEY-FILE

Reads a private key from standard input and prints its public key, which goes into
the other portal's configuration as peer_public_key.
";

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, CliError> {
    // A key is 44 bytes and a newline; more than this is something else.
    const LONGEST: u64 = 1024;
    if no_more(&mut parser, "pubkey")? {
        return help::print(HELP);
    }
    let mut bytes = Zeroizing::new(Vec::new());
    io::stdin().lock().take(LONGEST).read_to_end(&mut bytes)?;
    let key: PrivateKey = std::str::from_utf8(&bytes)
        .unwrap_or_default()
        .parse()
        .map_err(|error| CliError::failed(format!("what came on standard input {error}")))?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", key.public())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
