//! A link's DHCP server gives the router the client's own address, and what the router says for the client.

use std::net::{Ipv4Addr, TcpStream, UdpSocket};

use netcombiner_lab::prelude::*;

use super::crossing::home_router;
use super::modes::{LAN_MACHINE, into_a_lan};
use super::support::kernel::sh;
use super::support::{Answers, Outcome, Setup, Talk, Watch, case, eventually, is_open};

const MS: Duration = Duration::from_millis(1);

/// The client keeps its address, and the router's kept ports stay closed at it.
#[test]
fn a_lease_of_the_public_address_takes_nothing_from_the_client() {
    let mut setup = Setup::default();
    setup.options.local = "keep = [\"tcp:8081\"]".into();
    // Strict, as most distributions have it.
    setup.reverse_path = 1;
    case(setup, |case| -> Outcome {
        let lab = &case.lab;
        let before = host_state(&lab.local)?;
        let (_remote, local) = case.up()?;
        let any = Ipv4Addr::UNSPECIFIED;
        let _router = Answers::start(&lab.local, any, 8081)?;
        let clear = format!("iifname link* ip saddr {PUBLIC}");
        let clear = Watch::start(&lab.internet, "prerouting", &clear)?;
        sh(&lab.local, "ip address add 203.0.113.2/32 dev wan1")?;
        eventually("the client has its address", || {
            Ok(case.pings(&lab.server, PUBLIC)? == 20)
        })?;
        assert_eq!(case.pings(&lab.client, SERVER)?, 20);
        assert!(case.paths_up()?.contains(&"wan0".to_owned()));
        let client = Answers::start(&lab.client, any, 8081)?;
        let mut talk = Talk::open(&lab.server, (PUBLIC, 8081).into())?;
        assert_eq!(talk.ask()?, format!("client to {SERVER}"));
        drop(client);
        // The router does not answer there, even if a rule hands the packets to it.
        sh(
            &lab.local,
            "ip rule add pref 5 to 203.0.113.2 iif nc0 lookup local",
        )?;
        assert!(!is_open(&lab.server, PUBLIC, 8081));
        sh(&lab.local, "ip rule del pref 5")?;
        // Nor does it speak as the client by a link.
        let leased = lab.local.run(|| UdpSocket::bind((PUBLIC, 0)))??;
        let say = || (0..5).for_each(|_| drop(leased.send_to(b"not mine", (SERVER, 9))));
        say();
        std::thread::sleep(500 * MS);
        assert_eq!(clear.packets()?, 0);
        // The filter does it.
        sh(&lab.local, "nft flush chain inet netcombiner-nc0 output")?;
        say();
        eventually("it leaves", || Ok(clear.packets()? > 0))?;
        // When the lease is over all is as before.
        sh(&lab.local, "ip address del 203.0.113.2/32 dev wan1")?;
        eventually("table local is back", || {
            Ok(sh(&lab.local, "ip rule show")?.starts_with("0:"))
        })?;
        local.stop()?;
        assert_eq!(before.differences(&host_state(&lab.local)?), [""; 0]);
        Ok(())
    });
}

/// What the router's own firewall says for the client, and its errors while its own packets leave by a link.
#[test]
fn what_the_router_says_for_the_client_does_not_leave_by_a_link() {
    let nat = format!("forwards = [\"tcp:81 -> {LAN_MACHINE}\", \"udp:81 -> {LAN_MACHINE}\"]");
    for (nats, setup) in [(false, Setup::default()), (true, Setup::nat(&nat))] {
        case(setup, |case| -> Outcome {
            let lab = &case.lab;
            home_router(case)?;
            if nats {
                into_a_lan(lab)?;
            }
            let _page = Answers::start(&lab.server, SERVER, 82)?;
            let _portals = case.up()?;
            for line in [
                "nft add table inet fw",
                "nft add chain inet fw forward { type filter hook forward priority 0 ; }",
                "nft add rule inet fw forward iifname nc0 tcp dport 81 reject with tcp reset",
                "nft add rule inet fw forward iifname nc0 tcp sport 82 reject with tcp reset",
                // As while the tunnel is down.
                "ip rule add pref 15 iif lo to 198.51.100.0/24 lookup main",
            ] {
                sh(&lab.local, line)?;
            }
            let packets = format!("iifname link* ip daddr {SERVER} tcp flags & rst == rst");
            let resets = Watch::start(&lab.internet, "prerouting", &packets)?;
            let said = "oifname wan* tcp flags & rst == rst";
            let said = Watch::start(&lab.local, "output", said)?;
            let talk = || {
                let connect = |to: (Ipv4Addr, u16)| {
                    move || TcpStream::connect_timeout(&to.into(), 1500 * MS).is_ok()
                };
                let came = lab.server.run(connect((PUBLIC, 81)))?;
                let went = lab.client.run(connect((SERVER, 82)))?;
                Ok::<_, Error>((came, went))
            };
            assert_eq!(talk()?, (false, false));
            assert!(said.packets()? >= 2, "{nats}");
            assert_eq!(resets.packets()?, 0, "{nats}");
            // The filter does it.
            sh(&lab.local, "nft flush chain inet netcombiner-nc0 output")?;
            talk()?;
            eventually("they leave", || Ok(resets.packets()? > 0))?;
            Ok(())
        });
    }
}
