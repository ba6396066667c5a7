//! The command `netcombiner`.

use std::process::ExitCode;

fn main() -> ExitCode {
    netcombiner::cli::main()
}
