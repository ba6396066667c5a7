//! The client and the machines beside it on the router's LAN.

use std::net::Ipv4Addr;

use netcombiner_lab::prelude::*;

use super::support::kernel::sh;
use super::support::lan::{BRIDGE, bridged};
use super::support::{Answers, Outcome, Setup, Talk, case};

const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 50);

/// Field row D3: the client's packets to its neighbours went into the tunnel.
#[test]
fn the_client_and_its_neighbours_talk() {
    let mut setup = Setup::default();
    setup.options.deliver = Some(format!(
        "deliver = \"client\"\nclient = {{ device = \"{BRIDGE}\", gateway = \"{CLIENT_GATEWAY}\" }}"
    ));
    case(setup, |case| -> Outcome {
        let lab = &case.lab;
        let neighbour = bridged(lab, CLIENT_GATEWAY, NEIGHBOUR)?;
        // With redirects and without: not every system believes them.
        for believe in [1, 0] {
            for machine in [&lab.client, &neighbour] {
                for place in ["all", "eth0"] {
                    let key = format!("net.ipv4.conf.{place}.accept_redirects={believe}");
                    sh(machine, &format!("sysctl -qw {key}"))?;
                }
                sh(machine, "ip route flush cache")?;
            }
            let _portals = case.up()?;
            let near = Answers::start(&neighbour, NEIGHBOUR, 80)?;
            let client = Answers::start(&lab.client, PUBLIC, 80)?;
            let far = Answers::start(&lab.server, SERVER, 80)?;
            for _ in 0..3 {
                let mut talk = Talk::open(&lab.client, near.address())?;
                assert_eq!(talk.ask()?, format!("neighbour to {PUBLIC}"));
                let mut talk = Talk::open(&neighbour, client.address())?;
                assert_eq!(talk.ask()?, format!("client to {NEIGHBOUR}"));
            }
            let mut talk = Talk::open(&lab.client, far.address())?;
            assert_eq!(talk.ask()?, format!("server to {PUBLIC}"));
        }
        Ok(())
    });
}
