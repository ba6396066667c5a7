//! Builds the real `netcombiner`.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::interrupt;
use super::screen::Screen;
use crate::error::{Context, Error};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");

/// Builds the release binary with the cargo that runs us; gives its path.
pub fn build(screen: &Screen) -> Result<PathBuf, Error> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    screen.line("building: cargo build --release --bin netcombiner")?;
    let mut child = Command::new(&cargo)
        .args([
            "build",
            "--release",
            "--bin",
            "netcombiner",
            "--manifest-path",
            MANIFEST,
        ])
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context(format!("cannot run {}", cargo.display()))?;
    let mut program = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            program = program.or_else(|| executable(&line));
            if interrupt::interrupted() {
                // Its own handling of the terminal's Ctrl-C is as good; a SIGTERM was only ours.
                let _ = child.kill();
            }
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    interrupt::check()?;
    if !status.success() {
        return Err(Error::failed(
            "netcombiner could not be built: see cargo's words above",
        ));
    }
    program.ok_or_else(|| Error::failed("cargo did not say where it put netcombiner"))
}

/// The path of the binary, from the line of JSON with which cargo tells of it.
fn executable(line: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let name = message.get("target")?.get("name")?.as_str()?;
    let path = message.get("executable")?.as_str()?;
    (name == "netcombiner").then(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_executable_among_cargos_messages() {
        let other = r#"{"reason":"compiler-artifact","target":{"name":"libc"},"executable":null}"#;
        assert_eq!(executable(other), None);
        let bin = r#"{"reason":"compiler-artifact","target":{"name":"netcombiner"},"executable":"/t/netcombiner"}"#;
        assert_eq!(executable(bin), Some("/t/netcombiner".into()));
        assert_eq!(executable("no json"), None);
    }
}
