//! The only place that joins the tunnel, the sockets, the routing and the host.
//!
//! Two threads: this one (tokio, one thread) holds control: the host's reconciler, names, the
//! control socket, signals. The other one is the packet path ([`packet_loop`]). They talk by
//! commands and by events, and a packet never waits for control.

mod links;
mod lock;
mod logger;
mod notify;
mod packet_loop;
mod resolve;
mod running;
mod settings;
mod sockets;
mod status;
mod tcp_link;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;
use tokio::sync::mpsc;

use crate::config::units::Family;
use crate::config::{Config, ConfigErrors, Listen, Transport};
use crate::control::{self, Server};
use crate::host::listeners::ssh_session;
use crate::host::{self, ConvergeError, HostError, Reconciler};
use crate::io::entropy::SystemEntropy;
use crate::io::socket::{OpenError, any_address};
use crate::io::tcp::TcpListener;
use crate::io::tun::{Tun, TunError};
use crate::io::udp::UdpSocket;
use crate::route::reach::is_cut;
use packet_loop::{Command, PacketThread, Start};
use running::{Desired, Running, Stop};

pub use lock::{Lock, LockError};
pub use logger::{level_of, start as start_log};

/// What the daemon is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration's file.
    pub config: PathBuf,
    /// Where sockets, locks and baselines are.
    pub run_dir: PathBuf,
    /// Start although the ssh session that this is started from will be cut off.
    pub force: bool,
}

/// The ssh session that would be lost: where it ends on this host.
#[derive(Debug, Clone, Copy, Error)]
#[error(
    "the ssh session of this very shell comes in at {0}, which would go to the client: add \
     \"tcp:{port}\" to keep",
    port = .0.port()
)]
pub struct CutOff(pub SocketAddr);

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
    CutOff(#[from] CutOff),
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
/// See [`DaemonError`]. Whatever it is, the routing is given back first.
pub fn run(options: &Options, ready: impl FnOnce()) -> Result<(), DaemonError> {
    let (config, warnings) = Config::read(&options.config)?;
    for warning in warnings {
        log::warn!("{warning}");
    }
    if let Some(session) = ssh_session()
        && is_cut(&config, session)
        && !options.force
    {
        return Err(CutOff(session).into());
    }
    let _lock = Lock::take(&options.run_dir, config.name.as_str())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::process("cannot start"))?;
    runtime.block_on(serve(options, config, ready))
}

async fn serve(options: &Options, config: Config, ready: impl FnOnce()) -> Result<(), DaemonError> {
    let stop = Stop::listen().map_err(DaemonError::process("cannot watch for signals"))?;
    let mut reconciler = Reconciler::open(host::System::open()?, &config.name, &options.run_dir)?;
    let observed = reconciler.links().await?;

    // All that may fail comes before the routing is touched.
    let listening = listen(&config)?;
    let mtu = settings::mtu(&config, &observed);
    let entropy = SystemEntropy::new().map_err(DaemonError::process("no randomness"))?;
    let (events_out, events) = mpsc::unbounded_channel();
    let packets = PacketThread::spawn(Start {
        tun: Tun::open(&config.name, mtu)?,
        mtu,
        config: settings::tunnel_config(&config, mtu),
        entropy: Box::new(entropy),
        events: events_out,
    })
    .map_err(DaemonError::process("cannot start the packet thread"))?;
    for command in listening {
        packets.tell(command);
    }
    let (asked_out, asked) = mpsc::channel(8);
    let socket = control::socket_path(&options.run_dir, config.name.as_str());
    let server = Server::start(&socket, asked_out)
        .map_err(DaemonError::process("cannot open the control socket"));

    let desired = Desired::new(&config);
    let applied = match &server {
        Ok(_) => reconciler
            .apply(&desired.state(&observed))
            .await
            .map_err(DaemonError::from),
        Err(_) => Ok(host::Outcome::default()),
    };
    let started = server.and_then(|server| applied.map(|outcome| (server, outcome)));
    let (server, outcome) = match started {
        Ok(started) => started,
        Err(error) => {
            packets.tell(Command::Stop);
            // The first error is the one to tell; the TUN goes with the thread.
            let _ = packets.join();
            return Err(error);
        }
    };
    for operation in &outcome.executed {
        log::debug!("{operation}");
    }

    let running = Running::new(options, config, mtu, packets, desired, observed);
    log::info!("{} is up", running.name());
    notify::notify("READY=1");
    ready();
    let result = running.serve(reconciler, stop, events, asked).await;
    drop(server);
    result
}

/// The sockets where peers are waited for. Without an address there is one of each family; a host
/// without IPv6 has only the first.
fn listen(config: &Config) -> Result<Vec<Command>, OpenError> {
    let mut commands = Vec::new();
    for &Listen {
        transport,
        address,
        port,
    } in &config.listen
    {
        let open = |address| {
            let place = SocketAddr::new(address, port);
            Ok(match transport {
                Transport::Udp => Command::ListenUdp(UdpSocket::listen(place)?),
                Transport::Tcp => Command::ListenTcp(TcpListener::listen(place)?),
            })
        };
        let Some(address) = address else {
            commands.push(open(any_address(Family::V4))?);
            match open(any_address(Family::V6)) {
                Ok(command) => commands.push(command),
                Err(error) if error.is_family_missing() => {
                    log::debug!("no IPv6 on this host: {error}");
                }
                Err(error) => return Err(error),
            }
            continue;
        };
        commands.push(open(address)?);
    }
    Ok(commands)
}
