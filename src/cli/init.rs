//! `netcombiner init`: a matching pair of configurations, keys included.

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use lexopt::ValueExt as _;
use lexopt::prelude::*;
use zeroize::Zeroizing;

use super::args::{CliError, unexpected};
use super::{help, key_output};
use crate::config::units::IfName;
use crate::config::{Config, DEFAULT_PORT, Endpoint, default_path};
use crate::host::filter_notices;
use crate::io::entropy::SystemEntropy;
use crate::proto::crypto::keys::{PresharedKey, PrivateKey};

pub(super) const HELP: &str = "\
usage: netcombiner init --public-address ADDRESS [OPTION ...]

Writes remote/NAME.toml for the VPS and local/NAME.toml for the router at home, each
with its key files (mode 0600), and says what to do with them. Nothing is overwritten.

  --public-address ADDRESS   the VPS's address; again for the other family
  --remote HOST[:PORT]       where the VPS is reached (default: the public address, port 4725)
  --client-device DEVICE     the router's device towards the client (default: lan)
  --client-gateway ADDRESS   the router's address on it (default: 192.168.1.1)
  --name NAME                the tunnel's device (default: nc0)
  --dir FOLDER               where to write (default: here)
";

const REMOTE: &str = include_str!("../../etc/nc0-remote.toml");
const LOCAL: &str = include_str!("../../etc/nc0-local.toml");

/// What the command line says.
struct Wish {
    public: Vec<IpAddr>,
    remote: Option<Endpoint>,
    device: IfName,
    gateway: Ipv4Addr,
    name: IfName,
    folder: PathBuf,
}

pub(crate) fn run(parser: lexopt::Parser) -> Result<ExitCode, CliError> {
    let Some(wish) = read(parser)? else {
        return help::print(HELP);
    };
    let mut entropy = SystemEntropy::new()?;
    let remote_key = PrivateKey::generate(&mut entropy);
    let local_key = PrivateKey::generate(&mut entropy);
    let preshared = PresharedKey::generate(&mut entropy);

    let mut files = Vec::new();
    for (side, text, own, peer) in [
        ("remote", REMOTE, &remote_key, &local_key),
        ("local", LOCAL, &local_key, &remote_key),
    ] {
        let folder = wish.folder.join(side);
        let named = |ending: &str| folder.join(format!("{}.{ending}", wish.name));
        let config = Zeroizing::new(configuration(&wish, text, peer)?);
        files.push((named("toml"), config));
        files.push((named("key"), key_output::line_of(own.reveal())));
        files.push((named("psk"), key_output::line_of(preshared.reveal())));
    }
    write(&wish, &files)?;

    // What was written is read again as the daemon will: a wrong wish is told now.
    for side in ["remote", "local"] {
        let path = wish.folder.join(side).join(format!("{}.toml", wish.name));
        if let Err(errors) = Config::read(&path) {
            remove(&files);
            return Err(CliError::failed(format!(
                "these wishes make no valid configuration, nothing was written:\n{errors}"
            )));
        }
    }
    tell(&wish)?;
    // The one of the two hosts that this is may have something to do.
    for notice in filter_notices(None) {
        writeln!(io::stdout().lock(), "On this host: {notice}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(mut parser: lexopt::Parser) -> Result<Option<Wish>, CliError> {
    let mut public = Vec::new();
    let (mut remote, mut device, mut gateway) = (None, None, None);
    let (mut name, mut folder) = (None, None);
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(None),
            Long("public-address") => public.push(value(&mut parser, "--public-address")?),
            Long("remote") => remote = Some(value(&mut parser, "--remote")?),
            Long("client-device") => device = Some(value(&mut parser, "--client-device")?),
            Long("client-gateway") => gateway = Some(value(&mut parser, "--client-gateway")?),
            Long("name") => name = Some(value(&mut parser, "--name")?),
            Long("dir") => folder = Some(PathBuf::from(parser.value()?)),
            other @ (Short(_) | Long(_) | Value(_)) => return Err(unexpected(&other, "init")),
        }
    }
    if public.is_empty() {
        return Err(CliError::usage(
            "which address has the VPS? Write `netcombiner init --public-address ADDRESS`",
        ));
    }
    let named =
        |text: &str| IfName::from_str(text).map_err(|error| CliError::failed(error.to_string()));
    Ok(Some(Wish {
        public,
        remote,
        device: device.map_or_else(|| named("lan"), Ok)?,
        gateway: gateway.unwrap_or(Ipv4Addr::new(192, 168, 1, 1)),
        name: name.map_or_else(|| named("nc0"), Ok)?,
        folder: folder.unwrap_or_default(),
    }))
}

fn value<T: FromStr>(parser: &mut lexopt::Parser, option: &str) -> Result<T, CliError>
where
    T::Err: std::fmt::Display,
{
    let text = parser.value()?.string()?;
    text.parse()
        .map_err(|error: T::Err| CliError::usage(format!("{option} {text:?}: {error}")))
}

/// A default configuration with the wishes in it.
fn configuration(wish: &Wish, text: &str, peer: &PrivateKey) -> Result<String, CliError> {
    let public: Vec<String> = wish
        .public
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    let public = match public.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    let remote = match (&wish.remote, wish.public.first()) {
        (Some(remote), _) => remote.clone(),
        (None, Some(address)) => Endpoint {
            host: address.to_string(),
            port: DEFAULT_PORT,
        },
        (None, None) => return Err(CliError::failed("there is no public address")),
    };
    let mut text = text.to_owned();
    for (key, value) in [
        ("private_key_file", format!("\"{}.key\"", wish.name)),
        ("preshared_key_file", format!("\"{}.psk\"", wish.name)),
        ("peer_public_key", format!("\"{}\"", peer.public())),
        ("public_address", public),
        ("remote", format!("\"{remote}\"")),
        ("listen", format!("[\"udp:{0}\", \"tcp:{0}\"]", remote.port)),
        (
            "client",
            format!(
                "{{ device = {:?}, gateway = \"{}\" }}",
                wish.device.as_str(),
                wish.gateway
            ),
        ),
    ] {
        // The secret of both is a comment in the defaults; the rest is set where the default has
        // it set.
        let commented = key == "preshared_key_file";
        text = with_value(&text, key, &value, commented);
    }
    Ok(text)
}

/// The text with `key` set to `value` in the first line that sets it; also where that line is a
/// comment, if `commented`.
fn with_value(text: &str, key: &str, value: &str, commented: bool) -> String {
    let sets = |line: &str| {
        line.strip_prefix(key)
            .is_some_and(|rest| rest.starts_with(" = "))
    };
    let mut done = false;
    let mut result = String::with_capacity(text.len() + value.len());
    for line in text.lines() {
        let bare = line
            .strip_prefix("# ")
            .filter(|_| commented)
            .unwrap_or(line);
        if !done && sets(bare) {
            done = true;
            result.push_str(&format!("{key} = {value}\n"));
        } else {
            result.push_str(line);
            result.push('\n');
        }
    }
    result
}

/// Writes all files, or none.
fn write(wish: &Wish, files: &[(PathBuf, Zeroizing<String>)]) -> Result<(), CliError> {
    for side in ["remote", "local"] {
        let folder = wish.folder.join(side);
        fs::create_dir_all(&folder)
            .map_err(|error| CliError::failed(format!("{}: {error}", folder.display())))?;
    }
    for (index, (path, text)) in files.iter().enumerate() {
        let written = key_output::create_private(path).and_then(|mut file| {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
        });
        if let Err(error) = written {
            let foreign = error.kind() == io::ErrorKind::AlreadyExists;
            remove(if foreign {
                &files[..index]
            } else {
                &files[..=index]
            });
            let path = path.display();
            return Err(CliError::failed(if foreign {
                format!(
                    "{path} is there already, nothing was written (move it away, or write \
                     elsewhere with --dir)"
                )
            } else {
                format!("{path}: {error}")
            }));
        }
    }
    Ok(())
}

/// Takes back what was written; what stays is told by the next try.
fn remove(files: &[(PathBuf, Zeroizing<String>)]) {
    for (path, _) in files {
        let _ = fs::remove_file(path);
    }
}

fn tell(wish: &Wish) -> io::Result<()> {
    let name = &wish.name;
    let path = default_path(name);
    let place = path.parent().unwrap_or(Path::new("/")).display();
    let folder = |side: &str| wish.folder.join(side).display().to_string();
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "Wrote {remote}/{name}.toml, .key, .psk and {local}/{name}.toml, .key, .psk

1. On the VPS, as root: mkdir -p {place}, copy all of {remote}/ into it (it holds secrets), then
     netcombiner check {name} && netcombiner up {name}
2. On the router, as root: mkdir -p {place}, copy all of {local}/ into it, see that the client is
   behind the device {device}, then
     netcombiner check {name} && netcombiner up {name}
3. Give the client the address {public}, with the gateway {gateway}.
4. Delete {remote}/ and {local}/ here.",
        remote = folder("remote"),
        local = folder("local"),
        device = wish.device,
        gateway = wish.gateway,
        public = wish
            .public
            .iter()
            .map(IpAddr::to_string)
            .collect::<Vec<_>>()
            .join(" and "),
    )?;
    out.flush()
}
