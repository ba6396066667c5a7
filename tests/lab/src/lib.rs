//! The test lab of netcombiner: the dissertation's figure 4.1 in network namespaces, links
//! emulated in user space, real TCP, UDP and ICMP traffic, and the real `netcombiner` binary.
//!
//! ```no_run
//! use netcombiner_lab::prelude::*;
//! # fn main() -> Result<(), Error> {
//! // Root or a user namespace, /dev/net/tun; else Error::Lacking says what is missing.
//! net::enter()?;
//! let lab = Lab::start(&LabSpec::new(vec![
//!     LinkSpec::symmetric(20.0, 15), // Mbit/s, round trip in ms
//!     LinkSpec::symmetric(10.0, 40),
//! ]))?;
//! let dir = TempDir::new("test")?;
//! let program = std::path::Path::new("target/debug/netcombiner");
//! let portals = lab.portal_configs(program, dir.path(), &ConfigOptions::default())?;
//! let before = net::host_state(&lab.remote)?;
//! let remote = lab.start_portal(&portals, Side::Remote)?;
//! let local = lab.start_portal(&portals, Side::Local)?;
//!
//! let ms = Duration::from_millis;
//! assert!(Probe::ping(&lab.client, SERVER, ms(50), 10)?.finish().answered > 0);
//! // The server sends to the client; the client connects.
//! let down = Connection::new(&lab.client, &lab.server, SERVER, Sender::Listener);
//! let flow = Flow::start(&down, ms(5000))?;
//! lab.emulator.set_outage(0, Outage::Drop);
//! println!("{:.1} Mbit/s", flow.finish()?.mbps());
//! transfer(&down, 1_000_000, ms(5000))?; // every byte is checked
//!
//! local.stop()?; // SIGTERM; `kill()` is SIGKILL
//! remote.stop()?;
//! assert_eq!(before.differences(&net::host_state(&lab.remote)?), [""; 0]);
//! assert_eq!(lab.stop()?.count(), 0);
//! # Ok(()) }
//! ```
//!
//! Everything hangs on file descriptors and on this process: when it dies, even by SIGKILL,
//! nothing is left. Several labs may run at once, also in one process.
//!
//! - [`net`]: [`net::Namespace`] (run a closure inside, sysctls, a netlink socket),
//!   [`net::Process`], [`net::host_state`], [`net::Watch`].
//! - [`emulator`]: the pure [`emulator::link`] and the thread that moves the frames.
//! - [`topology`]: the lab and its addresses. [`portal`]: `netcombiner` in it.
//! - [`cases`]: the cases that the simulator and the benchmark both run; [`mod@bench`]: the latter.
//! - [`throughput`]: how fast the data path is beside its peers, over links without a shape.
//! - [`usage`]: a process's memory and wake-ups; [`idle`]: those of daemons that rest.
//! - [`traffic`]: [`traffic::Flow`], [`traffic::transfer`], [`traffic::Probe`],
//!   [`traffic::UdpEcho`], [`traffic::Voice`].

pub mod bench;
pub mod cases;
pub mod clock;
pub mod demo;
pub mod emulator;
pub mod error;
pub mod idle;
mod machine;
pub mod net;
pub mod portal;
pub mod throughput;
pub mod topology;
pub mod traffic;
pub mod usage;

/// What a test needs most.
pub mod prelude {
    pub use std::time::Duration;

    pub use crate::emulator::{Aqm, Direction, EcnFault, GilbertElliott, Loss, Outage, Shape};
    pub use crate::error::Error;
    pub use crate::net::{self, Namespace, Process, host_state};
    pub use crate::portal::{ConfigOptions, Portal, Portals, Side, TempDir, run};
    pub use crate::topology::{
        CLIENT_GATEWAY, Lab, LabSpec, LinkSpec, PORT, PUBLIC, PUBLIC_GATEWAY, SERVER,
        SERVER_GATEWAY,
    };
    pub use crate::traffic::{
        Connection, Flow, FlowReport, Probe, Probes, Sender, UdpEcho, transfer,
    };
}
