//! `show` for people, in the layout of wg.

use std::fmt::Write as _;

use super::status::{
    DeviceStatus, LinkStatus, Offloads, PathStatus, Portal, Repair, Status, ecn_words, state_word,
};
use super::units::{bytes, duration, rate};
use crate::config::units::fixed;
use crate::plain::plain_lines;

/// The text of one tunnel. Ends with a line feed.
pub(super) fn pretty(status: &Status) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = tunnel(&mut out, status);
    for link in &status.links {
        let _ = self::link(&mut out, link);
    }
    for path in &status.paths {
        let _ = writeln!(out, "\npath: {}", path.path);
        let _ = self::path(&mut out, path);
    }
    plain_lines(&out)
}

fn tunnel(out: &mut String, status: &Status) -> std::fmt::Result {
    let role = match status.role {
        Portal::Local => "local",
        Portal::Remote => "remote",
    };
    writeln!(out, "interface: {}", status.interface)?;
    writeln!(out, "  role: {role}")?;
    writeln!(out, "  public key: {}", status.public_key)?;
    writeln!(out, "  private key: (hidden)")?;
    match &status.cipher {
        Some(cipher) => writeln!(out, "  security: {} ({cipher})", status.security)?,
        None => writeln!(out, "  security: {}", status.security)?,
    }
    if !status.listening.is_empty() {
        writeln!(out, "  listening: {}", status.listening.join(", "))?;
    }
    writeln!(
        out,
        "  public address: {}",
        status.public_addresses.join(", ")
    )?;
    write!(out, "  mtu: {}", status.mtu)?;
    if status.mtu < status.mtu_most {
        write!(out, " (of {})", status.mtu_most)?;
    }
    writeln!(out)?;
    writeln!(out, "  offloads: {}", offloads(&status.offloads))?;
    writeln!(out, "  packet threads: {}", status.threads)?;
    if let Some(error) = &status.routing_error {
        writeln!(out, "  routing: {error}")?;
    }
    for text in &status.awaited {
        writeln!(out, "  waits: {text}")?;
    }
    for filter in &status.filters {
        writeln!(out, "  packet filter: {filter}")?;
    }
    writeln!(out, "\npeer: {}", status.peer)?;
    match status.latest_handshake_s {
        Some(age) => writeln!(out, "  latest handshake: {} ago", duration(age))?,
        None => writeln!(out, "  latest handshake: (none yet)")?,
    }
    writeln!(
        out,
        "  transfer: {} received, {} sent",
        bytes(status.traffic.bytes_out),
        bytes(status.traffic.bytes_in)
    )?;
    if status.queue_packets > 0 {
        writeln!(
            out,
            "  queue: {} packets, {}",
            status.queue_packets,
            bytes(status.queue_bytes as u64)
        )?;
    }
    let Repair {
        sent,
        twice,
        given_up,
        copies,
        parities,
        recovered,
        overdue,
    } = status.repair;
    if status.repair != Repair::default() {
        let counts = [
            (sent, "sent again"),
            (twice, "sent twice at once"),
            (given_up, "given up"),
            (copies, "received twice"),
            (parities, "parities sent"),
            (recovered, "recovered by parity"),
            (overdue, "waited for and not received"),
        ];
        let counts: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        writeln!(out, "  repair: {}", counts.join(", "))?;
    }
    if !status.discards.is_empty() {
        let causes: Vec<String> = status
            .discards
            .iter()
            .map(|(cause, count)| format!("{count} {}", cause.replace('_', " ")))
            .collect();
        writeln!(out, "  discarded: {}", causes.join(", "))?;
    }
    Ok(())
}

/// `tun tso+uso, udp gso 64 gro`.
fn offloads(offloads: &Offloads) -> String {
    let tun = match (offloads.tun_tcp, offloads.tun_udp) {
        (true, true) => "tso+uso",
        (true, false) => "tso",
        (false, true) => "uso",
        (false, false) => "none",
    };
    let mut text = format!("tun {tun}");
    if let Some((gso, gro)) = offloads.udp_gso.zip(offloads.udp_gro) {
        let gso = (gso > 1).then(|| format!(" gso {gso}"));
        let gro = (gro > 1).then_some(" gro");
        let none = (gso.is_none() && gro.is_none()).then_some(" none");
        for part in [Some(", udp"), gso.as_deref(), gro, none] {
            text.push_str(part.unwrap_or_default());
        }
    }
    text
}

fn link(out: &mut String, link: &LinkStatus) -> std::fmt::Result {
    writeln!(out, "\nlink: {} ({})", link.name, link.device)?;
    let tier = match link.metric {
        0 => String::new(),
        metric => format!(", metric {metric}"),
    };
    match (&link.status, &link.path) {
        (DeviceStatus::Waiting(reason), _) => {
            writeln!(out, "  state: waiting: {reason}")?;
            writeln!(out, "  transport: {}{tier}", link.transport)?;
        }
        (DeviceStatus::Open, None) => {
            writeln!(out, "  state: connecting")?;
            writeln!(out, "  transport: {}{tier}", link.transport)?;
        }
        (DeviceStatus::Open, Some(path)) => {
            writeln!(out, "  transport: {}{tier}", link.transport)?;
            self::path(out, path)?;
        }
    }
    Ok(())
}

fn path(out: &mut String, path: &PathStatus) -> std::fmt::Result {
    writeln!(out, "  state: {}", state_word(path.state))?;
    if let Some(endpoint) = path.endpoint {
        writeln!(out, "  endpoint: {endpoint}")?;
    }
    if let Some(rtt) = path.rtt_ms {
        write!(out, "  rtt: {} ms", fixed(rtt, 1))?;
        if let Some(least) = path.min_rtt_ms {
            write!(out, " (least {} ms)", fixed(least, 1))?;
        }
        writeln!(out)?;
    }
    if let Some(mtu) = path.mtu {
        writeln!(out, "  mtu: {mtu}")?;
    }
    if let Some(ecn) = ecn_words(path.ecn) {
        write!(out, "  ecn: {ecn}")?;
        if path.marked > 0 {
            write!(out, ", {} marked", path.marked)?;
        }
        writeln!(out)?;
    }
    writeln!(out, "  loss: {} %", fixed(path.loss * 100.0, 2))?;
    if let (Some(capacity), Some(queue)) = (path.capacity, path.queue_ms) {
        writeln!(
            out,
            "  capacity: {} to send, queue {} ms",
            rate(capacity),
            fixed(queue, 1)
        )?;
    }
    writeln!(
        out,
        "  rate: {} received, {} sent",
        rate(path.rate_received),
        rate(path.rate_sent)
    )?;
    writeln!(
        out,
        "  transfer: {} received, {} sent",
        bytes(path.bytes_received),
        bytes(path.bytes_sent)
    )
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::{local_example, remote_example};
    use super::*;

    #[test]
    fn a_local_portal() {
        assert_eq!(
            pretty(&local_example()),
            "\
interface: nc0
  role: local
  public key: bG9jYWw=
  private key: (hidden)
  security: encrypt (ChaCha20-Poly1305)
  public address: 203.0.113.2
  mtu: 1359 (of 1400)
  offloads: tun tso+uso, udp gso 64 gro
  packet threads: 2
  routing: table 19 is taken
  waits: there is no device lan yet
  packet filter: chain FORWARD of table ip filter drops all: `nft ..`

peer: cmVtb3Rl
  latest handshake: 1 minute, 12 seconds ago
  transfer: 1.00 MiB received, 2.00 KiB sent
  queue: 3 packets, 4.10 KiB
  repair: 41 sent again, 1 given up, 12 received twice, 7 parities sent, 5 recovered by parity
  discarded: 2 queue full, 1 send failed

link: dsl (wan0)
  transport: udp
  state: up
  endpoint: 203.0.113.2:4725
  rtt: 20.5 ms (least 15.0 ms)
  mtu: 1420
  ecn: in use, 12 marked
  loss: 0.50 %
  capacity: 20.5 Mbit/s to send, queue 3.2 ms
  rate: 20.1 Mbit/s received, 1.5 Mbit/s sent
  transfer: 1.00 GiB received, 10.00 MiB sent

link: lte (wwan0)
  state: waiting: the device has no address
  transport: tcp, metric 1

link: cable (wan1)
  state: connecting
  transport: udp
"
        );
    }

    #[test]
    fn a_remote_portal_without_a_session() {
        assert_eq!(
            pretty(&remote_example()),
            "\
interface: nc0
  role: remote
  public key: cmVtb3Rl
  private key: (hidden)
  security: encrypt
  listening: udp:0.0.0.0:4725, tcp:0.0.0.0:4725
  public address: 203.0.113.2
  mtu: 1400
  offloads: tun none, udp none
  packet threads: 1

peer: bG9jYWw=
  latest handshake: (none yet)
  transfer: 0 B received, 0 B sent

path: 0
  state: validating
  endpoint: 198.51.100.7:40001
  ecn: not used: the link drops what can be marked
  loss: 0.00 %
  rate: 0 bit/s received, 0 bit/s sent
  transfer: 148 B received, 92 B sent
"
        );
    }
}
