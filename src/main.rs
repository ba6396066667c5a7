//! The command `netcombiner`.

#[cfg(any(target_os = "freebsd", test))]
mod abi_note;

use std::process::ExitCode;

use netcombiner::io::secrecy::Wiping;

#[global_allocator]
static HEAP: Wiping = Wiping::new();

fn main() -> ExitCode {
    netcombiner::cli::main()
}
