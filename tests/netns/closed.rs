//! A dead daemon leaves its packet filter, and that keeps closed what the tunnel kept closed.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use netcombiner_lab::prelude::*;

use super::support::kernel::sh;
use super::support::{Answers, Outcome, Setup, Talk, Watch, case};

const MS: Duration = Duration::from_millis(1);

#[test]
fn what_the_client_sends_while_the_local_daemon_is_dead_stays_inside() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let service = Answers::start(&lab.server, SERVER, 80)?;
        let (_remote, local) = case.up()?;
        let mut talk = Talk::open(&lab.client, service.address())?;
        talk.ask()?;
        // Nobody else's packets have the public source on the links.
        let packets = format!("iifname link* ip saddr {PUBLIC}");
        let clear = Watch::start(&lab.internet, "prerouting", &packets)?;
        local.kill();
        talk.say()?;
        assert_eq!(case.pings(&lab.client, SERVER)?, 0);
        // The router itself goes on, by its own address.
        assert_eq!(case.pings(&lab.local, SERVER)?, 20);
        let local = case.start(Side::Local)?;
        assert_eq!(talk.hear()?, format!("server to {PUBLIC}"));
        case.wait_for_paths(2)?;
        assert_eq!(case.pings(&lab.client, SERVER)?, 20);
        assert_eq!(clear.packets()?, 0);
        // The filter does it, the end of table 20 does it too, and the counter would tell.
        local.kill();
        sh(&lab.local, "nft delete table inet netcombiner-nc0")?;
        case.pings(&lab.client, SERVER)?;
        assert_eq!(clear.packets()?, 0);
        sh(&lab.local, "ip rule del pref 20")?;
        case.pings(&lab.client, SERVER)?;
        assert_ne!(clear.packets()?, 0);
        Ok(())
    });
}

#[test]
fn what_the_server_sends_while_the_remote_daemon_is_dead_resets_nothing() {
    case(Setup::default(), |case| -> Outcome {
        let lab = &case.lab;
        let web = Answers::start(&lab.remote, PUBLIC, 8080)?;
        let ssh = Answers::start(&lab.remote, PUBLIC, 22)?;
        let service = Answers::start(&lab.client, PUBLIC, 443)?;
        let listener = lab.server.run(|| TcpListener::bind((SERVER, 80)))??;
        let (remote, _local) = case.up()?;
        // One that the client opened, one that the server did, and two of the host's own.
        let mut client = lab.client.run(|| TcpStream::connect((SERVER, 80)))??;
        let (mut server, _) = listener.accept()?;
        let mut inward = Talk::open(&lab.server, service.address())?;
        inward.ask()?;
        let mut kept = Talk::open(&lab.server, ssh.address())?;
        kept.ask()?;
        let answers = Answers::start(&lab.server, SERVER, 81)?;
        let mut own = Talk::open(&lab.remote, answers.address())?;
        own.ask()?;

        let packets = format!("ip daddr {PUBLIC} tcp sport 80");
        let come = Watch::start(&lab.remote, "input", &packets)?;
        remote.kill();
        server.write_all(b"into the gap")?;
        inward.say()?;
        // Meanwhile the host answers all others: those it has, new ones, and pings.
        assert!(kept.ask()?.starts_with("remote to"));
        assert!(own.ask()?.starts_with("server to"));
        let mut new = Talk::open(&lab.server, web.address())?;
        assert!(new.ask()?.starts_with("remote to"));
        assert_eq!(case.pings(&lab.server, PUBLIC)?, 20);
        // Once more at the least: the first has not ended it.
        assert!(come.packets()? >= 2, "the server did not repeat it");

        let _remote = case.start(Side::Remote)?;
        let mut heard = [0; 12];
        client.set_read_timeout(Some(8000 * MS))?;
        client.read_exact(&mut heard)?;
        assert_eq!(&heard, b"into the gap");
        assert_eq!(inward.hear()?, format!("client to {SERVER}"));
        assert!(kept.ask()?.starts_with("remote to"));
        assert!(own.ask()?.starts_with("server to"));
        Ok(())
    });
}
