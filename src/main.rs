//! The command `netcombiner`.

#[cfg(any(target_os = "freebsd", test))]
mod abi_note;

use std::process::ExitCode;

fn main() -> ExitCode {
    netcombiner::cli::main()
}
