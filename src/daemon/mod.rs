//! The only place that joins the tunnel, the sockets, the routing and the host.
//!
//! Two threads: this one (tokio, one thread) holds control: the host's reconciler, names, the
//! control socket, signals. The other one is the packet path (`packet_loop`). They talk by
//! commands and by events, and a packet never waits for control.

mod bulletin;
mod busy;
mod choice;
mod filters;
mod flaps;
mod guard;
mod links;
mod listeners;
mod lists;
mod lock;
mod logger;
mod names;
mod notify;
mod packet_loop;
mod reload;
mod running;
mod settings;
mod sockets;
mod status;
mod strangers;
mod tcp_link;
mod tun_side;
mod tun_thread;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::config::units::{IfName, Mtu};
use crate::config::{Config, ConfigErrors};
use crate::control::{self, Server};
use crate::host::{self, ConvergeError, Group, HostError, Outcome, Reconciler};
use crate::io::entropy::SystemEntropy;
use crate::io::socket::OpenError;
use crate::io::tun::{Tun, TunError};
use crate::route::reach::LockOut;
use crate::route::{Observed, conflicts};
use listeners::Listeners;
use packet_loop::{Command as PacketCommand, News, PacketThread, Start};
use running::{Desired, Hold, Running, Stop};

pub(crate) use listeners::taken;
pub use lock::{Lock, LockError, check_run_dir};
pub use logger::{level_of, start as start_log};
pub(crate) use names::look_up_once;

/// The kernel answers a netlink message within milliseconds, and there are some hundred of them: who
/// is not done by then never will be. Below the 30 s after which `up` gives up.
const HOST_PATIENCE: Duration = Duration::from_secs(10);

/// What the daemon is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration's file.
    pub config: PathBuf,
    /// Where sockets, locks and baselines are.
    pub run_dir: PathBuf,
    /// Start, and take a new configuration, although a login session will be cut off.
    pub force: bool,
}

/// Why the daemon did not start, or ended by itself. The host is as it was before, or the text says
/// what is not.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The configuration has errors.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// The lock is taken or unusable.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The administrator would lock himself out.
    #[error("{0} (or say --force)")]
    LockOut(#[from] LockOut),
    /// A socket could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The TUN could not be made.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The host could not be asked.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The routing could not be set up or given back.
    #[error("routing: {0}")]
    Routing(#[from] ConvergeError),
    /// Something of the process itself failed.
    #[error("{step}: {source}")]
    Process {
        /// What was being done.
        step: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// The packet path ended.
    #[error("{0}")]
    Packets(String),
    /// A bug of ours.
    #[error(
        "the daemon panicked: this is a bug of netcombiner; please report the lines of its log; \
         {0}"
    )]
    Panicked(String),
    /// The kernel did not answer.
    #[error("the kernel does not answer ({0} took over {limit} s)", limit = HOST_PATIENCE.as_secs())]
    HostHangs(&'static str),
    /// Giving the host back failed too.
    #[error("{error}; and not all of the host's routing could be given back: {restore}")]
    NotRestored {
        /// What came first.
        error: Box<Self>,
        /// Why the host is not as before.
        restore: Box<Self>,
    },
}

impl DaemonError {
    fn process(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Process { step, source }
    }
}

/// Runs a tunnel until it is told to stop. `ready` is called once, when the TUN is up and the
/// routing is programmed.
///
/// # Errors
/// See [`DaemonError`]. Whatever it is, the routing is given back first, also what a killed instance
/// left behind; unless the device could not even be made, or after a panic in a build that aborts
/// (routers'), which leaves the host as a SIGKILL does.
pub fn run(options: &Options, ready: impl FnOnce()) -> Result<(), DaemonError> {
    let (config, warnings) = Config::read(&options.config)?;
    for warning in warnings {
        log::warn!("{warning}");
    }
    let _lock = Lock::take(&options.run_dir, config.name.as_str())?;
    let name = config.name.clone();
    let runtime = start_runtime()?;
    let served = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(serve(options, config, ready))
    }));
    let result = served.unwrap_or_else(|_| Err(give_back_after_panic(options, &name)));
    // A name that is being looked up sits in getaddrinfo, for minutes when DNS is dead: nobody
    // waits for it.
    runtime.shutdown_background();
    result
}

fn start_runtime() -> Result<Runtime, DaemonError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::process("cannot start"))
}

/// What was in the middle of something is not to be trusted: the host is given back as after a
/// killed instance.
fn give_back_after_panic(options: &Options, name: &IfName) -> DaemonError {
    let restored = start_runtime().and_then(|runtime| {
        let result = runtime.block_on(async {
            let mut hold = Reconciler::open(host::System::open()?, name, &options.run_dir)?;
            give_back(&mut hold).await
        });
        runtime.shutdown_background();
        result
    });
    DaemonError::Panicked(match restored {
        Ok(()) => "the host is as it was before".to_owned(),
        Err(error) => format!("not all of the host's routing could be given back: {error}"),
    })
}

/// Gives the host back, in bounded time.
async fn give_back(hold: &mut Hold) -> Result<(), DaemonError> {
    let outcome = timeout(HOST_PATIENCE, hold.stop())
        .await
        .map_err(|_| DaemonError::HostHangs("giving the host back"))??;
    for operation in &outcome.executed {
        log::debug!("{operation}");
    }
    Ok(())
}

/// The error of a start, after the host has been given back.
async fn failed(hold: &mut Hold, error: DaemonError) -> DaemonError {
    match give_back(hold).await {
        Ok(()) => error,
        Err(restore) => DaemonError::NotRestored {
            error: Box::new(error),
            restore: Box::new(restore),
        },
    }
}

async fn serve(options: &Options, config: Config, ready: impl FnOnce()) -> Result<(), DaemonError> {
    let stop = Stop::listen().map_err(DaemonError::process("cannot watch for signals"))?;
    let mut reconciler = Reconciler::open(host::System::open()?, &config.name, &options.run_dir)?;
    let mut observed = timeout(HOST_PATIENCE, reconciler.links())
        .await
        .map_err(|_| DaemonError::HostHangs("asking for the links"))??;
    observed.sockets = guard::sockets_at_risk(&config);
    guard::may_start(options, &config, &observed)?;
    for warning in conflicts(&config, &observed) {
        log::warn!("{warning}");
    }
    observed.sockets.clear();

    let mtu = settings::mtu(&config);
    // While somebody else has a device of this name, nothing is touched. From here on whatever
    // fails gives the host back, for a killed instance may have left something behind.
    let tun = Tun::open(&config.name, mtu, config.offload, config.carries_v6())?;
    let name = config.name.clone();
    let tun = (tun, mtu);
    let result = serve_tunnel(options, config, tun, reconciler, observed, stop, ready).await;
    // Its descriptor is closed by now, unless the packet thread hangs.
    match Tun::remove(&name) {
        Ok(()) => result,
        Err(source) => {
            log::warn!("the device {name} stays: {source}");
            result.and(Err(DaemonError::Process {
                step: "cannot remove the device",
                source,
            }))
        }
    }
}

/// Serves with an open TUN, which is closed in the end.
async fn serve_tunnel(
    options: &Options,
    config: Config,
    (tun, mtu): (Tun, Mtu),
    mut reconciler: Hold,
    observed: Observed,
    stop: Stop,
    ready: impl FnOnce(),
) -> Result<(), DaemonError> {
    let (events_out, events) = mpsc::channel(bulletin::CHANNEL);
    let (packets, listening, listeners) = match start_packets(&config, mtu, tun, events_out) {
        Ok(started) => started,
        Err(error) => return Err(failed(&mut reconciler, error).await),
    };
    let (asked_out, asked) = mpsc::channel(8);
    let socket = control::socket_path(&options.run_dir, config.name.as_str());
    let desired = Desired::new(&config);
    let started = match Server::start(&socket, asked_out) {
        Ok(server) => set_up(&mut reconciler, &desired.state(&observed))
            .await
            .map(|outcome| (server, outcome)),
        Err(error) => Err(DaemonError::process("cannot open the control socket")(
            error,
        )),
    };
    let (server, outcome) = match started {
        Ok(started) => started,
        Err(error) => {
            let error = failed(&mut reconciler, error).await;
            // The first error is the one to tell; the TUN goes with the thread.
            let _ = packets.stop().await;
            return Err(error);
        }
    };
    for operation in &outcome.executed {
        log::debug!("{operation}");
    }
    // Nobody comes through the tunnel before the packet filter stands.
    for command in listening {
        packets.tell(command);
    }

    let running = Running::new(
        options,
        config,
        mtu,
        (packets, listeners),
        desired,
        observed,
    );
    log::info!("{} is up", running.name());
    notify::notify("READY=1");
    ready();
    let result = running.serve(reconciler, stop, events, asked).await;
    drop(server);
    result
}

/// Sets the host up for the first time. Without the tunnel's own part there is no start; a link or a
/// client that the kernel refuses is tried again later.
async fn set_up(hold: &mut Hold, desired: &host::Desired) -> Result<Outcome, DaemonError> {
    let applied = timeout(HOST_PATIENCE, host::Hold::apply(hold, desired))
        .await
        .map_err(|_| DaemonError::HostHangs("setting up the routing"));
    let mut outcome = applied??;
    let of_tunnel = |(group, _): &(Group, ConvergeError)| *group == Group::Tunnel;
    if let Some(place) = outcome.failed.iter().position(of_tunnel) {
        return Err(outcome.failed.swap_remove(place).1.into());
    }
    for (_, error) in &outcome.failed {
        log::warn!("routing: {error}");
    }
    Ok(outcome)
}

/// Starts the packet thread, and opens the sockets where peers are waited for. The thread does not have
/// these yet: the commands that are returned hand them over.
fn start_packets(
    config: &Config,
    mtu: Mtu,
    tun: Tun,
    events: mpsc::Sender<News>,
) -> Result<(PacketThread, Vec<PacketCommand>, Listeners), DaemonError> {
    let (listening, waiting) = Listeners::open(config)?;
    let entropy = SystemEntropy::new().map_err(DaemonError::process("no randomness"))?;
    let packets = PacketThread::spawn(Start {
        tun,
        offload: config.offload,
        threads: settings::threads(config),
        config: settings::tunnel_config(config, mtu),
        entropy: Box::new(entropy),
        events,
    })
    .map_err(DaemonError::process("cannot start the packet thread"))?;
    Ok((packets, listening, waiting))
}
