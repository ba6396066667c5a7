//! Finds the addresses of the remote portal's names, again and again: it may fail at boot, and the
//! address may change. The system's resolver is asked, and where it does not answer at once, the resolvers
//! over every link: it may only know the way of a link that is dead.

pub(super) mod known;
pub(super) mod memory;
mod message;
mod places;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use log::Level;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::choice::pairs;
use crate::config::units::Family;
use crate::config::{Config, Link, Role};
use crate::io::clock;
use crate::io::entropy::SystemEntropy;
use crate::io::socket::{Origin, any_address, question_socket};
use crate::proto::Entropy as _;
use crate::route::automatic_links;
use crate::route::links::{Flaw, Observed};
use crate::sorted::sort_by_key;
use message::Kind;

/// How often a name that is known is asked for again; dynamic DNS has TTLs of this order.
const REFRESH: Duration = Duration::from_secs(60);
/// The pause after the first failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The system resolver's own patience can be minutes.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the system's resolver is asked alone.
const HEAD_START: Duration = Duration::from_secs(2);
/// How long one question over a link waits before it is asked again, and how often it is asked.
const ASK_PATIENCE: Duration = Duration::from_secs(2);
const ASKS: u32 = 2;
/// How long the other answers are waited for after the first over a link.
const OTHERS: Duration = Duration::from_millis(300);
/// The most lines of one name in [`WINDOW`]. The rest are counted.
const LINES: u32 = 6;
/// How long the lines of one name are counted. Names are asked for once a minute, so a window of minutes would
/// hold nothing back.
const WINDOW: Duration = Duration::from_secs(3600);
/// The port of DNS.
const PORT: u16 = 53;
/// The longest answer that is read, bytes: what UDP carries without extensions, and some more.
const LONGEST: usize = 1500;

/// A name and its addresses.
pub(super) type Answer = (String, Vec<IpAddr>);

/// A way to a resolver: from where, and whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    /// `None`: the host's own routes lead there.
    origin: Option<Origin>,
    resolver: SocketAddr,
}

/// Every resolver over every link that has an address of its family; of each link its own router last,
/// which is a resolver in most homes.
pub(super) fn ways(config: &Config, observed: &Observed) -> Vec<Way> {
    let automatic;
    let links = if config.links.is_empty() {
        automatic = automatic_links(config, observed);
        &automatic
    } else {
        &config.links
    };
    let resolvers = places::resolvers();
    let mut ways: Vec<Way> = Vec::new();
    for link in links {
        for way in ways_of(config, link, observed, &resolvers) {
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
    }
    ways
}

fn ways_of(config: &Config, link: &Link, observed: &Observed, resolvers: &[IpAddr]) -> Vec<Way> {
    let Some(device) = observed.link(&link.device).filter(|device| device.up) else {
        return Vec::new();
    };
    let ours: Vec<IpAddr> = device
        .addresses
        .iter()
        .map(|prefix| prefix.address())
        .filter(|own| device.flaws.get(own) != Some(&Flaw::Tentative))
        .filter(|own| link.source.is_none_or(|source| source.contains(*own)))
        .filter(|own| {
            matches!(config.role, Role::Remote(_)) || config.public.iter().all(|it| it != *own)
        })
        .collect();
    let routers = device.gateways.iter().filter(|gateway| {
        let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
        !gateway.is_unspecified() && !link_local
    });
    resolvers
        .iter()
        .chain(routers)
        .filter_map(|&resolver| {
            let (source, _) = *pairs(link, device, &ours, &[resolver]).first()?;
            Some(Way {
                origin: Some(Origin {
                    device: link.device.clone(),
                    source,
                    port: None,
                }),
                resolver: (resolver, PORT).into(),
            })
        })
        .collect()
}

/// How it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Manner {
    ways: Vec<Way>,
    /// No path works with the last answers: all resolvers are asked, and all their answers are waited for.
    doubt: bool,
}

/// Looks names up until it is dropped.
#[derive(Debug)]
pub(super) struct Resolver {
    tasks: JoinSet<()>,
    manner: watch::Sender<Manner>,
}

impl Resolver {
    /// Begins to look these hosts up. Addresses are answered at once; a name whenever its addresses
    /// are others than before.
    pub(super) fn start(
        hosts: Vec<String>,
        ways: Vec<Way>,
        answers: &mpsc::UnboundedSender<Answer>,
    ) -> Self {
        let doubt = false;
        let (manner, known_manner) = watch::channel(Manner { ways, doubt });
        let mut tasks = JoinSet::new();
        for host in hosts {
            match host.parse::<IpAddr>() {
                Ok(address) => drop(answers.send((host, vec![address]))),
                Err(_) => drop(tasks.spawn(look_up(host, known_manner.clone(), answers.clone()))),
            }
        }
        Self { tasks, manner }
    }

    /// How many names are being watched.
    pub(super) fn names(&self) -> usize {
        self.tasks.len()
    }

    /// The links have changed: names without an answer are asked for at once.
    pub(super) fn follow(&self, ways: Vec<Way>) {
        self.change(|manner| manner.ways = ways);
    }

    /// No path works although the names have addresses, or one does.
    pub(super) fn doubt(&self, doubt: bool) {
        self.change(|manner| manner.doubt = doubt);
    }

    fn change(&self, change: impl FnOnce(&mut Manner)) {
        self.manner.send_if_modified(|manner| {
            let before = manner.clone();
            change(manner);
            *manner != before
        });
    }
}

/// What the log says of a name: a resolver may answer differently, or fail, each time.
#[derive(Debug, Default)]
struct Said {
    since: Option<Instant>,
    lines: u32,
    hidden: u32,
}

impl Said {
    fn say(&mut self, level: Level, text: &str) {
        match self.next(clock::now()) {
            Some(0) => log::log!(level, "{text}"),
            Some(hidden) => log::log!(
                level,
                "{text} (after {hidden} changes that were not logged)"
            ),
            None => {}
        }
    }

    /// Whether the next line is said, and how many before it were not.
    fn next(&mut self, now: Instant) -> Option<u32> {
        let is_over = |since| now.saturating_duration_since(since) >= WINDOW;
        if self.since.is_none_or(is_over) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines == LINES {
            self.hidden = self.hidden.saturating_add(1);
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.hidden))
    }
}

async fn look_up(
    host: String,
    mut manner: watch::Receiver<Manner>,
    answers: mpsc::UnboundedSender<Answer>,
) {
    let mut known = Vec::new();
    let mut pause = FIRST_PAUSE;
    let mut said = Said::default();
    loop {
        let now = manner.borrow_and_update().clone();
        let doubted = now.doubt;
        match find(&host, now).await {
            Ok(mut found) => {
                found.dedup();
                // Servers turn the order of several addresses round: that is no change.
                let is_new = found.iter().any(|address| !known.contains(address))
                    || known.iter().any(|address| !found.contains(address));
                if is_new {
                    said.say(Level::Info, &format!("{host} is {}", list(&found)));
                    known.clone_from(&found);
                    if answers.send((host.clone(), found)).is_err() {
                        return;
                    }
                }
                pause = FIRST_PAUSE;
                if doubted {
                    sleep(REFRESH).await;
                } else {
                    let _ = timeout(REFRESH, manner.wait_for(|now| now.doubt)).await;
                }
            }
            Err(reason) => {
                if pause == FIRST_PAUSE {
                    let text =
                        format!("cannot find the address of {host} ({reason}); trying again");
                    said.say(Level::Warn, &text);
                }
                // A link that comes back is a reason to ask again now.
                let _ = timeout(pause, manner.changed()).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
    }
}

/// A name's addresses, or why nobody says them.
async fn find(host: &str, Manner { ways, doubt }: Manner) -> Result<Vec<IpAddr>, String> {
    let own = places::of_hosts(host);
    if !own.is_empty() {
        return Ok(own);
    }
    if doubt {
        let (system, links) = tokio::join!(
            timeout(PATIENCE, by_system(host)),
            by_ways(host, ways, ASKS * ASK_PATIENCE)
        );
        let system = system.unwrap_or_else(|_| Err("no answer".to_owned()));
        return match (system, links) {
            (Err(reason), links) if links.is_empty() => Err(reason),
            (system, links) => Ok(shared(&[links, system.unwrap_or_default()])),
        };
    }
    let mut system = std::pin::pin!(timeout(PATIENCE, by_system(host)));
    let mut reason = "no answer".to_owned();
    let mut waits = true;
    if let Ok(answered) = timeout(HEAD_START, &mut system).await {
        match answered {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => reason = error,
            Err(_) => {}
        }
        waits = false;
    }
    let mut links = std::pin::pin!(by_ways(host, ways, OTHERS));
    let mut asks = true;
    while waits || asks {
        tokio::select! {
            answered = &mut system, if waits => match answered {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(error)) => (reason, waits) = (error, false),
                Err(_) => waits = false,
            },
            found = &mut links, if asks => {
                if !found.is_empty() {
                    return Ok(found);
                }
                asks = false;
            }
        }
    }
    Err(reason)
}

/// A name's addresses as this host itself finds them, asked once.
pub(crate) async fn look_up_once(host: &str) -> Result<Vec<IpAddr>, String> {
    let own = places::of_hosts(host);
    if !own.is_empty() {
        return Ok(own);
    }
    by_system(host).await
}

/// What the host's own resolver says. The C library musl would do no more than this, and is 18 kB of a
/// router's program.
#[cfg(target_env = "musl")]
async fn by_system(host: &str) -> Result<Vec<IpAddr>, String> {
    by_resolvers(host, places::own_resolvers()).await
}

/// What the host's own resolver says.
#[cfg(not(target_env = "musl"))]
async fn by_system(host: &str) -> Result<Vec<IpAddr>, String> {
    // Port 0: only the address is asked for.
    let found = tokio::net::lookup_host((host, 0)).await;
    // A resolver that lies may name thousands, and each is a rule of every link.
    let found: Vec<IpAddr> = found
        .map_err(|error| error.to_string())?
        .map(|it| it.ip())
        .filter(message::is_of_another_host)
        .take(message::MOST_ADDRESSES)
        .collect();
    if found.is_empty() {
        return Err("it has none".to_owned());
    }
    Ok(found)
}

/// What these resolvers say, asked by the host's own routes.
#[cfg(any(target_env = "musl", test))]
async fn by_resolvers(host: &str, resolvers: Vec<SocketAddr>) -> Result<Vec<IpAddr>, String> {
    let own = |resolver| Way {
        origin: None,
        resolver,
    };
    let ways = resolvers.into_iter().map(own).collect();
    let found = by_ways(host, ways, ASKS * ASK_PATIENCE).await;
    if found.is_empty() {
        return Err("no resolver of /etc/resolv.conf knows it".to_owned());
    }
    Ok(found)
}

/// What the resolvers on these ways say, IPv6 first as the C library does.
async fn by_ways(host: &str, ways: Vec<Way>, patience: Duration) -> Vec<IpAddr> {
    let mut questions = JoinSet::new();
    for way in ways {
        for kind in [Kind::Aaaa, Kind::A] {
            questions.spawn(ask(way.clone(), host.to_owned(), kind));
        }
    }
    let mut all: Vec<Vec<IpAddr>> = Vec::new();
    loop {
        // The other family's answer may be on its way.
        let next = if all.is_empty() {
            questions.join_next().await
        } else {
            timeout(patience, questions.join_next())
                .await
                .unwrap_or(None)
        };
        let Some(answered) = next else { break };
        all.extend(answered.ok().filter(|found| !found.is_empty()));
    }
    let mut found = shared(&all);
    sort_by_key(&mut found, IpAddr::is_ipv4);
    found
}

/// The first address of each answer, then the second of each, and so on: a long answer leaves room for the
/// others.
fn shared(answers: &[Vec<IpAddr>]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for turn in 0..message::MOST_ADDRESSES {
        for address in answers.iter().filter_map(|answer| answer.get(turn)) {
            if !found.contains(address) && found.len() < message::MOST_ADDRESSES {
                found.push(*address);
            }
        }
    }
    found
}

/// Asks one resolver on one way; either may be dead.
async fn ask(way: Way, host: String, kind: Kind) -> Vec<IpAddr> {
    for _ in 0..ASKS {
        match timeout(ASK_PATIENCE, ask_once(&way, &host, kind)).await {
            Ok(Some(found)) => return found,
            Ok(None) => return Vec::new(),
            Err(_) => {}
        }
    }
    Vec::new()
}

/// Each question has a port and a number of its own, both chosen at random. `None`: it cannot be asked.
async fn ask_once(way: &Way, host: &str, kind: Kind) -> Option<Vec<IpAddr>> {
    let mut id = [0; 2];
    SystemEntropy::new().ok()?.fill(&mut id);
    let id = u16::from_be_bytes(id);
    let question = message::question(id, host, kind)?;
    let socket = match &way.origin {
        Some(origin) => UdpSocket::from_std(question_socket(origin).ok()?).ok()?,
        None => {
            let any = any_address(Family::of(way.resolver.ip()));
            UdpSocket::bind((any, 0)).await.ok()?
        }
    };
    // Only from there comes what is read.
    socket.connect(way.resolver).await.ok()?;
    socket.send(&question).await.ok()?;
    let mut buffer = [0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await.ok()?;
        if let Some(found) = message::answer(id, host, kind, buffer.get(..length)?) {
            return Some(found);
        }
    }
}

fn list(addresses: &[IpAddr]) -> String {
    let words: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// A name that changes each minute, for a day.
    #[test]
    fn a_name_that_never_rests_costs_few_lines() {
        let (mut said, start) = (Said::default(), clock::now());
        let (mut lines, mut told) = (0, 0);
        for minute in 0..1440 {
            if let Some(hidden) = said.next(start + minute * REFRESH) {
                lines += 1;
                told += hidden + 1;
            }
        }
        assert_eq!(lines, 24 * LINES);
        assert_eq!(told + said.hidden, 1440);
        // And one that moves now and then is always told.
        let calm = (1..9).map(|hour| said.next(start + (24 + hour) * WINDOW));
        assert!(calm.into_iter().all(|it| it.is_some()));
    }

    /// The system's resolver is not believed more than others.
    #[cfg(not(target_env = "musl"))]
    #[test]
    fn an_address_of_this_host_or_of_many_is_no_answer() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let found = |host| runtime.block_on(by_system(host)).unwrap_or_default();
        for host in [
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.251",
            "255.255.255.255",
            "::1",
            "ff02::1",
        ] {
            assert_eq!(found(host), [] as [IpAddr; 0], "{host}");
        }
        assert_eq!(found("198.51.100.2"), [IpAddr::from([198, 51, 100, 2])]);
    }

    /// One resolver names sixteen addresses for everything, another one the right one.
    #[test]
    fn a_lying_resolver_leaves_room_for_the_truth() {
        let lies: Vec<IpAddr> = (0..16).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        let truth = vec![IpAddr::from([203, 0, 113, 2])];
        for answers in [[lies.clone(), truth.clone()], [truth.clone(), lies.clone()]] {
            let found = shared(&answers);
            assert_eq!(found.len(), message::MOST_ADDRESSES);
            assert!(found[..2].contains(&truth[0]), "{found:?}");
        }
        assert_eq!(shared(&[lies.clone(), lies.clone()]), lies);
    }

    /// Where the C library is not asked, one resolver that is not there hides no other.
    #[test]
    fn the_hosts_resolvers_are_asked_without_the_c_library() {
        let server = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let resolver = server.local_addr().unwrap();
        let dead = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let nobody = dead.local_addr().unwrap();
        drop(dead);
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = server.recv_from(&mut buffer) {
                let mut answer = buffer[..length].to_vec();
                let kind = answer[length - 3];
                answer[2] = 0x81;
                answer[3] = 0x80;
                if kind == Kind::A as u8 {
                    answer[7] = 1;
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 203, 0, 113, 2]);
                }
                let _ = server.send_to(&answer, from);
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let find = |resolvers| runtime.block_on(by_resolvers("vps.example", resolvers));
        let found = find(vec![nobody, resolver]);
        assert_eq!(found, Ok(vec![IpAddr::from([203, 0, 113, 2])]));
        assert!(find(vec![nobody]).unwrap_err().contains("resolv.conf"));
        assert!(find(Vec::new()).is_err());
    }

    #[test]
    fn addresses_need_no_look_up_and_localhost_is_found() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (sender, mut answers) = mpsc::unbounded_channel();
            let hosts = vec!["2001:db8::1".to_owned(), "localhost".to_owned()];
            let resolver = Resolver::start(hosts, Vec::new(), &sender);
            assert_eq!(resolver.names(), 1);
            let (host, found) = answers.recv().await.unwrap();
            assert_eq!((host.as_str(), found.len()), ("2001:db8::1", 1));
            let (host, found) = answers.recv().await.unwrap();
            assert_eq!(host, "localhost");
            assert!(found.iter().all(IpAddr::is_loopback));
        });
    }
}
