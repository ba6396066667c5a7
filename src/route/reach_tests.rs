use super::*;
use crate::config::{Keep, Remote, Role};
use crate::route::{cases, conflicts};

/// A socket of a program: `sshd`, or `sshd/sshd: root [net]` with its command line.
fn socket(protocol: PortProtocol, local: &str, peer: Option<&str>, who: &str) -> HostSocket {
    let (name, title) = who.split_once('/').unwrap_or((who, who));
    let program = Program {
        name: name.to_owned(),
        process: 77,
        is_root: true,
        is_before_login: is_stranger(title),
    };
    HostSocket {
        protocol,
        local: local.parse().unwrap(),
        peer: peer.map(|peer| peer.parse().unwrap()),
        user: 0,
        programs: if name.is_empty() {
            Vec::new()
        } else {
            vec![program]
        },
        is_unknown: false,
    }
}

fn tcp(local: &str, who: &str) -> HostSocket {
    socket(PortProtocol::Tcp, local, None, who)
}

fn connection(local: &str, who: &str) -> HostSocket {
    socket(PortProtocol::Tcp, local, Some("198.51.100.9:50000"), who)
}

fn keeping(ports: &[u16]) -> Config {
    let keep = ports.iter().map(|port| Keep {
        protocol: PortProtocol::Tcp,
        first: *port,
        last: *port,
    });
    Config {
        role: Role::Remote(Remote {
            keep: keep.collect(),
        }),
        ..cases::remote()
    }
}

fn is_cut(config: &Config, place: SocketAddr) -> bool {
    HandedOver::by(config).takes(PortProtocol::Tcp, place)
}

#[test]
fn what_is_kept_is_not_cut() {
    let cut = |place: &str| is_cut(&cases::remote(), place.parse().unwrap());
    assert!(!cut("203.0.113.2:22"));
    // Where flows are waited for.
    assert!(!cut("203.0.113.2:4725"));
    assert!(cut("203.0.113.2:2222"));
    assert!(cut("[::ffff:203.0.113.2]:2222"));
    // udp:27000-27100 keeps no TCP.
    assert!(cut("203.0.113.2:27000"));
    assert!(!cut("10.0.0.5:2222"));
    assert!(!is_cut(
        &cases::local_client(),
        "203.0.113.2:2222".parse().unwrap()
    ));
    let hands_off = Config {
        manage_routing: false,
        ..cases::remote()
    };
    assert!(!is_cut(&hands_off, "203.0.113.2:2222".parse().unwrap()));
}

/// Field row B1: without the shell that says `up`, the sockets tell.
#[test]
fn sessions_and_the_only_login_service_are_not_cut_off() {
    let is_locked_out = |sockets: &[HostSocket]| lock_out(&keeping(&[22]), sockets, None);
    let kept = tcp("0.0.0.0:22", "sshd");
    for login in ["sshd", "sshd-session", "dropbear", "in.telnetd"] {
        let session = connection("203.0.113.2:2222", login);
        let said = is_locked_out(&[kept.clone(), session]).unwrap().to_string();
        assert!(said.contains("from 198.51.100.9:50000"), "{said}");
        assert!(said.contains("\"tcp:2222\" to keep"), "{said}");
    }
    let mapped = connection("[::ffff:203.0.113.2]:2222", "sshd");
    assert!(is_locked_out(&[mapped]).is_some());
    let said = is_locked_out(&[tcp("[::]:2222", "sshd")])
        .unwrap()
        .to_string();
    assert!(said.contains("sshd listens at 203.0.113.2:2222"), "{said}");

    // A socket unit waits for sshd's connections; a second place that is kept will do.
    let unit = tcp("[::]:2222", "systemd");
    let said = is_locked_out(std::slice::from_ref(&unit))
        .unwrap()
        .to_string();
    assert!(
        said.contains("systemd listens at 203.0.113.2:2222"),
        "{said}"
    );
    assert_eq!(
        is_locked_out(&[unit.clone(), tcp("0.0.0.0:22", "systemd")]),
        None
    );
    assert_eq!(is_locked_out(&[unit, kept.clone()]), None);

    // `ssh -L` through this host is no session at that port.
    assert_eq!(
        is_locked_out(&[connection("203.0.113.2:45678", "sshd")]),
        None
    );

    // Who is not cut off: kept, elsewhere, a stranger, one who tries passwords; and a second
    // place of a service that can still be reached.
    for harmless in [
        connection("203.0.113.2:22", "sshd"),
        connection("10.0.0.5:2222", "sshd"),
        connection("203.0.113.2:443", "nginx"),
        connection("203.0.113.2:443", ""),
        connection("203.0.113.2:2222", "sshd/sshd: root [net]"),
        tcp("0.0.0.0:2222", "sshd"),
        tcp("0.0.0.0:443", "nginx"),
    ] {
        let sockets = [kept.clone(), harmless];
        assert_eq!(is_locked_out(&sockets), None, "{sockets:?}");
    }
    assert_eq!(is_locked_out(&[tcp("10.0.0.5:2222", "sshd")]), None);
    assert_eq!(is_locked_out(&[]), None);

    // A user of this host calls his own programs so.
    for mut feigned in [
        connection("203.0.113.2:2222", "sshd"),
        tcp("0.0.0.0:2222", "sshd"),
        tcp("0.0.0.0:2222", "systemd"),
    ] {
        feigned.programs[0].is_root = false;
        feigned.user = 65_534;
        assert_eq!(is_locked_out(&[feigned]), None);
    }
}

/// Field row B1: a stranger who only connects has not logged in.
#[test]
fn who_has_logged_in() {
    for stranger in [
        "sshd: root [net]\0\0",
        "sshd-session: [accepted] ",
        "sshd: /usr/sbin/sshd -D [listener] 1 of 10-100 startups\0",
    ] {
        assert!(is_stranger(stranger), "{stranger}");
    }
    for session in ["sshd: root@pts/0\0", "sshd: root [priv]", ""] {
        assert!(!is_stranger(session), "{session}");
    }
    let family = [
        (1, 10, "dropbear"),
        (10, 11, "dropbear"),
        (10, 12, "dropbear"),
        (12, 13, "sh"),
        (1, 20, "in.telnetd"),
        (20, 21, "login"),
        (1, 30, "in.telnetd"),
        (30, 31, "login"),
        (31, 32, "sh"),
    ];
    let family = family.map(|(parent, own, name)| (parent, own, name.to_owned()));
    let shells = [11, 12, 20, 30].map(|process| has_shell(process, &family));
    assert_eq!(shells, [false, true, false, true]);
    // A newer dropbear gives up root's rights with the login.
    let mut session = connection("203.0.113.2:2222", "dropbear");
    session.programs[0].is_root = false;
    assert!(
        lock_out(
            &keeping(&[22]),
            &[tcp("0.0.0.0:2222", "dropbear"), session],
            None
        )
        .is_some()
    );
}

/// Field row B1: a narrower `keep`.
#[test]
fn a_change_is_judged_by_what_it_takes_away() {
    let sockets = [
        tcp("0.0.0.0:22", "sshd"),
        tcp("0.0.0.0:2222", "sshd"),
        connection("203.0.113.2:2222", "sshd"),
    ];
    let change =
        |old: &[u16], new: &[u16]| newly_locked_out(&keeping(old), &keeping(new), &sockets);
    assert!(matches!(
        change(&[22, 2222], &[22]),
        Some(LockOut::Session { .. })
    ));
    assert!(matches!(change(&[22], &[]), Some(LockOut::Service { .. })));
    // By force it was cut already, or it comes back.
    assert_eq!(change(&[22], &[22, 80]), None);
    assert_eq!(change(&[], &[22, 2222]), None);

    // After a crash. A session that is left open does not keep the tunnel down.
    let restart = |old: &HandedOver, new: &[u16], shell: Option<&str>| {
        let shell = shell.map(|it| it.parse().unwrap());
        locked_out_after(old, &keeping(new), &sockets, shell)
    };
    let old = HandedOver::by(&keeping(&[22, 2222]));
    assert!(matches!(
        restart(&old, &[], None),
        Some(LockOut::Service { .. })
    ));
    assert_eq!(restart(&old, &[22], None), None);
    let shell = restart(&old, &[22], Some("203.0.113.2:2222"));
    assert!(matches!(shell, Some(LockOut::Shell(_))));
    // The same again, whatever it cuts off.
    let old = HandedOver::by(&keeping(&[]));
    assert_eq!(restart(&old, &[], Some("203.0.113.2:22")), None);
    // It had handed nothing over yet, or did not manage the routing.
    assert!(restart(&HandedOver::default(), &[], None).is_some());
}

#[test]
fn listeners_that_would_be_lost_are_warned_of_once() {
    let mut observed = cases::vps();
    let listen = |places: &[&str]| places.iter().map(|it| tcp(it, "nginx")).collect();
    observed.sockets = listen(&["0.0.0.0:22", "127.0.0.1:25", "[::]:4725", "[::1]:80"]);
    assert_eq!(conflicts(&cases::remote(), &observed), []);
    observed.sockets = listen(&["0.0.0.0:2222", "[::]:2222", "203.0.113.2:2222"]);
    let warnings = conflicts(&cases::remote(), &observed);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].place, "keep");
    for words in [
        "nginx listens at tcp 203.0.113.2:2222",
        "add \"tcp:2222\" to keep",
    ] {
        assert!(warnings[0].text.contains(words), "{warnings:?}");
    }
}

/// Field row B1: WireGuard's socket is the kernel's.
#[test]
fn udp_listeners_are_warned_of_too() {
    let udp = |place: &str, who: &str| socket(PortProtocol::Udp, place, None, who);
    let sockets = [
        udp("0.0.0.0:51820", ""),
        udp("0.0.0.0:68", "dhclient"),
        udp("0.0.0.0:4725", "other"),
        udp("127.0.0.53:53", "systemd-resolve"),
    ];
    let warnings = lost_listeners(&cases::remote(), &sockets);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let text = &warnings[0].text;
    assert!(text.contains("udp 203.0.113.2:51820"), "{text}");
    assert!(text.contains("\"udp:51820\" to keep"), "{text}");
    let many: Vec<_> = (1000..1050)
        .map(|port| udp(&format!("0.0.0.0:{port}"), "named"))
        .collect();
    let warnings = lost_listeners(&cases::remote(), &many);
    assert_eq!(warnings.len(), NAMED + 1);
    assert!(warnings[NAMED].text.starts_with("30 more listeners"));
    // Any user may have as many as he likes.
    let mut users: Vec<_> = (1025..1050)
        .map(|port| tcp(&format!("0.0.0.0:{port}"), "nc"))
        .collect();
    users.iter_mut().for_each(|it| it.user = 1000);
    let warnings = lost_listeners(&cases::remote(), &[users, sockets.to_vec()].concat());
    assert!(warnings[0].text.contains("udp:51820"), "{warnings:?}");
}
