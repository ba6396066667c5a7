//! TCP conversations in which every answer says who gave it and to whom.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use netcombiner_lab::error::Context;
use netcombiner_lab::prelude::*;
use socket2::{Domain, Protocol, Socket, Type};

use super::case::{Outcome, PATIENCE};
use super::kernel::sh;

/// How long an answer may take: a lost link and the TCP retransmissions after it.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);

/// A service that answers each line with its own name, the address of who asks, and the line.
/// Runs until dropped.
pub(crate) struct Answers {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Answers {
    /// At an address of a namespace; a zero port takes a free one.
    pub(crate) fn start(
        namespace: &Namespace,
        address: impl Into<IpAddr>,
        port: u16,
    ) -> Result<Self, Error> {
        let address = SocketAddr::new(address.into(), port);
        let what = format!("a service at {address} in {}", namespace.name());
        let listener: TcpListener = namespace
            .run(|| -> io::Result<Socket> {
                let domain = Domain::for_address(address);
                let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                socket.bind(&address.into())?;
                socket.listen(64)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })?
            .context(&what)?
            .into();
        let address = listener.local_addr().context(&what)?;
        let stop = Arc::new(AtomicBool::new(false));
        let name = namespace.name().to_owned();
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, from)) => {
                            let name = name.clone();
                            // Ends with its connection.
                            std::thread::spawn(move || answer(&stream, &name, from.ip()));
                        }
                        Err(_) => std::thread::sleep(Duration::from_millis(5)),
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
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn answer(stream: &TcpStream, name: &str, from: IpAddr) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    for line in BufReader::new(stream).lines() {
        (&*stream).write_all(format!("{name} to {from}: {}\n", line?).as_bytes())?;
    }
    Ok(())
}

/// The other end: one connection that is used again and again.
pub(crate) struct Talk {
    stream: BufReader<TcpStream>,
    said: u32,
}

impl Talk {
    /// Connects from a namespace.
    pub(crate) fn open(from: &Namespace, to: SocketAddr) -> Result<Self, Error> {
        Self::open_within(from, to, ANSWER_LIMIT)
    }

    /// Connects within a time.
    pub(crate) fn open_within(
        from: &Namespace,
        to: SocketAddr,
        limit: Duration,
    ) -> Result<Self, Error> {
        let what = format!("TCP from {} to {to}", from.name());
        let open = || -> io::Result<TcpStream> {
            let stream = TcpStream::connect_timeout(&to, limit)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(limit))?;
            Ok(stream)
        };
        let stream = from.run(open)?.context(what)?;
        Ok(Self {
            stream: BufReader::new(stream),
            said: 0,
        })
    }

    /// Says something new and gives what is answered before it: `server to 203.0.113.2`.
    pub(crate) fn ask(&mut self) -> Result<String, Error> {
        self.say()?;
        self.hear()
    }

    /// Says something new.
    pub(crate) fn say(&mut self) -> Result<(), Error> {
        self.said += 1;
        let line = format!("line {}\n", self.said);
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .context(format!("cannot say {line:?}"))
    }

    /// Waits for the answer to what was said last.
    pub(crate) fn hear(&mut self) -> Result<String, Error> {
        let line = format!("line {}", self.said);
        let mut answer = String::new();
        self.stream
            .read_line(&mut answer)
            .context(format!("no answer to {line:?}"))?;
        match answer.trim_end().split_once(": ") {
            Some((who, said)) if said == line => Ok(who.to_owned()),
            _ => Err(Error::failed(format!("{line:?} was answered {answer:?}"))),
        }
    }
}

/// The server's link becomes smaller than the packets of its connection, and [`Answers`] at the other end
/// still answers a line that takes many of them.
pub(crate) fn answered_over_a_smaller_link(lab: &Lab, mut stream: &TcpStream) -> Outcome {
    sh(&lab.server, "ip link set eth0 mtu 1300")?;
    sh(&lab.internet, "ip link set server mtu 1300")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let line = "x".repeat(20_000);
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    assert!(answer.trim_end().ends_with(&line), "{}", answer.len());
    Ok(())
}

/// How long a connection may take that is expected not to come about.
const CLOSED_LIMIT: Duration = Duration::from_secs(2);

/// Whether a TCP port can be connected to.
pub(crate) fn is_open(from: &Namespace, to: impl Into<IpAddr>, port: u16) -> bool {
    Talk::open_within(from, SocketAddr::new(to.into(), port), CLOSED_LIMIT).is_ok()
}

/// Somebody who makes a new connection each 50 ms, and beside it uses one that lasts, until asked
/// how it went.
pub(crate) struct Steady {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Report>>,
}

/// How it went.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Connections that were made and answered.
    pub(crate) good: u32,
    /// What did not work, in words.
    pub(crate) bad: Vec<String>,
}

/// A new connection or an answer takes a round trip; one retransmission (1 s) is a loss that the
/// caller should hear of.
const PROMPT: Duration = Duration::from_millis(900);

impl Steady {
    /// Begins; every answer must begin with `expected`.
    pub(crate) fn start(
        from: &Namespace,
        to: SocketAddr,
        expected: &'static str,
    ) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut lasting = Talk::open(from, to)?;
        let from = from.clone();
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut report = Report::default();
                let mut note = |what: &str, answer: Result<String, Error>| match answer {
                    Ok(who) if who.starts_with(expected) => report.good += 1,
                    Ok(who) => report.bad.push(format!("{what}: {who} answered")),
                    Err(error) => report.bad.push(format!("{what}: {error}")),
                };
                while !stop.load(Ordering::Relaxed) {
                    note("lasting", lasting.ask());
                    let new = Talk::open_within(&from, to, PROMPT);
                    note("new", new.and_then(|mut talk| talk.ask()));
                    std::thread::sleep(Duration::from_millis(50));
                }
                report
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends it. An error if anything did not work, or nothing was tried.
    pub(crate) fn finish(mut self) -> Result<u32, Error> {
        self.stop.store(true, Ordering::Relaxed);
        let report = self
            .thread
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default();
        if report.bad.is_empty() && report.good > 0 {
            Ok(report.good)
        } else {
            Err(Error::failed(format!("not steady: {report:#?}")))
        }
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
