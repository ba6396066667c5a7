//! nft(8) itself reads the packet filter's scripts, where it is installed.

use std::io::Write as _;
use std::process::{Command, Stdio};

use netcombiner::cli::plan::System;

use crate::{cases, text};

#[test]
fn nft_takes_every_script() {
    let Ok(output) = Command::new("nft").args(["list", "tables"]).output() else {
        eprintln!("skipped: no nft here");
        return;
    };
    if !output.status.success() {
        eprintln!("skipped: nft has no access to the kernel here");
        return;
    }
    let mut seen = 0;
    for name in cases() {
        let plan = text(&name, System::Linux, false, false);
        for script in plan.split("nft -f - <<'END'\n").skip(1) {
            let (script, _) = script.split_once("END\n").unwrap();
            let mut nft = Command::new("nft")
                .args(["-c", "-f", "-"])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            nft.stdin
                .take()
                .unwrap()
                .write_all(script.as_bytes())
                .unwrap();
            assert!(nft.wait().unwrap().success(), "{name}:\n{script}");
            seen += 1;
        }
    }
    assert!(seen >= 4, "only {seen} scripts");
}
