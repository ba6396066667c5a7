//! `netcombiner genpsk`: a new secret for both portals.

use std::process::ExitCode;

use super::args::{CliError, no_more};
use super::{help, key_output};
use crate::io::entropy::SystemEntropy;
use crate::proto::crypto::keys::PresharedKey;

pub(super) const HELP: &str = "\
usage: netcombiner genpsk

Prints a new preshared key, 44 characters of base64; both portals get the same:

  (umask 077; netcombiner genpsk > /etc/netcombiner/nc0.psk)
";

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, CliError> {
    if no_more(&mut parser, "genpsk")? {
        return help::print(HELP);
    }
    key_output::print(PresharedKey::generate(&mut SystemEntropy::new()?).reveal())?;
    Ok(ExitCode::SUCCESS)
}
