//! Root, or a user namespace in which we are root.
#![expect(
    unsafe_code,
    reason = "pre_exec is unsafe: its closures run between fork and exec"
)]

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

/// The same, but where root is lacking, this very program is run again with the same arguments in
/// a new user namespace: then its exit status is given, and the caller has nothing more to do.
pub fn enter_or_reexec() -> Result<Option<ExitStatus>, Error> {
    match enter() {
        Ok(()) => Ok(None),
        Err(error) if geteuid().is_root() || std::env::var_os(INSIDE).is_some() => Err(error),
        Err(error) => match reexec() {
            Ok(status) => Ok(Some(status)),
            Err(reason) => Err(Error::Lacking(format!(
                "{error}; a user namespace: {reason}"
            ))),
        },
    }
}

fn reexec() -> Result<ExitStatus, Error> {
    let program = std::env::current_exe().context("cannot find our own program")?;
    let (user, group) = (geteuid(), getegid());
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ];
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env(INSIDE, "1");
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
    command
        .status()
        .context("cannot run ourselves again in a user namespace")
}
