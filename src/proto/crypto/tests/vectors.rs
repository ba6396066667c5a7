//! Frozen vectors: when one of these changes, the wire format did, and old portals will not
//! understand new ones. To rewrite them, take what the failing test prints.

use std::fmt::Write as _;

use super::*;

const FROZEN: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/vectors/crypto-v1.txt"
));

#[test]
fn the_wire_is_as_it_was() {
    let now = vectors();
    let frozen: String = FROZEN
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(now == frozen, "these are the vectors now:\n{now}");
}

const CASES: [(&str, Security, bool); 4] = [
    ("encrypt-chacha20", Security::Encrypt, false),
    ("encrypt-aes", Security::Encrypt, true),
    ("authenticate", Security::Authenticate, false),
    ("none", Security::None, false),
];

/// Everything that goes over the wire, of fixed keys and fixed randomness.
fn vectors() -> String {
    let mut text = String::new();
    let psk = Some(PresharedKey::from_bytes([0x42; 32]));
    for (name, security, aes) in CASES {
        let psk = psk.clone();
        let (mut local, mut remote) = pair(Setting { psk, security, aes });
        let mut initiator = local.start();
        let initiation = initiator.message(None, T0);
        let (response, theirs) = remote.accept(&initiation, T0);
        let ours = initiator.finish(&response).unwrap();
        put(&mut text, name, "initiation", &initiation);
        put(&mut text, name, "response", &response);
        put_session(&mut text, name, "out", &ours.session);
        put_session(&mut text, name, "back", &theirs.session);
    }
    put_sessions(&mut text);
    put_cookie(&mut text);
    text
}

/// Sessions of given secrets, for an implementation in another language to check itself.
fn put_sessions(text: &mut String) {
    let split = ([0x11; 32], [0x22; 32]);
    for (name, security, aes) in CASES {
        let hello = Hello {
            boot: BootId::from_bytes([0; 8]),
            counter: 1,
            security,
            aes,
            parity: false,
        };
        put_session(
            text,
            &format!("split {name}"),
            "out",
            &Session::new(&split, true, &hello, &hello),
        );
        put_session(
            text,
            &format!("split {name}"),
            "back",
            &Session::new(&split, false, &hello, &hello),
        );
    }
}

/// The indices of a direction, and a datagram sealed in it.
fn put_session(text: &mut String, case: &str, direction: &str, session: &Session) {
    let indices: Vec<u8> = PathId::all()
        .flat_map(|path| session.tx_index(path).bytes())
        .collect();
    put(text, case, &format!("indices {direction}"), &indices);
    let mut datagram = b"clearhdrthe body of a datagram".to_vec();
    let number = PacketNumber(0x0123_4567_89ab_cdef);
    seal(session, PathId::new(5).unwrap(), number, &mut datagram);
    put(text, case, &format!("sealed {direction}"), &datagram);
}

fn put_cookie(text: &mut String) {
    let (mut local, mut remote) = pair(PLAIN);
    for _ in 0..8 {
        remote.accept(&local.start().message(None, T0), T0);
    }
    let initiator = local.start();
    let reply = cookie_reply(remote.receive(&initiator.message(None, T0), HOME, T0));
    let cookie = initiator.cookie(&reply, T0).unwrap();
    put(text, "flood", "cookie reply", &reply);
    put(
        text,
        "flood",
        "initiation with cookie",
        &initiator.message(Some(&cookie), T0),
    );
}

fn put(text: &mut String, case: &str, name: &str, bytes: &[u8]) {
    write!(text, "{case} {name} ").unwrap();
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text.push('\n');
}
