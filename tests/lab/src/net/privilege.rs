//! Root, or a user namespace in which we are root.
#![expect(
    unsafe_code,
    reason = "pre_exec is unsafe: its closures run between fork and exec"
)]

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getegid, geteuid};

use super::Namespace;
use crate::error::{Context, Error};

/// Set for the copy of ourselves that already is in a user namespace.
const INSIDE: &str = "NETCOMBINER_LAB_USER_NAMESPACE";

const NEEDS: &str = "run it as root, or where unprivileged user namespaces are allowed \
                     (see /proc/sys/user/max_user_namespaces and \
                     /proc/sys/kernel/apparmor_restrict_unprivileged_userns)";

/// Whether this process can raise a lab as it is; if not, what it lacks.
pub fn enter() -> Result<(), Error> {
    if !Path::new("/proc/thread-self/ns/net").exists() {
        return Err(Error::Lacking(
            "the lab lacks Linux network namespaces".into(),
        ));
    }
    if let Err(error) = Namespace::new("test") {
        return Err(Error::Lacking(format!(
            "the lab lacks root: {error}; {NEEDS}"
        )));
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err(Error::Lacking(
            "the lab lacks /dev/net/tun: load the kernel module `tun`, and in a container start it \
             with `--device /dev/net/tun`"
                .into(),
        ));
    }
    OpenOptions::new().read(true).write(true).open("/dev/net/tun").map(|_| ()).map_err(|error| {
        Error::Lacking(format!(
            "the lab may not use /dev/net/tun ({error}): run it as root, or give the device mode 0666"
        ))
    })
}

/// How this program can raise a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As it is.
    Here,
    /// In a user namespace: [`reexec`] runs it there.
    UserNamespace,
}

/// Finds the way, without raising anything. `probe` are arguments with which this very program
/// calls [`enter`], says on its standard error what is lacking, and ends with 0 or not.
pub fn way(probe: &[&OsStr]) -> Result<Way, Error> {
    let here = match enter() {
        Ok(()) => return Ok(Way::Here),
        Err(error) if geteuid().is_root() || std::env::var_os(INSIDE).is_some() => {
            return Err(error);
        }
        Err(error) => error,
    };
    let lacking = |why: String| Error::Lacking(format!("{here}\n(in a user namespace: {why})"));
    match user_namespace(probe).and_then(|mut command| command.output().context("no start")) {
        Ok(output) if output.status.success() => Ok(Way::UserNamespace),
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            let complaint = complaint.trim();
            Err(lacking(
                complaint
                    .strip_prefix("lab: ")
                    .unwrap_or(complaint)
                    .to_owned(),
            ))
        }
        Err(error) => Err(lacking(error.to_string())),
    }
}

/// Runs this very program with these arguments in a new user namespace, to its end.
pub fn reexec(arguments: &[&OsStr]) -> Result<ExitStatus, Error> {
    user_namespace(arguments)?
        .status()
        .context("cannot run ourselves again in a user namespace")
}

fn user_namespace(arguments: &[&OsStr]) -> Result<Command, Error> {
    let program = std::env::current_exe().context("cannot find our own program")?;
    let (user, group) = (geteuid(), getegid());
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ];
    let mut command = Command::new(program);
    command.args(arguments).env(INSIDE, "1");
    let prepare = move || {
        set_pdeathsig(Signal::SIGTERM)?;
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
        for (path, text) in &maps {
            fs::write(path, text)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls; opening a file allocates a
    // short path at most on the stack (under 384 bytes), and nothing locks.
    unsafe { command.pre_exec(prepare) };
    Ok(command)
}
