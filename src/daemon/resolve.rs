//! Finds the addresses of the remote portal's names, again and again: it may fail at boot, and the
//! address may change.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How often a name that is known is asked for again; dynamic DNS has TTLs of this order.
const REFRESH: Duration = Duration::from_secs(60);
/// The pause after the first failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The resolver's own patience can be minutes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A name and its addresses.
pub(super) type Answer = (String, Vec<IpAddr>);

/// Looks names up until it is dropped.
#[derive(Debug)]
pub(super) struct Resolver {
    tasks: JoinSet<()>,
}

impl Resolver {
    /// Begins to look these hosts up. Addresses are answered at once; a name whenever its addresses
    /// are others than before.
    pub(super) fn start(hosts: Vec<String>, answers: &mpsc::UnboundedSender<Answer>) -> Self {
        let mut tasks = JoinSet::new();
        for host in hosts {
            match host.parse::<IpAddr>() {
                Ok(address) => drop(answers.send((host, vec![address]))),
                Err(_) => drop(tasks.spawn(look_up(host, answers.clone()))),
            }
        }
        Self { tasks }
    }

    /// How many names are being watched.
    pub(super) fn names(&self) -> usize {
        self.tasks.len()
    }
}

async fn look_up(host: String, answers: mpsc::UnboundedSender<Answer>) {
    let mut known = Vec::new();
    let mut pause = FIRST_PAUSE;
    loop {
        // Port 0: only the address is asked for.
        let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host.as_str(), 0)));
        match found.await {
            Ok(Ok(found)) => {
                let mut found: Vec<IpAddr> = found.map(|it| it.ip()).collect();
                found.dedup();
                // Servers turn the order of several addresses round: that is no change.
                let is_new = found.iter().any(|address| !known.contains(address))
                    || known.iter().any(|address| !found.contains(address));
                if is_new {
                    log::info!("{host} is {}", list(&found));
                    known.clone_from(&found);
                    if answers.send((host.clone(), found)).is_err() {
                        return;
                    }
                }
                pause = FIRST_PAUSE;
                tokio::time::sleep(REFRESH).await;
            }
            failed => {
                if pause == FIRST_PAUSE {
                    let reason = match failed {
                        Ok(Err(error)) => error.to_string(),
                        Ok(Ok(_)) | Err(_) => "no answer".to_owned(),
                    };
                    log::warn!("cannot find the address of {host} ({reason}); trying again");
                }
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
    }
}

fn list(addresses: &[IpAddr]) -> String {
    let words: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_no_look_up_and_localhost_is_found() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (sender, mut answers) = mpsc::unbounded_channel();
            let hosts = vec!["2001:db8::1".to_owned(), "localhost".to_owned()];
            let resolver = Resolver::start(hosts, &sender);
            assert_eq!(resolver.names(), 1);
            let (host, found) = answers.recv().await.unwrap();
            assert_eq!((host.as_str(), found.len()), ("2001:db8::1", 1));
            let (host, found) = answers.recv().await.unwrap();
            assert_eq!(host, "localhost");
            assert!(found.iter().all(IpAddr::is_loopback));
        });
    }
}
