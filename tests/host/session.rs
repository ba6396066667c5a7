//! The ssh session that a remote portal is started from, in a namespace.

use std::process::{Command, Output};

use crate::namespace::{in_namespace, ip, snapshot};

#[test]
fn nobody_cuts_himself_off() {
    in_namespace(async |directory| {
        let program = |arguments: &[&str], session: &str| -> Output {
            Command::new(env!("CARGO_BIN_EXE_netcombiner"))
                .args(arguments)
                .env("SSH_CONNECTION", session)
                .output()
                .unwrap()
        };
        std::fs::create_dir_all(&directory).unwrap();
        // The daemon makes it itself.
        ip("link delete nc0");
        let dir = directory.to_str().unwrap();
        let init = ["init", "--public-address", "203.0.113.2", "--dir", dir];
        assert!(program(&init, "").status.success());
        let file = format!("{dir}/remote/nc0.toml");
        let run_dir = format!("{dir}/run");
        let before = snapshot();
        let session = "198.51.100.9 50123 203.0.113.2 2222";
        for verb in ["run", "up"] {
            let refused = program(&[verb, &file, "--run-dir", &run_dir], session);
            let said = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(1), "{said}");
            assert!(
                said.contains("203.0.113.2:2222") && said.contains("add \"tcp:2222\" to keep"),
                "{said}"
            );
            assert_eq!(snapshot(), before);
        }
        let warned = program(&["check", &file, "--host"], session);
        let said = String::from_utf8(warned.stdout).unwrap();
        assert!(said.contains("warning: keep: the ssh session"), "{said}");

        // Over the kept port, and by force.
        for (session, force) in [
            ("198.51.100.9 50123 203.0.113.2 22", None),
            (session, Some("--force")),
        ] {
            let mut arguments = vec!["up", &file, "--run-dir", &run_dir];
            arguments.extend(force);
            let up = program(&arguments, session);
            assert!(
                up.status.success(),
                "{}",
                String::from_utf8_lossy(&up.stderr)
            );
            let down = program(&["down", "nc0", "--run-dir", &run_dir], "");
            assert!(
                down.status.success(),
                "{}",
                String::from_utf8_lossy(&down.stderr)
            );
            assert_eq!(snapshot(), before);
        }
    });
}
