//! The real `netcombiner` in a lab: its configs, its start and its end.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::clock::now;
use crate::error::{Context, Error};
use crate::net::{Namespace, Process};
use crate::topology::{CLIENT_GATEWAY, Lab, PORT, PUBLIC};

/// Which portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// On the router, with the links.
    Local,
    /// On the server with the public address.
    Remote,
}

impl Side {
    /// Both, the remote one first: it listens.
    pub const BOTH: [Self; 2] = [Self::Remote, Self::Local];

    /// `local` or `remote`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }
}

/// What the configs say beside the lab's addresses and keys.
#[derive(Debug, Clone)]
pub struct ConfigOptions {
    /// The interface's name, at most 15 bytes.
    pub interface: String,
    /// TOML lines put before `[[link]]` of the local config, e.g. `security = "none"`.
    pub local: String,
    /// TOML lines at the end of the remote config.
    pub remote: String,
    /// Replaces `deliver = "client"` and its `client` line.
    pub deliver: Option<String>,
    /// TOML lines of every `[[link]]`, e.g. `transport = "tcp"`.
    pub link: String,
    /// Ports that stay on the remote portal's host.
    pub keep: Vec<String>,
    /// The links that the local portal is given; nothing: all.
    pub links: Option<Vec<usize>>,
}

impl Default for ConfigOptions {
    fn default() -> Self {
        Self {
            interface: "nc0".into(),
            local: String::new(),
            remote: String::new(),
            deliver: None,
            link: String::new(),
            keep: vec!["tcp:22".into()],
            links: None,
        }
    }
}

/// The two written configs, their run directories and the program that reads them. Everything
/// lies below one directory of ours.
#[derive(Debug, Clone)]
pub struct Portals {
    program: PathBuf,
    dir: PathBuf,
    interface: String,
}

/// A running daemon.
#[derive(Debug)]
pub struct Portal {
    /// Which.
    pub side: Side,
    /// Its process.
    pub process: Process,
    log: PathBuf,
}

/// A portal that is not ready by then has failed.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A portal that has not restored its host by then has failed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A command that only asks ends within this.
const ASK_LIMIT: Duration = Duration::from_secs(5);

impl Portals {
    /// Writes both configs below `dir` for the `netcombiner` at `program`, and a local host with
    /// so many links.
    pub(crate) fn write(
        links: usize,
        program: &Path,
        dir: &Path,
        options: &ConfigOptions,
    ) -> Result<Self, Error> {
        let portals = Self {
            program: program.to_owned(),
            dir: dir.to_owned(),
            interface: options.interface.clone(),
        };
        let mut public = Vec::new();
        for side in Side::BOTH {
            fs::create_dir_all(portals.run_dir(side))
                .context(format!("cannot make a directory in {}", dir.display()))?;
            let private = portals.key(&["genkey"], "")?;
            public.push(portals.key(&["pubkey"], &private)?);
            write_secret(&portals.key_file(side), &private)?;
        }
        let head = |side: Side, peer: &str| {
            format!(
                "role = \"{}\"\nprivate_key_file = \"{}\"\npeer_public_key = \"{peer}\"\n\
                 public_address = \"{PUBLIC}\"\n",
                side.name(),
                portals.key_file(side).display()
            )
        };
        let keep: Vec<String> = options
            .keep
            .iter()
            .map(|port| format!("{port:?}"))
            .collect();
        let remote = format!(
            "{}listen = [\"udp:{PORT}\", \"tcp:{PORT}\"]\nkeep = [{}]\n{}\n",
            head(Side::Remote, &public[1]),
            keep.join(", "),
            options.remote
        );
        let deliver = options.deliver.clone().unwrap_or_else(|| {
            format!(
                "deliver = \"client\"\n\
                 client = {{ device = \"lan\", gateway = \"{CLIENT_GATEWAY}\" }}"
            )
        });
        let mut local = format!(
            "{}remote = \"{PUBLIC}:{PORT}\"\n{deliver}\n{}\n",
            head(Side::Local, &public[0]),
            options.local
        );
        let all = || (0..links).collect();
        for link in options.links.clone().unwrap_or_else(all) {
            local += &format!(
                "\n[[link]]\ndevice = \"{}\"\n{}\n",
                Lab::wan(link),
                options.link
            );
        }
        write_secret(&portals.config(Side::Remote), &remote)?;
        write_secret(&portals.config(Side::Local), &local)?;
        Ok(portals)
    }

    /// Starts a portal on its host and waits until it answers `show`.
    pub(crate) fn start(&self, side: Side, host: &Namespace) -> Result<Portal, Error> {
        let log = self.dir.join(format!("{}.log", side.name()));
        let open = || File::options().create(true).append(true).open(&log);
        let output = open().context(format!("cannot open {}", log.display()))?;
        let errors = output.try_clone().context("cannot share the log")?;
        let mut command = self.command("run");
        command
            .arg("-c")
            .arg(self.config(side))
            .arg("--run-dir")
            .arg(self.run_dir(side))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let process = Process::spawn(host, command)?;
        let mut portal = Portal { side, process, log };
        let start = now();
        loop {
            if let Some(status) = portal.process.ended() {
                return Err(portal.failed(&format!("ended at once ({status})")));
            }
            if self.show(side, host).is_ok() {
                return Ok(portal);
            }
            if start.elapsed() > START_LIMIT {
                return Err(portal.failed(&format!("was not ready within {START_LIMIT:?}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What `netcombiner show NAME --json` says.
    pub(crate) fn show(&self, side: Side, host: &Namespace) -> Result<Value, Error> {
        let mut command = self.command("show");
        command.arg(&self.interface).arg("--json");
        let output = self.ask(side, host, command)?;
        serde_json::from_str(&output).context("`netcombiner show --json` gave no JSON")
    }

    /// Runs a short command with the portal's run directory in its namespace; gives its output.
    fn ask(&self, side: Side, host: &Namespace, mut command: Command) -> Result<String, Error> {
        command.arg("--run-dir").arg(self.run_dir(side));
        run(host, command)
    }
}

impl Lab {
    /// Writes both configs below `dir` for the `netcombiner` at `program`.
    pub fn portal_configs(
        &self,
        program: &Path,
        dir: &Path,
        options: &ConfigOptions,
    ) -> Result<Portals, Error> {
        Portals::write(self.links(), program, dir, options)
    }

    /// The namespace of a portal's host.
    pub const fn host(&self, side: Side) -> &Namespace {
        match side {
            Side::Local => &self.local,
            Side::Remote => &self.remote,
        }
    }

    /// Starts a portal in its namespace and waits until it answers `show`.
    pub fn start_portal(&self, portals: &Portals, side: Side) -> Result<Portal, Error> {
        portals.start(side, self.host(side))
    }

    /// What `netcombiner show NAME --json` says.
    pub fn show(&self, portals: &Portals, side: Side) -> Result<Value, Error> {
        portals.show(side, self.host(side))
    }

    /// Runs `netcombiner down NAME`.
    pub fn down(&self, portals: &Portals, side: Side) -> Result<String, Error> {
        let mut command = portals.command("down");
        command.arg(&portals.interface);
        portals.ask(side, self.host(side), command)
    }
}

/// Runs a command in a namespace to its end (at most some seconds); gives what it wrote, or its
/// words of complaint. For short outputs, which a pipe holds.
pub fn run(namespace: &Namespace, mut command: Command) -> Result<String, Error> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = Process::spawn(namespace, command)?;
    let child = process.child();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Read beside the waiting: more than a pipe holds would block the writer for ever.
    let reader = std::thread::spawn(move || stdout.map(std::io::read_to_string));
    let errors = std::thread::spawn(move || stderr.map(std::io::read_to_string));
    let status = process.wait(ASK_LIMIT)?;
    let text = |thread: std::thread::JoinHandle<Option<std::io::Result<String>>>| {
        thread
            .join()
            .ok()
            .flatten()
            .and_then(Result::ok)
            .unwrap_or_default()
    };
    let (output, errors) = (text(reader), text(errors));
    if status.success() {
        return Ok(output);
    }
    Err(Error::failed(format!(
        "{} ended with {status}: {}",
        process.name(),
        errors.trim()
    )))
}

impl Portals {
    /// The config file of a side.
    pub fn config(&self, side: Side) -> PathBuf {
        self.dir
            .join(side.name())
            .join(format!("{}.toml", self.interface))
    }

    /// The run directory of a side.
    pub fn run_dir(&self, side: Side) -> PathBuf {
        self.dir.join(side.name()).join("run")
    }

    /// A command `netcombiner VERB`, without its arguments; spawn it in a namespace.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(verb);
        command
    }

    fn key_file(&self, side: Side) -> PathBuf {
        self.dir
            .join(side.name())
            .join(format!("{}.key", self.interface))
    }

    /// `genkey` or `pubkey`, which reads the private key from its input.
    fn key(&self, arguments: &[&str], input: &str) -> Result<String, Error> {
        let what = format!("{} {}", self.program.display(), arguments.join(" "));
        let mut child = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context(format!("cannot run {what}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // Who does not read its input (genkey) closes it: no error of ours.
            let _ = stdin.write_all(format!("{input}\n").as_bytes());
        }
        let output = child
            .wait_with_output()
            .context(format!("cannot run {what}"))?;
        let key = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() && !key.is_empty() {
            Ok(key)
        } else {
            Err(Error::failed(format!(
                "{what} gave no key ({})",
                output.status
            )))
        }
    }
}

impl Portal {
    /// SIGTERM, and its orderly end.
    pub fn stop(mut self) -> Result<ExitStatus, Error> {
        let status = self.process.terminate(STOP_LIMIT)?;
        if status.success() {
            Ok(status)
        } else {
            Err(self.failed(&format!("ended with {status} after SIGTERM")))
        }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n  ");
        format!("the log of the {} portal ends:\n  {last}", self.side.name())
    }

    fn failed(&self, why: &str) -> Error {
        Error::failed(format!(
            "the {} portal {why}; {}",
            self.side.name(),
            self.last_words()
        ))
    }
}

fn write_secret(path: &Path, text: &str) -> Result<(), Error> {
    let write = || {
        let mut file = File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())
    };
    write().context(format!("cannot write {}", path.display()))
}

/// A directory of ours below the system's temporary one, removed when dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes it; `name` is part of its name.
    pub fn new(name: &str) -> Result<Self, Error> {
        let base = std::env::temp_dir();
        for attempt in 0..1000 {
            let path = base.join(format!(
                "netcombiner-{name}-{}-{attempt}",
                std::process::id()
            ));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).context(format!("cannot make {}", path.display())),
            }
        }
        Err(Error::failed(format!(
            "too many directories of ours in {}",
            base.display()
        )))
    }

    /// Removes those of this name that processes which are gone left behind.
    pub(crate) fn sweep(name: &str) {
        let prefix = format!("netcombiner-{name}-");
        let base = fs::read_dir(std::env::temp_dir());
        for entry in base.into_iter().flatten().flatten() {
            let dir = entry.file_name();
            let owner = dir.to_str().and_then(|dir| dir.strip_prefix(&prefix));
            let owner = owner.and_then(|rest| rest.split_once('-')?.0.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
