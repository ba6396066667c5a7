//! A TCP transfer whose every byte is checked.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::connection::Connection;
use crate::clock::Clock;
use crate::emulator::Rng;
use crate::error::{Context, Error};

/// Bytes made and compared at once.
const CHUNK: usize = 65_536;

/// Sends so many pseudo-random bytes, compares each at the other end, and gives the time it took.
/// A wrong, missing or superfluous byte is an error, and so is a pause of more than `limit`.
pub fn transfer(
    connection: &Connection<'_>,
    bytes: u64,
    limit: Duration,
) -> Result<Duration, Error> {
    let ends = connection.open()?;
    let clock = Clock::start();
    for end in [&ends.sender, &ends.receiver] {
        end.set_read_timeout(Some(limit))
            .context("cannot set a time-out")?;
        end.set_write_timeout(Some(limit))
            .context("cannot set a time-out")?;
    }
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(&ends.sender, bytes));
        let received = receive(&ends.receiver, bytes);
        if received.is_err() {
            // So that the sender does not wait for somebody who has given up.
            let _ = ends.receiver.shutdown(Shutdown::Both);
        }
        let sent = sender
            .join()
            .unwrap_or_else(|_| Err(Error::failed("the sender panicked")));
        received.and(sent)
    })?;
    Ok(clock.read())
}

fn send(mut stream: &TcpStream, bytes: u64) -> Result<(), Error> {
    let mut content = Content::new();
    let mut left = bytes;
    while left > 0 {
        let chunk = content.next(left);
        let at = bytes - left;
        stream
            .write_all(chunk)
            .context(format!("cannot send after {at} bytes"))?;
        left -= chunk.len() as u64;
    }
    stream
        .shutdown(Shutdown::Write)
        .context("cannot end the transfer")
}

fn receive(mut stream: &TcpStream, bytes: u64) -> Result<(), Error> {
    let mut content = Content::new();
    let mut buffer = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let expected = content.next(left);
        let got = &mut buffer[..expected.len()];
        let at = bytes - left;
        stream.read_exact(got).context(format!(
            "the transfer of {bytes} bytes broke within {CHUNK} after {at}"
        ))?;
        if let Some(wrong) = got.iter().zip(expected).position(|(a, b)| a != b) {
            return Err(Error::failed(format!(
                "byte {} is wrong",
                at + wrong as u64
            )));
        }
        left -= expected.len() as u64;
    }
    match stream
        .read(&mut buffer)
        .context("cannot read the end of the transfer")?
    {
        0 => Ok(()),
        more => Err(Error::failed(format!("{more} bytes too many"))),
    }
}

/// The same bytes at both ends.
struct Content {
    rng: Rng,
    chunk: Vec<u8>,
}

impl Content {
    fn new() -> Self {
        Self {
            rng: Rng::new(4725),
            chunk: vec![0; CHUNK],
        }
    }

    fn next(&mut self, left: u64) -> &[u8] {
        for word in self.chunk.chunks_exact_mut(8) {
            word.copy_from_slice(&self.rng.bits().to_le_bytes());
        }
        let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        &self.chunk[..length]
    }
}
