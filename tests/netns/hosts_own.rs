//! Connections that the remote portal's host opens itself, beside those of the client: the
//! dissertation's recipe alone would answer them to the client.

use netcombiner_lab::prelude::*;

use super::support::kernel::sh;
use super::support::{Answers, Outcome, Setup, Talk, case};

const MS: Duration = Duration::from_millis(1);

#[test]
fn the_host_and_the_client_each_get_their_own_answers() {
    case(Setup::default(), |case| -> Outcome {
        let _portals = case.up()?;
        let lab = &case.lab;
        let service = Answers::start(&lab.server, SERVER, 80)?;
        let dns = UdpEcho::start(&lab.server, SERVER, 53)?;
        let both = [&lab.remote, &lab.client];
        let mut probes = Vec::new();
        for host in both {
            probes.push((host, "ping", Probe::ping(host, SERVER, 20 * MS, 50)?));
            probes.push((host, "DNS", Probe::udp(host, dns.address(), 20 * MS, 50)?));
        }
        let mut talks = Vec::new();
        for host in both {
            talks.push((host, Talk::open(host, service.address())?));
        }
        for _ in 0..20 {
            for (host, talk) in &mut talks {
                let answer = talk
                    .ask()
                    .map_err(|error| format!("{}: {error}", host.name()))?;
                assert_eq!(answer, format!("server to {PUBLIC}"), "{}", host.name());
            }
        }
        for (host, what, probe) in probes {
            let probes = probe.finish();
            assert_eq!(probes.answered, 50, "{what} of {}: {probes:?}", host.name());
        }
        Ok(())
    });
}

#[test]
fn downloads_of_the_host_and_of_the_client_at_once() {
    case(Setup::default(), |case| -> Outcome {
        let _portals = case.up()?;
        let lab = &case.lab;
        std::thread::scope(|scope| -> Outcome {
            let get = |host| {
                scope.spawn(move || {
                    let download = Connection::new(host, &lab.server, SERVER, Sender::Listener);
                    transfer(&download, 3_000_000, 5000 * MS)
                })
            };
            let both = [get(&lab.remote), get(&lab.client)];
            for thread in both {
                thread.join().map_err(|_| "a transfer panicked")??;
            }
            Ok(())
        })
    });
}

#[test]
fn a_connection_that_the_host_opened_before_survives_the_start_and_the_end() {
    opened_before(&[]);
}

#[test]
fn and_so_on_a_host_whose_firewall_knew_it() {
    // Then it is established, and new no more, when our rules come.
    opened_before(&[
        "nft add table inet guard",
        "nft add chain inet guard in { type filter hook input priority 0 ; }",
        "nft add rule inet guard in ct state established,new accept",
    ]);
}

fn opened_before(firewall: &[&str]) {
    case(Setup::default(), |case| -> Outcome {
        for line in firewall {
            sh(&case.lab.remote, line)?;
        }
        let service = Answers::start(&case.lab.server, SERVER, 80)?;
        let mut talk = Talk::open(&case.lab.remote, service.address())?;
        talk.ask()?;
        let (remote, local) = case.up()?;
        talk.ask()
            .map_err(|error| format!("after the start: {error}"))?;
        remote.stop()?;
        talk.ask()
            .map_err(|error| format!("after the end: {error}"))?;
        local.stop()?;
        Ok(())
    });
}

#[test]
fn the_host_reaches_its_kept_port_and_the_client_by_the_public_address() {
    case(Setup::default(), |case| -> Outcome {
        let _portals = case.up()?;
        let lab = &case.lab;
        let ssh = Answers::start(&lab.remote, PUBLIC, 22)?;
        let mut talk = Talk::open(&lab.remote, ssh.address())?;
        assert!(talk.ask()?.starts_with("remote to"));
        let own = Answers::start(&lab.remote, PUBLIC, 8080)?;
        let service = Answers::start(&lab.client, PUBLIC, 8080)?;
        assert_eq!(own.address(), service.address());
        let mut talk = Talk::open(&lab.remote, service.address())?;
        assert!(talk.ask()?.starts_with("client to"));
        assert_eq!(case.pings(&lab.remote, PUBLIC)?, 20);
        Ok(())
    });
}
