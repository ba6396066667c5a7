//! A UDP service that says everything back.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Context, Error};
use crate::net::Namespace;

/// Runs until dropped.
#[derive(Debug)]
pub struct UdpEcho {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpEcho {
    /// Echoes at an address of a namespace; a zero port takes a free one.
    pub fn start(namespace: &Namespace, address: Ipv4Addr, port: u16) -> Result<Self, Error> {
        let what = format!("UDP echo at {address}:{port} in {}", namespace.name());
        let socket = namespace
            .run(|| UdpSocket::bind((address, port)))?
            .context(&what)?;
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .context(&what)?;
        let address = socket.local_addr().context(&what)?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut buffer = [0; 2048];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                        let _ = socket.send_to(&buffer[..length], from);
                    }
                }
            }
        });
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
