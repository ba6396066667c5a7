//! Processes inside a namespace that cannot outlive us.
#![expect(
    unsafe_code,
    reason = "pre_exec is unsafe: its closures run between fork and exec"
)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::Namespace;
use crate::clock::now;
use crate::error::{Context, Error};

/// The environment variable that marks every process of the lab, so that a grandchild is found
/// even when its parent is gone. Its value: [`mark`].
pub(super) const MARK: &str = "NETCOMBINER_LAB_PROCESS";

/// What marks a process that this process started in the namespace with this inode.
pub(super) fn mark(inode: u64) -> String {
    format!("{}:{inode}", std::process::id())
}

/// A running process of the lab; killed when dropped, and by the kernel when we die.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts a program inside a namespace, in a process group of its own (a Ctrl-C at the
    /// terminal is ours to handle).
    pub fn spawn(namespace: &Namespace, mut command: Command) -> Result<Self, Error> {
        let name = command.get_program().to_string_lossy().into_owned();
        let parent = std::process::id();
        let namespace = namespace.clone();
        command.env(MARK, mark(namespace.inode()?)).process_group(0);
        let prepare = move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            // Signals that we wait for in a thread are blocked here; the child takes them as usual.
            SigSet::empty().thread_set_mask()?;
            set_pdeathsig(Signal::SIGKILL)?;
            // Had we died before the line above, the kernel would not tell the child any more.
            if nix::unistd::getppid().as_raw() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes system calls only; it neither allocates
        // nor locks, so it is safe in a child of a process with several threads.
        unsafe { command.pre_exec(prepare) };
        let child = spawn_from_lasting_thread(command).context(format!("cannot start {name}"))?;
        Ok(Self { name, child })
    }

    /// The program that was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub const fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, or `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).context(format!("cannot send {signal} to {}", self.name))
    }

    /// Waits until it ends, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        let start = now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if start.elapsed() > limit {
                return Err(Error::failed(format!(
                    "{} (process {}) did not end within {limit:?}",
                    self.name,
                    self.id()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, then waits; what does not end within `limit` is killed, and that is an error.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        let result = self.wait(limit);
        if result.is_err() {
            self.kill();
        }
        result
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

type Order = (Command, Sender<io::Result<Child>>);

/// The kernel sends the parent-death signal when the *thread* that forked ends: one thread that
/// lasts as long as we do starts all processes.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, receiver) = channel::<Order>();
        std::thread::spawn(move || {
            while let Ok((mut command, answer)) = receiver.recv() {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, result) = channel();
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .map_err(|_| io::Error::other("the thread that starts processes is gone"))?;
    result.recv().map_err(gone)?
}
