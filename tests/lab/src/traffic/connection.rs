//! A TCP connection between two namespaces.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Context, Error};
use crate::net::Namespace;

/// Who sends the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The one that connected.
    Connector,
    /// The one that listened.
    Listener,
}

/// What connection to make. The listener is gone when it is made.
#[derive(Debug, Clone)]
pub struct Connection<'a> {
    /// Where somebody listens.
    pub listener: &'a Namespace,
    /// The address that the listener binds to and the connector connects to; a zero port takes a
    /// free one.
    pub address: SocketAddr,
    /// Where somebody connects from.
    pub connector: &'a Namespace,
    /// The device that the connector's socket is bound to (`SO_BINDTODEVICE`).
    pub device: Option<String>,
    /// Who sends.
    pub sender: Sender,
    /// The congestion control of both sockets; nothing: CUBIC where the kernel has it. A namespace's
    /// default is not relied on: a kernel whose own default is another does not take it.
    pub congestion: Option<&'static str>,
}

/// A handshake that takes longer has failed.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Both ends of a connection.
pub(super) struct Ends {
    pub(super) sender: TcpStream,
    pub(super) receiver: TcpStream,
}

impl<'a> Connection<'a> {
    /// The connector connects to a free port of `address` at the listener.
    pub fn new(
        connector: &'a Namespace,
        listener: &'a Namespace,
        address: Ipv4Addr,
        sender: Sender,
    ) -> Self {
        let address = SocketAddr::from((address, 0));
        Self {
            listener,
            address,
            connector,
            device: None,
            sender,
            congestion: None,
        }
    }

    /// The same with this congestion control of the kernel, e.g. `bbr`.
    pub const fn congestion(mut self, name: &'static str) -> Self {
        self.congestion = Some(name);
        self
    }

    /// The same, the connector's socket bound to a device.
    pub fn bound_to(self, device: &str) -> Self {
        Self {
            device: Some(device.into()),
            ..self
        }
    }

    /// The same at this port.
    pub const fn port(mut self, port: u16) -> Self {
        self.address.set_port(port);
        self
    }

    fn socket(&self) -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        // What a listener accepts has it too.
        match self.congestion {
            Some(name) => socket.set_tcp_congestion(name.as_bytes())?,
            None => socket.set_tcp_congestion(b"cubic").unwrap_or_default(),
        }
        Ok(socket)
    }

    /// Makes it.
    pub(super) fn open(&self) -> Result<Ends, Error> {
        let what = format!(
            "TCP from {} to {} at {}",
            self.connector.name(),
            self.listener.name(),
            self.address
        );
        let listener = self
            .listener
            .run(|| -> std::io::Result<Socket> {
                let socket = self.socket()?;
                socket.set_reuse_address(true)?;
                socket.bind(&self.address.into())?;
                socket.listen(1)?;
                socket.set_read_timeout(Some(CONNECT_LIMIT))?;
                Ok(socket)
            })?
            .context(format!("{what}: cannot listen"))?;
        let bound = listener.local_addr().context(&what)?;
        let connected = self
            .connector
            .run(|| -> std::io::Result<Socket> {
                let socket = self.socket()?;
                if let Some(device) = &self.device {
                    socket.bind_device(Some(device.as_bytes()))?;
                }
                socket.connect_timeout(&bound, CONNECT_LIMIT)?;
                Ok(socket)
            })?
            .context(format!("{what}: cannot connect"))?;
        let (accepted, _) = listener
            .accept()
            .context(format!("{what}: cannot accept"))?;
        let (sender, receiver) = match self.sender {
            Sender::Connector => (connected, accepted),
            Sender::Listener => (accepted, connected),
        };
        Ok(Ends {
            sender: sender.into(),
            receiver: receiver.into(),
        })
    }
}
