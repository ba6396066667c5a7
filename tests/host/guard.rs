//! Nobody locks himself out, however the daemon is started, and no other user keeps it down.

use std::fs::Permissions;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::namespace::{in_namespace, ip, snapshot};

/// A process of this name that holds a socket, as sshd and its sessions do, and has a child, as they do.
struct Holder(Child);

impl Holder {
    fn start(directory: &Path, name: &str, socket: impl Into<OwnedFd>) -> Self {
        Self::run(directory, name, socket, "sleep 600 & wait")
    }

    /// One whose client has not logged in.
    fn alone(directory: &Path, name: &str, socket: impl Into<OwnedFd>) -> Self {
        Self::run(directory, name, socket, "read word")
    }

    fn of_nobody(directory: &Path, name: &str, socket: impl Into<OwnedFd>) -> Self {
        Self::of(directory, name, socket, NOBODY)
    }

    /// One of another account.
    fn of(directory: &Path, name: &str, socket: impl Into<OwnedFd>, user: u32) -> Self {
        Self::run_as(directory, name, socket, "sleep 600 & wait", user)
    }

    fn run(directory: &Path, name: &str, socket: impl Into<OwnedFd>, script: &str) -> Self {
        Self::run_as(directory, name, socket, script, 0)
    }

    fn run_as(
        directory: &Path,
        name: &str,
        socket: impl Into<OwnedFd>,
        script: &str,
        user: u32,
    ) -> Self {
        let program = directory.join(name);
        if !program.exists() {
            // A process is called as the link is.
            std::os::unix::fs::symlink("/bin/sh", &program).unwrap();
        }
        let child = Command::new(program)
            .args(["-c", script])
            .stdin(Stdio::from(socket.into()))
            .process_group(0)
            .uid(user)
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// Ends a process and its children.
fn end(leader: &mut Child) {
    if let Ok(group) = i32::try_from(leader.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = leader.wait();
}

/// The account of those who have none.
const NOBODY: u32 = 65_534;

/// Processes of nobody with many descriptors each.
struct Crowd(Child);

impl Crowd {
    fn start(processes: u32, descriptors: u32) -> Self {
        let script = format!(
            "for (1..{descriptors}) {{ open my $f, '<', '/dev/null' or die; push @f, $f }} \
             for (1..{processes}) {{ fork or exit sleep 600 }} \
             $| = 1; print 'ready'; close STDOUT; sleep 600"
        );
        let limit = format!("ulimit -n {}; exec perl -e \"$0\"", descriptors + 100);
        let mut command = Command::new("sh");
        command.args(["-c", &limit, &script]).stdout(Stdio::piped());
        let mut child = command.uid(NOBODY).process_group(0).spawn().unwrap();
        let mut said = [0; 5];
        let out = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(out, &mut said).unwrap();
        Self(child)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// A remote portal with its files.
struct Portal {
    file: String,
    run_dir: String,
}

impl Portal {
    fn new(directory: &Path) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        // The daemon makes it itself.
        ip("link delete nc0");
        let dir = directory.to_str().unwrap();
        let portal = Self {
            file: format!("{dir}/remote/nc0.toml"),
            run_dir: format!("{dir}/run"),
        };
        let arguments = ["init", "--public-address", "203.0.113.2", "--dir", dir];
        assert!(portal.command(&arguments).status().unwrap().success());
        portal
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netcombiner"));
        command.args(arguments).env_remove("SSH_CONNECTION");
        command
    }

    fn say(&self, verb: &str, more: &[&str]) -> Output {
        let what = if verb == "down" { "nc0" } else { &self.file };
        let mut arguments = vec![verb, what, "--run-dir", &self.run_dir];
        arguments.extend(more);
        self.command(&arguments).output().unwrap()
    }

    fn refused(&self, words: &[&str]) {
        let before = snapshot();
        let refused = self.say("run", &[]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        for word in words {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert_eq!(snapshot(), before);
    }

    fn refused_after_crash(&self, verb: &str, words: &str) {
        let refused = self.say(verb, &[]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(words), "{said}");
    }

    fn well(&self, verb: &str, more: &[&str]) {
        let done = self.say(verb, more);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{verb} {more:?}: {said}");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(format!("{}/nc0.log", self.run_dir)).unwrap_or_default()
    }

    fn process(&self) -> i32 {
        let lock = std::fs::read_to_string(format!("{}/nc0.lock", self.run_dir)).unwrap();
        lock.trim().parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process()), signal).unwrap();
    }

    /// SIGKILL, and its end: all that a dead process held is gone with its descriptors.
    fn killed(&self) {
        let process = format!("/proc/{}", self.process());
        self.signal(Signal::SIGKILL);
        // Its files are closed, the TUN with them, before its last thread is gone.
        let threads = || std::fs::read_dir(format!("{process}/task")).map_or(0, Iterator::count);
        let has_ended = || {
            let stat = std::fs::read_to_string(format!("{process}/stat"));
            stat.map_or(true, |it| it.contains(") Z "))
        };
        let lives = || threads() > 1 || !has_ended();
        while lives() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.file).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&self.file, text.replace(from, to)).unwrap();
    }

    /// Changes a line of the configuration and says SIGHUP; waits for an answer in the log.
    fn change(&self, from: &str, to: &str, answer: &str) {
        self.edit(from, to);
        let before = self.log().len();
        self.signal(Signal::SIGHUP);
        for _ in 0..600 {
            if self
                .log()
                .get(before..)
                .unwrap_or_default()
                .contains(answer)
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{answer:?} is not in the log:\n{}", self.log());
    }
}

fn listen(place: &str) -> TcpListener {
    TcpListener::bind(place).unwrap()
}

/// The host's end of a new connection, and the other.
fn connect(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let port = listener.local_addr().unwrap().port();
    let other = TcpStream::connect(("203.0.113.2", port)).unwrap();
    (listener.accept().unwrap().0, other)
}

/// Field row B1: the service manager's start, where no shell says which session there is.
#[test]
fn the_only_sshd_and_login_sessions_are_found_without_a_shell() {
    in_namespace(async |directory: PathBuf| {
        let portal = Portal::new(&directory);
        let ssh = listen("0.0.0.0:2222");
        let service = Holder::start(&directory, "sshd", ssh.try_clone().unwrap());
        let place = "203.0.113.2:2222";
        portal.refused(&[
            "sshd listens at",
            place,
            "add \"tcp:2222\" to keep",
            "--force",
        ]);
        // A second place that is kept: nothing is lost but a listener, and strangers do not count.
        let kept = listen("0.0.0.0:22");
        let second = Holder::start(&directory, "sshd", kept);
        let web = listen("0.0.0.0:80");
        let (stranger, _browser) = connect(&web);
        let server = Holder::start(&directory, "nginx", stranger);
        let tunnel = std::net::UdpSocket::bind("0.0.0.0:51820").unwrap();
        portal.well("up", &[]);
        for words in [
            "sshd listens at tcp 203.0.113.2:2222",
            "udp 203.0.113.2:51820",
        ] {
            assert_eq!(portal.log().matches(words).count(), 1, "{}", portal.log());
        }
        portal.well("down", &[]);
        drop((server, tunnel));

        let (session, _shell) = connect(&ssh);
        let forked = Holder::start(&directory, "sshd-session", session);
        portal.refused(&["the login session (sshd-session)", place]);
        portal.well("up", &["--force"]);
        portal.well("down", &[]);
        drop((forked, second, service));
    });
}

/// Field row B1: the supervisor starts again what was killed, even when a session is cut off by then.
#[test]
fn a_restart_after_a_crash_is_never_refused() {
    in_namespace(async |directory: PathBuf| {
        let portal = Portal::new(&directory);
        let _service = Holder::start(&directory, "sshd", listen("0.0.0.0:2222"));
        portal.well("up", &["--force"]);
        portal.killed();
        portal.well("up", &[]);
        assert!(
            portal.log().contains("nobody could log in"),
            "{}",
            portal.log()
        );
        portal.well("down", &[]);
    });
}

/// Field row B1: the configuration became another one before the daemon died.
#[test]
fn after_a_crash_a_narrower_keep_is_refused_too() {
    in_namespace(async |directory: PathBuf| {
        let portal = Portal::new(&directory);
        let before = snapshot();
        let ssh = listen("0.0.0.0:22");
        let (session, _shell) = connect(&ssh);
        let _service = Holder::start(&directory, "sshd", ssh);
        let _session = Holder::start(&directory, "sshd-session", session);
        portal.well("up", &[]);
        let (keep, less) = ("keep = [\"tcp:22\"]", "keep = []");
        portal.change(keep, less, "the configuration stays as it was");
        portal.killed();
        for verb in ["up", "run"] {
            portal.refused_after_crash(verb, "sshd listens at 203.0.113.2:22");
        }
        // As it was, or by force.
        portal.edit(less, keep);
        portal.well("up", &[]);
        portal.killed();
        portal.edit(keep, less);
        portal.well("up", &["--force"]);
        // From now on that is what was there before.
        portal.killed();
        portal.well("up", &[]);
        portal.well("down", &[]);
        assert_eq!(snapshot(), before);
    });
}

/// Field row B1: who only connects to an ssh server that does not say how far he has come.
#[test]
fn a_stranger_who_connects_does_not_stop_a_start() {
    in_namespace(async |directory: PathBuf| {
        let portal = Portal::new(&directory);
        let _kept = Holder::start(&directory, "dropbear", listen("0.0.0.0:22"));
        let second = listen("0.0.0.0:2222");
        let (stranger, _his) = connect(&second);
        let (session, _shell) = connect(&second);
        let _second = Holder::start(&directory, "dropbear", second);
        let _stranger = Holder::alone(&directory, "dropbear", stranger);
        portal.well("up", &[]);
        portal.well("down", &[]);
        let _session = Holder::start(&directory, "dropbear", session);
        portal.refused(&["the login session (dropbear)", "203.0.113.2:2222"]);
    });
}

/// Field row B1: the administrator comes in by OpenVPN.
#[test]
fn the_vpn_by_which_people_log_in_is_not_cut_off() {
    in_namespace(async |directory: PathBuf| {
        let portal = Portal::new(&directory);
        ip("tuntap add vpn0 mode tun");
        ip("address add 10.8.0.1/24 dev vpn0");
        ip("link set vpn0 up");
        let _service = Holder::start(&directory, "sshd", listen("10.8.0.1:22"));
        let udp = std::net::UdpSocket::bind("0.0.0.0:1194").unwrap();
        let _vpn = Holder::start(&directory, "openvpn", udp);
        portal.refused(&["10.8.0.1 by the VPN vpn0", "add \"udp:1194\" to keep"]);
        let (keep, more) = ("keep = [\"tcp:22\"]", "keep = [\"udp:1194\"]");
        portal.edit(keep, more);
        portal.well("up", &[]);
        portal.change(more, keep, "the configuration stays as it was");
        portal.well("down", &[]);
    });
}

/// Field row B1: some account has a program of the same name at a port that is kept, or elsewhere.
#[test]
fn another_accounts_program_is_not_taken_for_the_vpn() {
    in_namespace(async |directory: PathBuf| {
        let portal = Portal::new(&directory);
        ip("tuntap add vpn0 mode tun");
        ip("address add 10.8.0.1/24 dev vpn0");
        ip("link set vpn0 up");
        let _service = Holder::start(&directory, "sshd", listen("10.8.0.1:22"));
        let bind = |place: &str| {
            let socket = std::net::UdpSocket::bind(place).unwrap();
            std::os::unix::fs::fchown(&socket, Some(NOBODY), None).unwrap();
            socket
        };
        let (keep, more) = (
            "keep = [\"tcp:22\"]",
            "keep = [\"tcp:22\", \"udp:9000-9009\"]",
        );
        portal.edit(keep, more);
        let other = Holder::of_nobody(&directory, "openvpn", bind("0.0.0.0:5000"));
        portal.well("up", &[]);
        portal.well("down", &[]);
        drop(other);
        let _other = Holder::of_nobody(&directory, "openvpn", bind("0.0.0.0:9000"));
        let udp = std::net::UdpSocket::bind("0.0.0.0:1194").unwrap();
        let _vpn = Holder::start(&directory, "openvpn", udp);
        portal.refused(&["10.8.0.1 by the VPN vpn0", "add \"udp:1194\" to keep"]);
    });
}

/// Field row B1: an account has so many processes and descriptors that there is no time to look at all.
#[test]
fn thousands_of_descriptors_hide_no_vpn() {
    in_namespace(async |directory: PathBuf| {
        let portal = Portal::new(&directory);
        ip("tuntap add vpn0 mode tun");
        ip("address add 10.8.0.1/24 dev vpn0");
        ip("link set vpn0 up");
        let _service = Holder::start(&directory, "sshd", listen("10.8.0.1:22"));
        let crowd = Crowd::start(150, 4000);
        for user in [1, NOBODY] {
            let udp = std::net::UdpSocket::bind("0.0.0.0:1194").unwrap();
            let _vpn = Holder::of(&directory, "openvpn", udp, user);
            portal.refused(&["by the VPN vpn0, whose openvpn listens at udp"]);
        }
        drop(crowd);
    });
}

/// Field row B1: SIGHUP with a narrower `keep`. Field row D10: refused keys are named.
#[test]
fn a_new_configuration_locks_nobody_out() {
    in_namespace(async |directory: PathBuf| {
        let portal = Portal::new(&directory);
        let ssh = listen("0.0.0.0:22");
        let (session, _shell) = connect(&ssh);
        let _service = Holder::start(&directory, "dropbear", ssh);
        let session = Holder::start(&directory, "dropbear", session);
        portal.well("up", &[]);
        let (keep, less) = ("keep = [\"tcp:22\"]", "keep = [\"tcp:23\"]");
        portal.change(keep, less, "the configuration stays as it was");
        assert!(
            portal.log().contains("the login session (dropbear)"),
            "{}",
            portal.log()
        );
        drop(session);
        portal.change(less, less, "dropbear listens at 203.0.113.2:22");
        // More is taken at once, and what goes is said.
        let more = "keep = [\"tcp:22\", \"tcp:25\"]";
        portal.change(less, more, "the new configuration is in use");
        let _mail = Holder::start(&directory, "smtpd", listen("0.0.0.0:25"));
        portal.change(more, keep, "smtpd listens at tcp 203.0.113.2:25");
        portal.change(
            keep,
            &format!("{keep}\nmtu = 1300\necn = false"),
            "mtu, ecn cannot change",
        );
        portal.well("down", &[]);
    });
}

/// Field row A5: any user may bind an abstract socket.
#[test]
fn no_other_user_holds_the_lock() {
    in_namespace(async |directory: PathBuf| {
        let portal = Portal::new(&directory);
        let before = snapshot();
        let namespace = std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        let names = ["host".to_owned(), format!("net-{namespace}")];
        let _taken = names.map(|name| {
            let name = format!("netcombiner/{name}");
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap()
        });
        portal.well("up", &[]);
        portal.killed();
        portal.well("down", &[]);
        assert_eq!(snapshot(), before);
    });
}

/// Field row A8: nothing is written into a directory that others may write to.
#[test]
fn the_log_is_not_opened_in_somebody_elses_directory() {
    in_namespace(async |directory: PathBuf| {
        let portal = Portal::new(&directory);
        std::fs::create_dir(&portal.run_dir).unwrap();
        std::fs::set_permissions(&portal.run_dir, Permissions::from_mode(0o777)).unwrap();
        let victim = directory.join("victim");
        std::fs::write(&victim, "before").unwrap();
        std::os::unix::fs::symlink(&victim, format!("{}/nc0.log", portal.run_dir)).unwrap();
        let refused = portal.say("up", &[]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success());
        assert!(said.contains("others may write there"), "{said}");
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "before");
        // A link of the log's name in a directory of our own is not followed either.
        std::fs::set_permissions(&portal.run_dir, Permissions::from_mode(0o700)).unwrap();
        assert!(!portal.say("up", &[]).status.success());
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "before");
    });
}

/// The daemon keeps nothing of the shell that called `up`: a script's lock ends with the script, and its
/// working directory's file system can be unmounted.
#[test]
fn nothing_of_the_shell_is_held() {
    in_namespace(async |directory: PathBuf| {
        let portal = Portal::new(&directory);
        let script = "exec 9>script.lock; exec \"$0\" up remote/nc0.toml --run-dir run";
        let up = Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_netcombiner")])
            .env_remove("SSH_CONNECTION")
            .current_dir(&directory)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&up.stderr).into_owned();
        assert!(up.status.success(), "{said}");
        let process = format!("/proc/{}", portal.process());
        let link = |path: PathBuf| std::fs::read_link(path).unwrap();
        let working = link(Path::new(&process).join("cwd"));
        let open: Vec<_> = std::fs::read_dir(format!("{process}/fd"))
            .unwrap()
            .filter_map(|it| std::fs::read_link(it.unwrap().path()).ok())
            .collect();
        portal.well("down", &[]);
        assert_eq!(working, Path::new("/"));
        assert!(
            !open.iter().any(|it| it.ends_with("script.lock")),
            "{open:?}"
        );
    });
}

/// Field row A8: a user who is not root is told so, and not to change root's directory.
#[test]
fn a_user_is_told_to_be_root() {
    in_namespace(async |directory: PathBuf| {
        let portal = Portal::new(&directory);
        // It makes the directories.
        portal.well("up", &[]);
        portal.well("down", &[]);
        let program = directory.join("program");
        std::fs::copy(env!("CARGO_BIN_EXE_netcombiner"), &program).unwrap();
        let files = Path::new(&portal.file).parent().unwrap();
        for (path, mode) in [(&*directory, 0o755), (files, 0o755), (&program, 0o755)] {
            std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        for file in std::fs::read_dir(files).unwrap() {
            let path = file.unwrap().path();
            std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        }
        for arguments in [
            vec!["up", &portal.file, "--run-dir", &portal.run_dir],
            vec!["check", &portal.file, "--host"],
        ] {
            let mut command = Command::new(&program);
            let refused = command.args(&arguments).uid(65_534).gid(65_534).output();
            let refused = refused.unwrap();
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(1), "{said}");
            assert!(said.contains("run this as root"), "{arguments:?}: {said}");
            assert!(!said.contains("chmod 700"), "{said}");
        }
    });
}
