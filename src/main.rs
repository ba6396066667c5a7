//! The command `netcombiner`.

#[cfg(any(target_os = "freebsd", test))]
mod abi_note;
#[cfg(all(target_os = "linux", target_env = "musl"))]
mod thread_name;

use std::process::ExitCode;

use netcombiner::io::secrecy::Wiping;

#[global_allocator]
static HEAP: Wiping = Wiping::new();

fn main() -> ExitCode {
    netcombiner::cli::main()
}
