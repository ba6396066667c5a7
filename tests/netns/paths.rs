//! A path that died is tried in other ways; names are asked for over every link; a log that nobody reads
//! stops nothing.

use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use netcombiner_lab::clock::now;
use netcombiner_lab::error::Context;
use netcombiner_lab::prelude::*;
use nix::sys::signal::Signal;

use super::support::kernel::sh;
use super::support::{Case, Outcome, Setup, case, eventually};

/// A dead path's patience is 25 s; this is far above it, as the machine may be busy.
const REVIVAL: Duration = Duration::from_secs(120);

/// Waits for what takes longer than other things.
fn revived(what: &str, mut is_so: impl FnMut() -> Result<bool, Error>) -> Outcome {
    let start = now();
    while !is_so()? {
        if start.elapsed() > REVIVAL {
            return Err(format!("{what}: not within {REVIVAL:?}").into());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Where a link's socket is.
fn local_of(case: &Case, link: usize) -> Result<String, Error> {
    let status = case.show(Side::Local)?;
    let text = status["links"][link]["local"].as_str();
    Ok(text.unwrap_or_default().to_owned())
}

/// A middlebox between the links and the remote portal that drops what these rules match.
fn drop_at_the_modem(case: &Case, rules: &[String]) -> Outcome {
    let internet = &case.lab.internet;
    sh(internet, "nft add table ip modem")?;
    let hook = "{ type filter hook forward priority 0 ; }";
    sh(internet, &format!("nft add chain ip modem gone {hook}"))?;
    for rule in rules {
        sh(internet, &format!("nft add rule ip modem gone {rule} drop"))?;
    }
    Ok(())
}

/// Field row C1: a modem holds an old mapping of our port for as long as we use it.
#[test]
fn a_path_behind_a_dead_mapping_is_tried_from_another_port() {
    case(Setup::default(), |case| -> Outcome {
        let _portals = case.up()?;
        let before = local_of(case, 0)?;
        let (address, port) = before.rsplit_once(':').ok_or("no port")?;
        drop_at_the_modem(
            case,
            &[
                format!("ip saddr {address} udp sport {port}"),
                format!("ip daddr {address} udp dport {port}"),
            ],
        )?;
        eventually("only wan1 is up", || Ok(case.paths_up()? == ["wan1"]))?;
        revived("wan0 from another port", || {
            Ok(case.paths_up()?.len() == 2 && local_of(case, 0)? != before)
        })?;
        assert_eq!(case.pings(&case.lab.client, SERVER)?, 20);
        Ok(())
    });
}

/// Field row C2: a source that stopped working is left for another one of the device.
#[test]
fn a_source_that_stopped_working_is_left() {
    case(Setup::default(), |case| -> Outcome {
        sh(&case.lab.local, "ip address add 10.10.0.9/24 dev wan0")?;
        let _portals = case.up()?;
        let before = local_of(case, 0)?;
        let (address, _) = before.rsplit_once(':').ok_or("no port")?;
        drop_at_the_modem(
            case,
            &[format!("ip saddr {address}"), format!("ip daddr {address}")],
        )?;
        eventually("only wan1 is up", || Ok(case.paths_up()? == ["wan1"]))?;
        revived("wan0 from another address", || {
            Ok(case.paths_up()?.len() == 2 && !local_of(case, 0)?.starts_with(address))
        })
    });
}

/// Field row C2: `source` decides, by an address or by a prefix.
#[test]
fn the_source_that_is_asked_for_is_used() {
    for source in ["10.10.0.9", "10.10.0.8/31"] {
        let mut setup = Setup::default();
        setup.options.links = Some(vec![0]);
        setup.options.link = format!("source = \"{source}\"");
        case(setup, |case| -> Outcome {
            let remote = case.start(Side::Remote)?;
            // It is waited for.
            let local = case.start(Side::Local)?;
            std::thread::sleep(Duration::from_secs(1));
            assert!(case.paths_up()?.is_empty());
            sh(&case.lab.local, "ip address add 10.10.0.9/24 dev wan0")?;
            case.wait_for_paths(1)?;
            assert!(local_of(case, 0)?.starts_with("10.10.0.9:"));
            drop((remote, local));
            Ok(())
        });
    }
}

/// Field row C8b: a link with a fixed port keeps its socket when its metric changes, and when its port
/// changes the old socket is gone before the new one comes.
#[test]
fn a_fixed_port_is_no_hindrance_to_new_terms() {
    let mut setup = Setup::default();
    setup.options.links = Some(vec![0]);
    setup.options.link = "port = 4726".into();
    case(setup, |case| -> Outcome {
        let remote = case.start(Side::Remote)?;
        let local = case.start(Side::Local)?;
        case.wait_for_paths(1)?;
        let file = case.portals.config(Side::Local);
        let log = case.dir.path().join("local.log");
        let lines = || -> Result<String, Error> {
            std::fs::read_to_string(&log).context("the log of the local portal")
        };
        let text = std::fs::read_to_string(&file)?;
        let before = lines()?.len();
        for metric in 1..=10 {
            let new = text.replace("port = 4726", &format!("port = 4726\nmetric = {metric}"));
            std::fs::write(&file, new)?;
            local.process.signal(Signal::SIGHUP)?;
            eventually("the new metric", || {
                Ok(case.show(Side::Local)?["links"][0]["metric"] == metric)
            })?;
            assert_eq!(case.paths_up()?.len(), 1);
        }
        assert_eq!(case.pings(&case.lab.client, SERVER)?, 20);
        let said = lines()?.split_off(before);
        for word in ["udp from", "waits", "down", "validated"] {
            assert!(!said.contains(word), "{word:?} in {said}");
        }
        // There and back: each port is taken again at once.
        for port in [4727, 4726, 4727] {
            std::fs::write(&file, text.replace("4726", &port.to_string()))?;
            local.process.signal(Signal::SIGHUP)?;
            eventually("the path is up by the other port", || {
                let by_it = local_of(case, 0)?.ends_with(&format!(":{port}"));
                Ok(by_it && case.paths_up()?.len() == 1)
            })?;
        }
        let said = lines()?.split_off(before);
        assert!(!said.contains("another program"), "{said}");
        drop((remote, local));
        Ok(())
    });
}

/// A resolver that knows one name.
struct Names {
    stop: std::sync::Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Names {
    /// At every address of a namespace.
    fn start(
        namespace: &Namespace,
        answers: &'static [[u8; 4]],
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let socket = namespace.run(|| UdpSocket::bind(("0.0.0.0", 53)))??;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 600];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&reply(&buffer[..length], answers), from);
                }
            }
        });
        let thread = Some(thread);
        Ok(Self { stop, thread })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// These to each question for an IPv4 address of `vps.test`; else none.
fn reply(question: &[u8], answers: &[[u8; 4]]) -> Vec<u8> {
    let mut message = question.to_vec();
    let Some(flags) = message.get_mut(2) else {
        return message;
    };
    *flags |= 0x80;
    if question.ends_with(b"\x03vps\x04test\x00\x00\x01\x00\x01") {
        message[7] = answers.len() as u8;
        for answer in answers {
            message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            message.extend(answer);
        }
    }
    message
}

/// The remote portal's address.
const TRUTH: [[u8; 4]; 1] = [PUBLIC.octets()];

/// What a captive portal says of everything, and more of it.
const LIES: [[u8; 4]; 16] = {
    let mut lies = [[198, 18, 0, 1]; 16];
    let mut number = 0;
    while number < 16 {
        lies[number][3] = number as u8;
        number += 1;
    }
    lies
};

/// The local portal finds the remote one by its name. Gives the configuration's file.
fn by_name(case: &Case) -> Result<std::path::PathBuf, Box<dyn std::error::Error>> {
    let by_address = format!("remote = \"{PUBLIC}:{PORT}\"");
    let by_name = format!("remote = \"vps.test:{PORT}\"");
    case.rewrite(Side::Local, |text| text.replace(&by_address, &by_name))?;
    Ok(case.portals.config(Side::Local))
}

/// Field row C5: a resolver that lies costs some seconds: it moves nothing that works, it is not written to
/// the disk, and at the next start the address where the peer was is tried as well.
#[test]
fn a_resolver_that_lies_is_not_believed_for_long() {
    case(Setup::default(), |case| -> Outcome {
        let file = by_name(case)?;
        let names = Names::start(&case.lab.internet, &TRUTH)?;
        let (remote, local) = case.up()?;
        let remembered = file.with_extension("addresses");
        let line = format!("vps.test {PUBLIC}\n");
        assert_eq!(std::fs::read_to_string(&remembered)?, line);
        drop(names);
        local.stop()?;
        remote.stop()?;
        // Nobody is there yet, so the lies are tried.
        let _liar = Names::start(&case.lab.internet, &LIES)?;
        let local = case.start(Side::Local)?;
        revived("the lies are tried", || {
            Ok(local.log().contains("on wan0 to 198.18.0."))
        })?;
        let _remote = case.start(Side::Remote)?;
        revived("both are up", || Ok(case.paths_up()?.len() == 2))?;
        assert_eq!(std::fs::read_to_string(&remembered)?, line);
        Ok(())
    });
}

/// Field row C5: the way of the default route is dead at the start, and the name is found over the other
/// link; at the next start DNS is dead, and the last answer is as good.
#[test]
fn a_name_is_found_over_any_link_and_remembered() {
    case(Setup::default(), |case| -> Outcome {
        let file = by_name(case)?;
        let names = Names::start(&case.lab.internet, &TRUTH)?;
        case.lab.emulator.set_outage(0, Outage::Drop);
        let _remote = case.start(Side::Remote)?;
        let local = case.start(Side::Local)?;
        revived("wan1 is up", || Ok(case.paths_up()? == ["wan1"]))?;
        let remembered = file.with_extension("addresses");
        let line = format!("vps.test {PUBLIC}\n");
        assert_eq!(std::fs::read_to_string(&remembered)?, line);
        let mode = std::fs::metadata(&remembered)?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        case.lab.emulator.set_outage(0, Outage::None);
        drop(names);
        local.stop()?;
        let _local = case.start(Side::Local)?;
        case.wait_for_paths(2)?;
        assert_eq!(std::fs::read_to_string(&remembered)?, line);
        Ok(())
    });
}

/// Field row C8: standard error is a pipe that is full, and nobody reads it; control answers all the
/// same, and says later what was lost.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    case(Setup::default(), |case| -> Outcome {
        let _remote = case.start(Side::Remote)?;
        let (mut reader, mut writer) = std::io::pipe()?;
        fill(&mut writer)?;
        let mut command = case.portals.command("run");
        command
            .arg("-c")
            .arg(case.portals.config(Side::Local))
            .arg("--run-dir")
            .arg(case.portals.run_dir(Side::Local))
            .arg("--log=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(writer);
        let process = Process::spawn(&case.lab.local, command)?;
        revived("both paths are up", || {
            Ok(case.paths_up().is_ok_and(|up| up.len() == 2))
        })?;
        for _ in 0..50 {
            process.signal(Signal::SIGHUP)?;
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(case.paths_up()?.len(), 2);
        // Somebody reads it at last.
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&text).contains("lines of the log were lost") {
            process.signal(Signal::SIGHUP)?;
            let length = std::io::Read::read(&mut reader, &mut buffer)?;
            text.extend_from_slice(&buffer[..length]);
            text.retain(|byte| *byte != b'x');
        }
        Ok(())
    });
}

/// Fills a pipe until it takes no more.
fn fill(writer: &mut std::io::PipeWriter) -> Outcome {
    use std::os::fd::AsFd;
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(writer.as_fd(), nix::fcntl::FcntlArg::F_SETFL(flags))?;
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    let blocking = nix::fcntl::OFlag::empty();
    nix::fcntl::fcntl(writer.as_fd(), nix::fcntl::FcntlArg::F_SETFL(blocking))?;
    Ok(())
}
