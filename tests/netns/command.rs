//! The verbs as a user says them.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use netcombiner_lab::prelude::*;

use super::support::case::program;
use super::support::kernel::sh;
use super::support::{Case, Outcome, Setup, case};

/// Runs a command in a portal's namespace to its end: exit code, output and errors.
fn say(case: &Case, side: Side, mut command: Command) -> Result<(i32, String, String), Error> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // Spawned there by a shell of the namespace's: what is left running must not hold our pipes.
    let output: Output = case
        .lab
        .host(side)
        .run(|| command.output())?
        .map_err(|error| Error::failed(error.to_string()))?;
    Ok((
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

/// `netcombiner VERB WHAT --run-dir DIR`.
fn verb(case: &Case, side: Side, verb: &str, what: &str) -> Command {
    let mut command = case.portals.command(verb);
    command
        .arg(what)
        .arg("--run-dir")
        .arg(case.portals.run_dir(side));
    command
}

fn config(case: &Case, side: Side) -> String {
    case.portals.config(side).display().to_string()
}

/// Takes down what `up` started even when a test fails.
struct Down<'a>(&'a Case);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        for side in Side::BOTH {
            let _ = say(self.0, side, verb(self.0, side, "down", "nc0"));
        }
    }
}

#[test]
fn up_show_and_down() {
    case(Setup::default(), |case| -> Outcome {
        let before = Side::BOTH.map(|side| host_state(case.lab.host(side)));
        let _down = Down(case);
        for side in Side::BOTH {
            let (code, out, error) = say(case, side, verb(case, side, "show", "nc0"))?;
            assert_eq!((code, out.as_str()), (1, ""), "{error}");
            assert!(error.contains("not running"), "{error}");

            let file = config(case, side);
            let (code, out, error) = say(case, side, verb(case, side, "up", &file))?;
            assert_eq!(
                (code, out.as_str(), error.as_str()),
                (0, "", ""),
                "{side:?}"
            );
            // It is there when the command ends, not some time later.
            let state = host_state(case.lab.host(side))?;
            assert!(state.lines().any(|line| line.starts_with("device nc0 ")));

            let (code, _, error) = say(case, side, verb(case, side, "up", &file))?;
            assert_eq!(code, 1);
            assert!(error.contains("already running"), "{error}");
            assert!(error.contains("netcombiner down nc0"), "{error}");
        }
        case.wait_for_paths(2)?;
        assert_eq!(case.pings(&case.lab.client, SERVER)?, 20);

        let (code, out, error) = say(case, Side::Local, verb(case, Side::Local, "show", "nc0"))?;
        assert_eq!((code, error.as_str()), (0, ""));
        for word in ["nc0", "wan0", "wan1", "203.0.113.2:4725"] {
            assert!(out.contains(word), "no {word} in\n{out}");
        }
        let mut dump = verb(case, Side::Local, "show", "nc0");
        dump.arg("dump");
        let (code, out, _) = say(case, Side::Local, dump)?;
        assert_eq!(code, 0);
        let fields: Vec<usize> = out.lines().map(|line| line.split('\t').count()).collect();
        assert_eq!(fields, [14, 14], "{out}");

        for (side, before) in Side::BOTH.into_iter().zip(before) {
            let (code, out, error) = say(case, side, verb(case, side, "down", "nc0"))?;
            assert_eq!(
                (code, out.as_str(), error.as_str()),
                (0, "", ""),
                "{side:?}"
            );
            assert_eq!(
                before?.differences(&host_state(case.lab.host(side))?),
                [""; 0]
            );
            // Once more: nothing to do is no error.
            let (code, out, error) = say(case, side, verb(case, side, "down", "nc0"))?;
            assert_eq!(
                (code, out.as_str(), error.as_str()),
                (0, "", ""),
                "{side:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn what_goes_wrong_at_the_start_is_told_where_up_was_said() {
    case(Setup::default(), |case| -> Outcome {
        let _down = Down(case);
        let before = host_state(&case.lab.remote)?;
        let up = |what: &str| say(case, Side::Remote, verb(case, Side::Remote, "up", what));

        let (code, _, error) = up("/nowhere/nc0.toml")?;
        assert_eq!(code, 1);
        assert!(error.contains("/nowhere/nc0.toml"), "{error}");

        // Somebody has the port: that is said, and waited for.
        let squatter = case
            .lab
            .remote
            .run(|| std::net::UdpSocket::bind(("0.0.0.0", PORT)))??;
        let (code, _, error) = up(&config(case, Side::Remote))?;
        assert_eq!(code, 0, "{error}");
        let words = format!("process {} of user", std::process::id());
        assert!(
            error.contains("listen: udp:4725: ") && error.contains(&words),
            "{error}"
        );
        drop(squatter);
        let (code, _, error) = say(case, Side::Remote, verb(case, Side::Remote, "down", "nc0"))?;
        assert_eq!((code, error.as_str()), (0, ""));

        // Somebody has the device's name.
        sh(
            &case.lab.remote,
            "ip link add nc0 type veth peer name other",
        )?;
        let (code, _, error) = up(&config(case, Side::Remote))?;
        assert_eq!(code, 1, "{error}");
        assert!(error.contains("nc0"), "{error}");
        case.lab.remote.netlink()?.delete("nc0")?;

        // An error of the file has its place.
        let file = case.dir.path().join("nc7.toml");
        std::fs::write(&file, "role = \"remote\"\nlisten = [\"udp:74523\"]\n")?;
        let (code, _, error) = up(&file.display().to_string())?;
        assert_eq!(code, 1);
        assert!(error.contains("74523"), "{error}");

        assert_eq!(before.differences(&host_state(&case.lab.remote)?), [""; 0]);
        Ok(())
    });
}

#[test]
fn run_ends_with_a_reason_and_a_code() {
    case(Setup::default(), |case| -> Outcome {
        let remote = case.start(Side::Remote)?;
        let mut again = case.portals.command("run");
        again
            .arg(case.portals.config(Side::Remote))
            .arg("--run-dir")
            .arg(case.portals.run_dir(Side::Remote));
        let (code, _, error) = say(case, Side::Remote, again)?;
        assert_eq!(code, 1);
        assert!(error.contains("already running"), "{error}");
        assert!(error.contains(&remote.process.id().to_string()), "{error}");
        // The first has not been disturbed.
        case.show(Side::Remote)?;
        remote.stop()?;
        Ok(())
    });
}

#[test]
fn netcombiner_nc0_as_in_the_dissertation() {
    case(Setup::default(), |case| -> Outcome {
        // /etc and /run of its own, so that the usual places can be used.
        let script = format!(
            "set -e\n\
             mount -t tmpfs none /run; mount -t tmpfs none /etc\n\
             mkdir /etc/netcombiner; cp {config} /etc/netcombiner/nc0.toml\n\
             {program} nc0; echo up $?\n\
             {program} show nc0 >/dev/null; echo show $?\n\
             {program} show | head -n 1\n\
             {program} nc0 2>/dev/null || echo again $?\n\
             {program} down nc0; echo down $?\n\
             {program} show nc0 2>/dev/null || echo gone $?\n",
            config = config(case, Side::Remote),
            program = program().display(),
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        let (code, out, error) = say(case, Side::Remote, command)?;
        assert_eq!(code, 0, "{out}{error}");
        for line in ["up 0", "show 0", "again 1", "down 0", "gone 1"] {
            assert!(out.contains(line), "no {line:?} in {out}{error}");
        }
        Ok(())
    });
}

#[test]
fn a_changed_file_is_read_again_on_sighup() {
    case(Setup::default(), |case| -> Outcome {
        let file: PathBuf = case.portals.config(Side::Local);
        let whole = std::fs::read_to_string(&file)?;
        let (first, _) = whole.rsplit_once("[[link]]").unwrap_or_default();
        std::fs::write(&file, first)?;
        let remote = case.start(Side::Remote)?;
        let local = case.start(Side::Local)?;
        case.wait_for_paths(1)?;
        let pid = local.process.id();
        std::fs::write(&file, &whole)?;
        local.process.signal(nix::sys::signal::Signal::SIGHUP)?;
        case.wait_for_paths(2)?;
        // A broken file changes nothing.
        std::fs::write(&file, "role = 7\n")?;
        local.process.signal(nix::sys::signal::Signal::SIGHUP)?;
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(case.paths_up()?.len(), 2);
        assert_eq!(case.show(Side::Local)?["pid"], pid);
        local.stop()?;
        remote.stop()?;
        Ok(())
    });
}
