//! Datagrams as fast as one sender can, one system call each, as programs send them; and who counts
//! what arrives. iperf3 is no help here: what it skips of the start (`-O`) it does not skip of its
//! losses, and where the receiver starves, its figures are of different seconds.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::pair::Pair;
use crate::error::{Context, Error};
use crate::portal::Side;

/// The kernel's memory for datagrams that wait for the receiver, where the machine allows it:
/// 4 MiB are 5,000 small ones, or 20 ms. The default 208 KiB would measure the scheduler.
const BUFFER: usize = 4 << 20;

/// How often the receiver looks whether it is over.
const LOOK: Duration = Duration::from_millis(50);

/// A flood from the local to the remote host; over when it is dropped.
#[derive(Debug)]
pub(super) struct Flood {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    sent: AtomicUsize,
    received: AtomicUsize,
}

/// Datagrams sent and received so far, or in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sent: usize,
    pub(super) received: usize,
}

impl Counts {
    /// Those between an earlier reading and this.
    pub(super) const fn since(self, earlier: Self) -> Self {
        Self {
            sent: self.sent.wrapping_sub(earlier.sent),
            received: self.received.wrapping_sub(earlier.received),
        }
    }

    /// Share of the sent that did not arrive.
    pub(super) fn lost(self) -> f64 {
        // A few that were sent before may arrive in this stretch.
        1.0 - self.received.min(self.sent) as f64 / self.sent.max(1) as f64
    }
}

impl Flood {
    /// Starts it to an address of the remote host, with so many bytes of payload each.
    pub(super) fn start(pair: &Pair, to: IpAddr, payload: u32) -> Result<Self, Error> {
        let open = || -> std::io::Result<Socket> {
            let socket = Socket::new(
                Domain::for_address((to, 0).into()),
                Type::DGRAM,
                Some(Protocol::UDP),
            )?;
            // A smaller one is no reason to stop.
            let _ = socket.set_recv_buffer_size(BUFFER);
            let _ = socket.set_send_buffer_size(BUFFER);
            Ok(socket)
        };
        let receiver = || -> std::io::Result<Socket> {
            let socket = open()?;
            socket.set_read_timeout(Some(LOOK))?;
            socket.bind(&SocketAddr::from((to, 0)).into())?;
            Ok(socket)
        };
        let receiver = pair.host(Side::Remote).run(receiver)?;
        let receiver = receiver.context(format!("cannot wait for datagrams at {to}"))?;
        let place = receiver.local_addr().context("where do we wait")?;
        let sender = || -> std::io::Result<Socket> {
            let socket = open()?;
            socket.connect(&place)?;
            Ok(socket)
        };
        let sender = pair.host(Side::Local).run(sender)?;
        let sender = sender.context(format!("cannot send datagrams to {to}"))?;

        let shared = Arc::new(Shared::default());
        let mut flood = Self {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
        };
        let copy = Arc::clone(&shared);
        let length = payload as usize;
        flood.thread("udp receiver", move || receive(receiver, length, &copy))?;
        flood.thread("udp sender", move || send(&sender, length, &shared))?;
        Ok(flood)
    }

    /// What was sent and received so far.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            sent: self.shared.sent.load(Ordering::Relaxed),
            received: self.shared.received.load(Ordering::Relaxed),
        }
    }

    fn thread(&mut self, name: &str, f: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(f);
        self.threads.push(thread.context("cannot start a thread")?);
        Ok(())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn send(socket: &Socket, length: usize, shared: &Shared) {
    let datagram = vec![0x5a; length];
    while !shared.over.load(Ordering::Relaxed) {
        // What the kernel refuses was not sent.
        if socket.send(&datagram).is_ok() {
            shared.sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn receive(socket: Socket, length: usize, shared: &Shared) {
    let socket = std::net::UdpSocket::from(socket);
    let mut datagram = vec![0; length + 1];
    while !shared.over.load(Ordering::Relaxed) {
        // Nothing else knows this port; what is not whole is not counted.
        if socket.recv(&mut datagram).is_ok_and(|got| got == length) {
            shared.received.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost() {
        let counts = |sent, received| Counts { sent, received };
        assert_eq!(counts(50, 30).since(counts(10, 0)), counts(40, 30));
        assert!((counts(40, 30).lost() - 0.25).abs() < 1e-9);
        assert!(counts(40, 41).lost().abs() < 1e-9);
        assert!(counts(0, 0).lost().is_finite());
    }
}
