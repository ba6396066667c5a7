//! `netcombiner version`.

use std::process::ExitCode;

use super::args::{CliError, no_more};
use super::help;

pub(super) const HELP: &str = "\
usage: netcombiner version

Prints the name and the version.
";

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, CliError> {
    if no_more(&mut parser, "version")? {
        return help::print(HELP);
    }
    help::print(concat!("netcombiner ", env!("CARGO_PKG_VERSION"), "\n"))
}
