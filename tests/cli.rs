//! The command, run as users run it: what it prints, what it writes, how it ends.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests may fail as loudly as a test"
)]

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder of this test's own, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("netcombiner-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn command<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netcombiner"));
    command.args(args);
    command
}

fn run<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Output {
    command(args).output().unwrap()
}

fn fed(args: &[&str], input: &[u8]) -> Output {
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who has read enough closes its end.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn check(path: &Path) -> (i32, String) {
    let output = run([OsStr::new("check"), path.as_os_str()]);
    assert_eq!(err(&output), "");
    let text = out(&output).replace(&path.display().to_string(), "FILE");
    (output.status.code().unwrap(), text)
}

#[test]
fn version_in_three_spellings() {
    for word in ["version", "-V", "--version"] {
        let output = run([word]);
        assert!(output.status.success());
        assert_eq!(out(&output), "netcombiner 0.1.0\n");
    }
}

#[test]
fn help_names_every_verb_and_each_has_its_own() {
    let overview = run(["help"]);
    assert_eq!(out(&overview), out(&run(["--help"])));
    assert_eq!(out(&overview), out(&run(["-h"])));
    let verbs: Vec<&str> = out(&overview)
        .lines()
        .filter_map(|line| line.strip_prefix("  netcombiner ")?.split(' ').next())
        .collect();
    assert!(verbs.contains(&"check") && verbs.contains(&"init"));
    for verb in verbs {
        let help = run(["help", verb]);
        let usage = format!("usage: netcombiner {verb}");
        assert!(out(&help).starts_with(&usage), "{verb}");
        assert_eq!(out(&help), out(&run([verb, "--help"])), "{verb}");
    }
}

#[test]
fn a_wrong_command_line_is_one_line_and_exit_code_2() {
    for args in [
        &[][..],
        &["chekc"],
        &["--frob"],
        &["help", "frob"],
        &["check"],
        &["check", "a", "b"],
        &["check", "--frob"],
        &["check", "a b"],
        &["genkey", "x"],
        &["pubkey", "-x"],
        &["init"],
        &["init", "--public-address"],
        &["init", "--public-address", "vps"],
        &["init", "--public-address", "203.0.113.2", "--remote", "a b"],
        &[
            "init",
            "--public-address",
            "203.0.113.2",
            "--client-gateway",
            "::1",
        ],
        &["init", "--public-address", "203.0.113.2", "--name", "a/b"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(out(&output), "", "{args:?}");
        let text = err(&output);
        assert!(text.starts_with("netcombiner: "), "{args:?} {text}");
        assert_eq!(text.lines().count(), 1, "{args:?} {text}");
    }
    assert!(err(&run(["chekc"])).contains("did you mean \"check\"?"));
    let odd = run([OsStr::from_bytes(b"\xff")]);
    assert_eq!(odd.status.code(), Some(2));
}

#[test]
fn keys_have_the_habits_of_wg() {
    let (one, two) = (run(["genkey"]), run(["genkey"]));
    let secret = run(["genpsk"]);
    for output in [&one, &two, &secret] {
        assert!(output.status.success());
        assert_eq!(out(output).len(), 45);
        assert!(out(output).ends_with("=\n"));
        assert_eq!(err(output), "");
    }
    assert_ne!(one.stdout, two.stdout);
    let public = fed(&["pubkey"], &one.stdout);
    assert_eq!(public.stdout.len(), 45);
    assert_ne!(public.stdout, one.stdout);
    assert_eq!(public.stdout, fed(&["pubkey"], &one.stdout).stdout);
    // RFC 7748 section 6.1: Alice's keys.
    let alice = fed(&["pubkey"], b"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=");
    assert_eq!(
        out(&alice),
        "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n"
    );
    for wrong in [&b""[..], b"dwdt", b"\xff\x00", &[b'A'; 100_000]] {
        let output = fed(&["pubkey"], wrong);
        assert_eq!(output.status.code(), Some(1));
        assert!(err(&output).contains("is not a key"), "{}", err(&output));
    }
}

#[test]
fn a_secret_written_where_others_read_is_warned_of() {
    let folder = Folder::new("umask");
    for (mode, warned) in [(0o644, true), (0o600, false)] {
        let path = folder.file("key", b"", mode);
        let file = fs::File::create(&path).unwrap();
        let output = command(["genkey"]).stdout(file).output().unwrap();
        assert!(output.status.success());
        assert_eq!(err(&output).contains("warning"), warned, "{mode:o}");
        assert_eq!(fs::read(&path).unwrap().len(), 45);
    }
}

#[test]
fn init_writes_a_pair_that_passes_and_belongs_together() {
    let folder = Folder::new("init");
    let dir = folder.0.to_str().unwrap();
    let args = ["init", "--public-address", "203.0.113.2", "--dir", dir];
    let output = run(args);
    assert!(output.status.success(), "{}", err(&output));
    assert!(out(&output).contains("netcombiner up nc0"));
    for side in ["remote", "local"] {
        for file in ["nc0.toml", "nc0.key", "nc0.psk"] {
            let mode = fs::metadata(folder.0.join(side).join(file))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o7777, 0o600, "{side}/{file}");
        }
        let (code, text) = check(&folder.0.join(side).join("nc0.toml"));
        assert_eq!((code, text.as_str()), (0, "FILE: no errors\n"));
    }
    let read = |path: &str| fs::read_to_string(folder.0.join(path)).unwrap();
    for (own, other) in [("local", "remote"), ("remote", "local")] {
        let key = read(&format!("{own}/nc0.key"));
        let public = fed(&["pubkey"], key.as_bytes());
        let line = format!("peer_public_key = \"{}\"\n", out(&public).trim());
        assert!(read(&format!("{other}/nc0.toml")).contains(&line));
    }
    assert_eq!(read("local/nc0.psk"), read("remote/nc0.psk"));
    assert_ne!(read("local/nc0.key"), read("remote/nc0.key"));

    // Nothing is overwritten, and what was begun is taken back.
    let before = read("remote/nc0.key");
    fs::remove_file(folder.0.join("remote/nc0.toml")).unwrap();
    let again = run(args);
    assert_eq!(again.status.code(), Some(1));
    assert!(err(&again).contains("is there already"));
    assert_eq!(read("remote/nc0.key"), before);
    assert!(!folder.0.join("remote/nc0.toml").exists());
}

#[test]
fn init_grants_every_wish() {
    let folder = Folder::new("wishes");
    let dir = folder.0.to_str().unwrap();
    let output = run([
        "init",
        "--public-address",
        "10.0.0.4",
        "--public-address=2001:db8::2",
        "--remote",
        "vps.example.org:443",
        "--client-device",
        "br-lan",
        "--client-gateway",
        "192.168.7.1",
        "--name",
        "bond1",
        "--dir",
        dir,
    ]);
    assert!(output.status.success(), "{}", err(&output));
    let read = |path: &str| fs::read_to_string(folder.0.join(path)).unwrap();
    let (local, remote) = (read("local/bond1.toml"), read("remote/bond1.toml"));
    for (text, line) in [
        (&local, "remote = \"vps.example.org:443\""),
        (
            &local,
            "client = { device = \"br-lan\", gateway = \"192.168.7.1\" }",
        ),
        (&local, "public_address = [\"10.0.0.4\", \"2001:db8::2\"]"),
        (&remote, "public_address = [\"10.0.0.4\", \"2001:db8::2\"]"),
        (&remote, "listen = [\"udp:443\", \"tcp:443\"]"),
        (&remote, "private_key_file = \"bond1.key\""),
    ] {
        assert_eq!(text.lines().filter(|&l| l == line).count(), 1, "{line}");
    }
    for side in ["remote", "local"] {
        assert_eq!(check(&folder.0.join(side).join("bond1.toml")).0, 0);
    }
}

#[test]
fn init_leaves_nothing_when_the_wishes_are_no_configuration() {
    let folder = Folder::new("nowish");
    let dir = folder.0.to_str().unwrap();
    for more in [
        ["--public-address", "203.0.113.3"],
        ["--client-gateway", "203.0.113.2"],
        ["--client-device", "nc0"],
    ] {
        let first = ["init", "--dir", dir, "--public-address", "203.0.113.2"];
        let output = run(first.into_iter().chain(more));
        assert_eq!(output.status.code(), Some(1), "{more:?}");
        assert!(err(&output).contains("nothing was written"), "{more:?}");
        for side in ["remote", "local"] {
            let left = fs::read_dir(folder.0.join(side)).unwrap().count();
            assert_eq!(left, 0, "{more:?} {side}");
        }
    }
}

#[test]
fn files_that_cannot_be_read() {
    let folder = Folder::new("files");
    let cases = [
        (folder.0.join("nothing.toml"), "FILE: there is no such file"),
        (folder.0.clone(), "FILE: is a folder, not a file"),
        (
            folder.file("latin1.toml", b"role = \"local\"\n# \xfcber\n", 0o600),
            "FILE:2:3: this is not UTF-8 text",
        ),
        (
            folder.file("nul.toml", b"role = \"local\"\n\0\n", 0o600),
            "FILE:2:1: this is not text: it holds a NUL byte",
        ),
        (
            folder.file("big.toml", &vec![b'#'; (1 << 20) + 1], 0o600),
            "FILE: is larger than 1 MiB",
        ),
        (
            folder.file("sixteen-letters-.toml", b"", 0o600),
            "FILE: \"sixteen-letters-\", the name of the file",
        ),
    ];
    for (path, expected) in cases {
        let (code, text) = check(&path);
        assert_eq!(code, 1, "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with(expected), "{text}");
    }
}

/// Many errors are printed in moments: the work for one does not grow with the file.
#[test]
fn a_file_of_errors_alone_does_not_hang() {
    let folder = Folder::new("flood");
    let text: String = (0..20_000).map(|n| format!("k{n} = {n}\n")).collect();
    let (code, text) = check(&folder.file("nc0.toml", text.as_bytes(), 0o600));
    assert_eq!(code, 1);
    assert!(text.lines().count() >= 20_000);
    let (code, text) = check(&folder.file("nc1.toml", "=\n".repeat(50_000).as_bytes(), 0o600));
    assert_eq!((code, text.lines().count()), (1, 1));
}

#[test]
fn secrets_that_others_can_read_are_warned_of_with_the_command_that_mends_it() {
    let folder = Folder::new("modes");
    let key = out(&run(["genkey"])).trim().to_owned();
    let peer = out(&fed(&["pubkey"], &run(["genkey"]).stdout))
        .trim()
        .to_owned();
    let rest = format!(
        "role = \"remote\"\npeer_public_key = \"{peer}\"\npublic_address = \"203.0.113.2\"\n\
         listen = \"udp:4725\"\n"
    );
    let inside = format!("{rest}private_key = \"{key}\"\n");
    let beside = format!("{rest}private_key_file = \"my key\"\n");

    let (code, text) = check(&folder.file("nc0.toml", inside.as_bytes(), 0o600));
    assert_eq!((code, text.as_str()), (0, "FILE: no errors\n"));
    let (code, text) = check(&folder.file("nc1.toml", inside.as_bytes(), 0o640));
    assert_eq!(code, 0);
    assert!(text.ends_with("(mode 0640): chmod 600 FILE\n"), "{text}");

    // The configuration itself may be read by all when its secret stands elsewhere.
    folder.file("my key", key.as_bytes(), 0o600);
    let (code, text) = check(&folder.file("nc2.toml", beside.as_bytes(), 0o644));
    assert_eq!((code, text.as_str()), (0, "FILE: no errors\n"));
    let file = folder.file("my key", key.as_bytes(), 0o604);
    let (code, text) = check(&folder.0.join("nc2.toml"));
    assert_eq!(code, 0);
    let mend = format!("(mode 0604): chmod 600 '{}'\n", file.display());
    assert!(text.ends_with(&mend), "{text}");
}

#[test]
fn nobody_listening_is_no_panic() {
    for args in [&["help"][..], &["genkey"], &["check", "/nowhere/nc0.toml"]] {
        let mut child = command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(err(&output), "", "{args:?}");
    }
}

/// Field row A6: a process that handles keys leaves no core dump, and nobody but root can look into it.
#[cfg(target_os = "linux")]
#[test]
fn nobody_looks_into_a_process_that_handles_keys() {
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::process::CommandExt as _;
    use std::time::Duration;

    const NOBODY: u32 = 65534;
    let folder = Folder::new("secrecy");
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.0.join("netcombiner");
    fs::copy(env!("CARGO_BIN_EXE_netcombiner"), &program).unwrap();
    // It waits for a key on its standard input.
    let start = |user: Option<u32>| {
        let mut command = Command::new(&program);
        command.arg("pubkey").stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        user.map(|user| command.uid(user));
        command.spawn()
    };
    // Only root becomes somebody else; others see it by themselves.
    let mut child = start(Some(NOBODY)).or_else(|_| start(None)).unwrap();
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let status = fs::read_to_string(process.join("status")).unwrap();
    let user: u32 = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next())
        .and_then(|user| user.parse().ok())
        .unwrap();
    let hidden = || {
        let limits = fs::read_to_string(process.join("limits")).unwrap();
        let mut lines = limits.lines();
        let core = lines.find_map(|line| line.strip_prefix("Max core file size"));
        let no_core = core.unwrap().split_whitespace().take(2).all(|it| it == "0");
        // What is dumpable belongs to its user (proc_pid(5)).
        no_core && fs::metadata(process.join("environ")).unwrap().uid() != user
    };
    let found = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        hidden()
    });
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(found || user == 0, "user {user}");
}
