//! `netcombiner down` without a daemon, in a namespace: what it must not touch.

use std::path::Path;
use std::process::Command;

use crate::namespace::{in_namespace, ip, reconciler, snapshot};
use crate::portals::remote;

/// Exit code, and all that is said.
pub(crate) fn down(name: &str, run_dir: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_netcombiner"))
        .args(["down", name, "--run-dir"])
        .arg(run_dir)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// A slip of the keyboard: the device of a VPS's only address.
#[test]
fn a_device_of_the_host_is_refused() {
    in_namespace(async |directory| {
        let before = snapshot();
        for (device, kind) in [("wan0", "veth"), ("lo", "network")] {
            let (code, said) = down(device, &directory);
            assert_eq!(code, Some(1), "{said}");
            assert!(
                said.contains(&format!("it is a {kind} device of this host")),
                "{said}"
            );
            assert_eq!(snapshot(), before);
        }
        std::fs::remove_dir_all(directory).unwrap();
    });
}

/// Somebody's own TUN of that name, and what its owner has put there beside our work.
#[test]
fn addresses_that_were_not_added_by_us_stay() {
    in_namespace(async |directory| {
        ip("address add 192.0.2.77/24 dev nc0");
        let before = snapshot();
        assert_eq!(down("nc0", &directory), (Some(0), String::new()));
        assert_eq!(snapshot(), before);

        let mut ours = reconciler(&directory);
        ours.apply(&remote()).await.unwrap();
        assert!(ip("address show dev nc0").contains("192.0.2.77/24"));
        // Killed.
        drop(ours);
        let (code, said) = down("nc0", &directory);
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains("address del 172.19.152.2 peer 172.19.152.3"),
            "{said}"
        );
        assert_eq!(snapshot(), before);
    });
}

/// Beside a running tunnel, the name of another one must not clear its rules away.
#[test]
fn another_tunnels_work_stays() {
    use netcombiner::daemon::Lock;
    in_namespace(async |directory| {
        let held = Lock::take(&directory, "nc0").unwrap();
        let mut ours = reconciler(&directory);
        ours.apply(&remote()).await.unwrap();
        let up = snapshot();
        let elsewhere = directory.join("elsewhere");
        for run_dir in [&directory, &elsewhere] {
            let (code, said) = down("nc7", run_dir);
            assert_eq!(code, Some(1), "{said}");
            assert!(
                said.contains("nc7 is not running; nothing was touched"),
                "{said}"
            );
            assert_eq!(snapshot(), up);
        }
        // Killed: its leftovers are taken away under its own name alone.
        drop(held);
        let (code, said) = down("nc7", &directory);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("`netcombiner down nc0`"), "{said}");
        assert_eq!(snapshot(), up);
        assert_eq!(down("nc0", &directory).0, Some(0));
    });
}

/// The daemon may end on a signal while it is asked: whether it is gone is what its lock says.
#[test]
fn a_daemon_that_ends_without_an_answer_is_down() {
    in_namespace(async |directory| {
        std::fs::create_dir_all(&directory).unwrap();
        let socket = netcombiner::control::socket_path(&directory, "nc0");
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        let dying = std::thread::spawn(move || drop(listener.accept()));
        assert_eq!(down("nc0", &directory), (Some(0), String::new()));
        dying.join().unwrap();
    });
}
