//! What `show` knows: the answer of the daemon. No secret is part of it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Form;
use super::dump::dump;
use super::pretty::pretty;
use crate::proto::event::{EcnFault, EcnState, PathState};
use crate::sorted::Map;

/// A running tunnel at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The tunnel's device.
    pub interface: String,
    /// Which portal this is.
    pub role: Portal,
    /// This portal's public key.
    pub public_key: String,
    /// The peer's public key.
    pub peer: String,
    /// `encrypt`, `authenticate` or `none`.
    pub security: String,
    /// The AEAD or MAC in use; `None`: no session yet.
    pub cipher: Option<String>,
    /// Seconds since the newest handshake; `None`: no session yet.
    pub latest_handshake_s: Option<f64>,
    /// Seconds since the daemon started.
    pub uptime_s: f64,
    /// The daemon's process.
    pub pid: u32,
    /// The addresses that are handed to the client.
    pub public_addresses: Vec<String>,
    /// The TUN's MTU now, bytes: what the paths carry.
    pub mtu: u16,
    /// The TUN's MTU at most, bytes.
    pub mtu_most: u16,
    /// What the kernel splits and joins for us.
    pub offloads: Offloads,
    /// Threads that carry packets now.
    pub threads: u8,
    /// Where flows are waited for: `udp:0.0.0.0:4725`.
    pub listening: Vec<String>,
    /// What is wrong with the host's routing; `None`: as it should be.
    pub routing_error: Option<String>,
    /// What of this host is not there yet, and is waited for.
    pub awaited: Vec<String>,
    /// Packet filters of others that drop the tunnel's packets, or may, each with the line that mends it.
    pub filters: Vec<String>,
    /// The links of this portal.
    pub links: Vec<LinkStatus>,
    /// The paths that the peer opened.
    pub paths: Vec<PathStatus>,
    /// What went through the TUN.
    pub traffic: Traffic,
    /// Packets waiting to be sent.
    pub queue_packets: usize,
    /// Bytes waiting to be sent.
    pub queue_bytes: usize,
    /// Packets marked as having met congestion (ECN) instead of dropped.
    pub queue_marked: u64,
    /// Packets waiting for an earlier one.
    pub reorder_packets: usize,
    /// What was repaired.
    pub repair: Repair,
    /// Why packets and datagrams died, and how many; only causes that occurred.
    pub discards: Map<String, u64>,
}

impl Status {
    /// Written in one of the forms of `show`.
    ///
    /// # Errors
    /// Where serde cannot write it as JSON, which does not happen to numbers and texts.
    pub fn text(&self, form: Form) -> Result<String, serde_json::Error> {
        match form {
            Form::Pretty => Ok(pretty(self)),
            Form::Dump => Ok(dump(self)),
            Form::Json => serde_json::to_string_pretty(self),
        }
    }
}

/// What the kernel splits and joins for us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offloads {
    /// TCP segments at the TUN (TSO).
    pub tun_tcp: bool,
    /// UDP datagrams at the TUN (USO).
    pub tun_udp: bool,
    /// Datagrams that leave a UDP socket in one piece, at most; 1: no GSO; `None`: no UDP socket.
    pub udp_gso: Option<usize>,
    /// Datagrams that come to a UDP socket in one piece, at most; 1: no GRO; `None`: no UDP socket.
    pub udp_gro: Option<usize>,
}

/// The two portals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Portal {
    /// At home.
    Local,
    /// On the VPS.
    Remote,
}

/// One link of this portal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// What the user calls it.
    pub name: String,
    /// Its device.
    pub device: String,
    /// `udp` or `tcp`.
    pub transport: String,
    /// Its tier.
    pub metric: u8,
    /// How its device and its socket are.
    pub status: DeviceStatus,
    /// The address its flow leaves from.
    pub local: Option<SocketAddr>,
    /// The path it carries, once there is one.
    pub path: Option<PathStatus>,
}

/// How far a link got below the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceStatus {
    /// Its socket is open.
    Open,
    /// It has no socket, and this is why.
    Waiting(String),
}

/// One path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// Its number.
    pub path: u32,
    /// What it is good for.
    pub state: PathState,
    /// The peer's address.
    pub endpoint: Option<SocketAddr>,
    /// Smoothed round trip, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Least round trip, milliseconds.
    pub min_rtt_ms: Option<f64>,
    /// The round trip's variation, milliseconds.
    pub rtt_var_ms: f64,
    /// The longest IP packet that the path carries whole, bytes; `None`: not known, or not asked.
    pub mtu: Option<u16>,
    /// Whether what is sent can be marked by a full queue (ECN).
    pub ecn: EcnState,
    /// Datagrams that came to the peer so marked.
    pub marked: u64,
    /// Share of the sent datagrams that were lost, 0 to 1.
    pub loss: f64,
    /// The controller's window, bytes.
    pub window: u64,
    /// Bytes in flight.
    pub in_flight: u64,
    /// Bits per second that the path was found to carry of what is sent; `None`: not known.
    pub capacity: Option<u64>,
    /// The queue that stands in the sending direction, milliseconds.
    pub queue_ms: Option<f64>,
    /// How far single datagrams sent are later than the rest, milliseconds.
    pub jitter_ms: Option<f64>,
    /// Bits per second sent over the last second.
    pub rate_sent: u64,
    /// Bits per second received over the last second.
    pub rate_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams held for lost.
    pub lost: u64,
    /// Of these, those that came after all.
    pub spurious: u64,
}

/// What became of packets that links lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// Packets sent again.
    pub sent: u64,
    /// Packets sent on two paths at once.
    pub twice: u64,
    /// Packets lost and not sent again in time.
    pub given_up: u64,
    /// Packets received more than once.
    pub copies: u64,
    /// Parities sent.
    pub parities: u64,
    /// Packets that came back by the peer's parities.
    pub recovered: u64,
    /// Waits for a repair of the peer's that ended at the deadline.
    pub overdue: u64,
}

/// What went through the TUN.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets from the TUN.
    pub packets_in: u64,
    /// Bytes from the TUN.
    pub bytes_in: u64,
    /// Packets to the TUN.
    pub packets_out: u64,
    /// Bytes to the TUN.
    pub bytes_out: u64,
}

impl Status {
    /// Every path with its link, the links' own first.
    pub fn all_paths(&self) -> impl Iterator<Item = (Option<&LinkStatus>, &PathStatus)> {
        let linked = self
            .links
            .iter()
            .filter_map(|link| Some((Some(link), link.path.as_ref()?)));
        linked.chain(self.paths.iter().map(|path| (None, path)))
    }
}

/// What a path makes of ECN; nothing where it is left alone.
pub(super) fn ecn_words(state: EcnState) -> Option<&'static str> {
    Some(match state {
        EcnState::Off => return None,
        EcnState::Testing => "being tried",
        EcnState::Capable => "in use",
        EcnState::Failed(EcnFault::Dropped) => "not used: the link drops what can be marked",
        EcnState::Failed(EcnFault::Erased) => "not used: the link erases marks",
        EcnState::Failed(EcnFault::Everything) => "not used: the link marks everything",
        EcnState::Failed(EcnFault::Impossible) => "not used: the link makes marks up",
    })
}

/// The word of a path's state.
pub(super) fn state_word(state: PathState) -> &'static str {
    match state {
        PathState::Up => "up",
        PathState::Suspect => "suspect",
        PathState::Validating => "validating",
        PathState::Dead => "dead",
        PathState::Down => "down",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A local portal with a link that is up, one that waits and one that connects.
    pub(in crate::control) fn local_example() -> Status {
        Status {
            interface: "nc0".to_owned(),
            role: Portal::Local,
            public_key: "bG9jYWw=".to_owned(),
            peer: "cmVtb3Rl".to_owned(),
            security: "encrypt".to_owned(),
            cipher: Some("ChaCha20-Poly1305".to_owned()),
            latest_handshake_s: Some(72.4),
            uptime_s: 100.0,
            pid: 4711,
            public_addresses: vec!["203.0.113.2".to_owned()],
            mtu: 1359,
            mtu_most: 1400,
            threads: 2,
            offloads: Offloads {
                tun_tcp: true,
                tun_udp: true,
                udp_gso: Some(64),
                udp_gro: Some(64),
            },
            listening: Vec::new(),
            routing_error: Some("table 19 is taken".to_owned()),
            awaited: vec!["there is no device lan yet".to_owned()],
            filters: vec!["chain FORWARD of table ip filter drops all: `nft ..`".to_owned()],
            links: vec![
                link("dsl", "wan0", DeviceStatus::Open, Some(path_up())),
                LinkStatus {
                    transport: "tcp".to_owned(),
                    metric: 1,
                    ..link(
                        "lte",
                        "wwan0",
                        DeviceStatus::Waiting("the device has no address".to_owned()),
                        None,
                    )
                },
                link("cable", "wan1", DeviceStatus::Open, None),
            ],
            paths: Vec::new(),
            traffic: Traffic {
                packets_in: 3,
                bytes_in: 2048,
                packets_out: 900,
                bytes_out: 1 << 20,
            },
            queue_packets: 3,
            queue_marked: 2,
            queue_bytes: 4200,
            reorder_packets: 0,
            repair: Repair {
                sent: 41,
                twice: 0,
                given_up: 1,
                copies: 12,
                parities: 7,
                recovered: 5,
                overdue: 0,
            },
            discards: [("queue_full", 2), ("send_failed", 1)]
                .map(|(cause, count)| (cause.to_owned(), count))
                .into(),
        }
    }

    /// A remote portal that was spoken to but has no session yet.
    pub(in crate::control) fn remote_example() -> Status {
        Status {
            role: Portal::Remote,
            public_key: "cmVtb3Rl".to_owned(),
            peer: "bG9jYWw=".to_owned(),
            cipher: None,
            latest_handshake_s: None,
            mtu: 1400,
            threads: 1,
            offloads: Offloads {
                udp_gso: Some(1),
                udp_gro: Some(1),
                ..Offloads::default()
            },
            listening: vec!["udp:0.0.0.0:4725".to_owned(), "tcp:0.0.0.0:4725".to_owned()],
            routing_error: None,
            awaited: Vec::new(),
            filters: Vec::new(),
            links: Vec::new(),
            paths: vec![PathStatus {
                state: PathState::Validating,
                endpoint: Some("198.51.100.7:40001".parse().unwrap()),
                rtt_ms: None,
                min_rtt_ms: None,
                mtu: None,
                ecn: EcnState::Failed(EcnFault::Dropped),
                marked: 0,
                loss: 0.0,
                capacity: None,
                queue_ms: None,
                jitter_ms: None,
                rate_sent: 0,
                rate_received: 0,
                bytes_sent: 92,
                bytes_received: 148,
                ..path_up()
            }],
            traffic: Traffic::default(),
            queue_packets: 0,
            queue_marked: 0,
            queue_bytes: 0,
            repair: Repair::default(),
            discards: Map::new(),
            ..local_example()
        }
    }

    fn link(
        name: &str,
        device: &str,
        status: DeviceStatus,
        path: Option<PathStatus>,
    ) -> LinkStatus {
        LinkStatus {
            name: name.to_owned(),
            device: device.to_owned(),
            transport: "udp".to_owned(),
            metric: 0,
            status,
            local: Some("192.0.2.10:40001".parse().unwrap()),
            path,
        }
    }

    fn path_up() -> PathStatus {
        PathStatus {
            path: 0,
            state: PathState::Up,
            endpoint: Some("203.0.113.2:4725".parse().unwrap()),
            rtt_ms: Some(20.5),
            min_rtt_ms: Some(15.0),
            rtt_var_ms: 1.25,
            mtu: Some(1420),
            ecn: EcnState::Capable,
            marked: 12,
            loss: 0.005,
            window: 64_000,
            in_flight: 1400,
            capacity: Some(20_500_000),
            queue_ms: Some(3.2),
            jitter_ms: Some(0.8),
            rate_sent: 1_500_000,
            rate_received: 20_100_000,
            bytes_sent: 10 << 20,
            bytes_received: 1 << 30,
            datagrams_sent: 7500,
            datagrams_received: 770_000,
            lost: 38,
            spurious: 2,
        }
    }

    #[test]
    fn it_survives_json_and_holds_no_secret() {
        let status = local_example();
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
        assert!(!text.contains("private") && !text.contains("preshared"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["links"][0]["path"]["state"], "up");
        assert_eq!(
            value["links"][1]["status"]["waiting"],
            "the device has no address"
        );
    }
}
