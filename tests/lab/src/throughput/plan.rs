//! Who is measured with what.

use std::path::PathBuf;
use std::time::Duration;

use crate::emulator::Direction;
use crate::error::Error;

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct Options {
    /// A built `netcombiner`; nothing: cargo builds one.
    pub program: Option<PathBuf>,
    /// Where the JSON goes, if anywhere.
    pub json: Option<PathBuf>,
    /// Names of candidates and of loads; none of a kind: all of that kind.
    pub only: Vec<String>,
    /// How long each cell is measured, after its flow has warmed up.
    pub seconds: u64,
    /// How often; the tables show the medians.
    pub repeats: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            program: None,
            json: None,
            only: Vec::new(),
            seconds: 5,
            repeats: 1,
        }
    }
}

/// What of a flow is not counted: TCP's slow start, and netcombiner's finding of the link's rate.
pub(super) const WARM_UP: Duration = Duration::from_secs(2);

/// From the start of a candidate's daemons to their tunnel, and all between two cells: what the
/// forecast counts for it. Seen: 0.6 s.
const AROUND: Duration = Duration::from_millis(800);

/// How netcombiner protects what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    Encrypt,
    Authenticate,
    None,
}

impl Security {
    /// As the configuration says it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Authenticate => "authenticate",
            Self::None => "none",
        }
    }
}

/// Who carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Candidate {
    /// Nobody: the flow goes over the veth pair itself. The limit.
    Veth,
    /// The bare relay. The floor.
    Relay,
    WireguardGo,
    Boringtun,
    /// Mullvad's successor of boringtun.
    Gotatun,
    Netcombiner {
        links: usize,
        security: Security,
    },
}

impl Candidate {
    /// In the order of the table.
    pub(super) const ALL: [Self; 11] = [
        Self::Veth,
        Self::Relay,
        Self::WireguardGo,
        Self::Boringtun,
        Self::Gotatun,
        Self::netcombiner(1, Security::Encrypt),
        Self::netcombiner(1, Security::Authenticate),
        Self::netcombiner(1, Security::None),
        Self::netcombiner(2, Security::Encrypt),
        Self::netcombiner(2, Security::Authenticate),
        Self::netcombiner(2, Security::None),
    ];

    /// netcombiner over so many links.
    pub(super) const fn netcombiner(links: usize, security: Security) -> Self {
        Self::Netcombiner { links, security }
    }

    /// Its name in `--only`, in the table and in the JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Relay => "relay",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
            Self::Netcombiner { links: 1, security } => match security {
                Security::Encrypt => "encrypt-1",
                Security::Authenticate => "authenticate-1",
                Security::None => "none-1",
            },
            Self::Netcombiner { links: _, security } => match security {
                Security::Encrypt => "encrypt-2",
                Security::Authenticate => "authenticate-2",
                Security::None => "none-2",
            },
        }
    }
}

/// What is carried, always from one TUN's address to the other's. Up is from the local portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// CUBIC flows at once.
    Tcp { flows: u32, way: Direction },
    /// Datagrams with so many bytes of payload, up, as fast as one sender can.
    Udp { payload: u32 },
}

/// The payload of a datagram that makes an IPv4 packet of 1,400 bytes: it fits every tunnel here.
const LARGE: u32 = 1400 - 28;
/// The payload of a small one: an IPv4 packet of 228 bytes, as of voice or games.
const SMALL: u32 = 200;
/// As many flows as a page load or a download manager has.
const MANY: u32 = 8;

impl Load {
    /// The one that most targets are of.
    pub(super) const ONE_FLOW: [Self; 2] =
        [Self::tcp(1, Direction::Up), Self::tcp(1, Direction::Down)];

    /// Small datagrams.
    pub(super) const SMALL: Self = Self::Udp { payload: SMALL };

    /// In the order of the table.
    pub(super) const ALL: [Self; 6] = [
        Self::tcp(1, Direction::Up),
        Self::tcp(1, Direction::Down),
        Self::tcp(MANY, Direction::Up),
        Self::tcp(MANY, Direction::Down),
        Self::Udp { payload: LARGE },
        Self::SMALL,
    ];

    const fn tcp(flows: u32, way: Direction) -> Self {
        Self::Tcp { flows, way }
    }

    /// Its name in `--only` and in the JSON.
    pub(super) fn name(self) -> String {
        match self {
            Self::Tcp { flows, way } => format!("tcp{flows}-{}", way_name(way)),
            Self::Udp { payload } => format!("udp{payload}"),
        }
    }

    /// Its heading in the table.
    pub(super) fn title(self) -> String {
        match self {
            Self::Tcp { flows: 1, way } => format!("1 flow {}", way_name(way)),
            Self::Tcp { flows, way } => format!("{flows} flows {}", way_name(way)),
            Self::Udp { payload } => format!("{payload} bytes of payload"),
        }
    }
}

const fn way_name(way: Direction) -> &'static str {
    match way {
        Direction::Up => "up",
        Direction::Down => "down",
    }
}

/// What of all that is run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) candidates: Vec<Candidate>,
    pub(super) loads: Vec<Load>,
    pub(super) length: Duration,
    pub(super) repeats: u32,
}

impl Plan {
    /// The plan of these options, or what in them is wrong.
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let wanted = |name: &str| options.only.iter().any(|only| only == name);
        let known = |name: &str| {
            Candidate::ALL.iter().any(|it| it.name() == name)
                || Load::ALL.iter().any(|it| it.name() == name)
        };
        if let Some(strange) = options.only.iter().find(|name| !known(name)) {
            let candidates = Candidate::ALL.iter().map(|it| it.name().to_owned());
            let loads = Load::ALL.iter().map(|it| it.name());
            let names: Vec<String> = candidates.chain(loads).collect();
            return Err(Error::failed(format!(
                "there is no {strange:?} to measure; there are {}",
                names.join(", ")
            )));
        }
        if options.seconds == 0 || options.repeats == 0 {
            return Err(Error::failed("nothing to measure in no time"));
        }
        let mut candidates = Candidate::ALL.to_vec();
        let mut loads = Load::ALL.to_vec();
        if candidates.iter().any(|it| wanted(it.name())) {
            candidates.retain(|it| wanted(it.name()));
        }
        if loads.iter().any(|it| wanted(&it.name())) {
            loads.retain(|it| wanted(&it.name()));
        }
        Ok(Self {
            candidates,
            loads,
            length: Duration::from_secs(options.seconds),
            repeats: options.repeats,
        })
    }

    /// Whether nothing was left out.
    pub(super) const fn is_whole(&self) -> bool {
        self.candidates.len() == Candidate::ALL.len() && self.loads.len() == Load::ALL.len()
    }

    /// How long it takes.
    pub(super) fn forecast(&self) -> Duration {
        let cells = self.candidates.len() * self.loads.len();
        (WARM_UP + self.length + AROUND) * cells as u32 * self.repeats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(only: &[&str]) -> Result<Plan, Error> {
        Plan::new(&Options {
            only: only.iter().map(|name| (*name).to_owned()).collect(),
            ..Options::default()
        })
    }

    #[test]
    fn names_choose_candidates_and_loads_apart() {
        let all = plan(&[]).unwrap();
        assert!(all.is_whole());
        assert!(all.forecast() < Duration::from_secs(12 * 60));
        let some = plan(&["tcp1-up", "relay", "encrypt-2"]).unwrap();
        assert_eq!(some.loads, [Load::ONE_FLOW[0]]);
        let encrypt = Candidate::netcombiner(2, Security::Encrypt);
        assert_eq!(some.candidates, [Candidate::Relay, encrypt]);
        assert!(!some.is_whole());
        let loads = plan(&["udp200"]).unwrap();
        assert_eq!(loads.loads, [Load::SMALL]);
        assert_eq!(loads.candidates.len(), Candidate::ALL.len());
    }

    #[test]
    fn a_wrong_name_is_told_the_right_ones() {
        let error = plan(&["tcp1-up", "openvpn"]).unwrap_err().to_string();
        assert!(
            error.contains("\"openvpn\"") && error.contains("boringtun"),
            "{error}"
        );
    }
}
