//! `netcombiner genkey`: a new private key.

use std::process::ExitCode;

use super::args::{CliError, no_more};
use super::{help, key_output};
use crate::io::entropy::SystemEntropy;
use crate::proto::crypto::keys::PrivateKey;

pub(super) const HELP: &str = "\
usage: netcombiner genkey

Prints a new private key, 44 characters of base64:

  (umask 077; netcombiner genkey > /etc/netcombiner/nc0.key)
";

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, CliError> {
    if no_more(&mut parser, "genkey")? {
        return help::print(HELP);
    }
    key_output::print(PrivateKey::generate(&mut SystemEntropy::new()?).reveal())?;
    Ok(ExitCode::SUCCESS)
}
