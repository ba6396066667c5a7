//! Two modems behind one card: two gateways and two own addresses on one device.

use netcombiner_lab::prelude::*;

use super::support::kernel::sh;
use super::support::{Outcome, Setup, case};

/// Field row C4: each of the two links leaves by its own gateway, and carries.
#[test]
fn two_gateways_on_one_device() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        for line in [
            "ip link add card type bridge",
            "ip address flush dev wan0",
            "ip address flush dev wan1",
            "ip link set wan0 master card",
            "ip link set wan1 master card",
            "ip link set card up",
            "ip address add 10.10.0.2/24 dev card",
            "ip address add 10.11.0.2/24 dev card",
            "ip route add default via 10.10.0.1 dev card",
        ] {
            sh(&lab.local, line)?;
        }
        // Two modems: each answers for its own address alone.
        sh(&lab.internet, "sysctl -qw net.ipv4.conf.all.arp_ignore=1")?;
        let file = case.portals.config(Side::Local);
        let text = std::fs::read_to_string(&file)?
            .replace("device = \"wan0\"", "name = \"dsl\"\ndevice = \"card\"")
            .replace(
                "device = \"wan1\"",
                "name = \"lte\"\ndevice = \"card\"\ngateway = \"10.11.0.1\"",
            );
        std::fs::write(&file, text)?;
        let _portals = case.up()?;
        for sender in [Sender::Connector, Sender::Listener] {
            let connection = Connection::new(&lab.client, &lab.server, SERVER, sender);
            transfer(&connection, 2_000_000, Duration::from_secs(10))?;
        }
        for link in [0, 1] {
            for direction in [Direction::Up, Direction::Down] {
                let carried = case.carried(link, direction);
                assert!(carried > 100_000, "link {link} {direction:?}: {carried}");
            }
        }
        let status = case.show(Side::Local)?;
        let locals = [0, 1].map(|link| status["links"][link]["local"].to_string());
        assert!(locals[0].contains("10.10.0.2:"), "{locals:?}");
        assert!(locals[1].contains("10.11.0.2:"), "{locals:?}");
        Ok(())
    });
}
