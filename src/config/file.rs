//! From a file to a [`Config`], or to every error of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::error::ConfigErrors;
use super::keys::{self, KeyFile, Loader};
use super::reader::Fields;
use super::report::{Lines, Report};
use super::role::{self, Around};
use super::units::{IfName, Mtu};
use super::{Class, Config, Security, Warning, address, link, numbers, schema};

/// A configuration of all keys and comments is some 10 KiB; who names a disk by mistake is told.
const LARGEST: u64 = 1 << 20;

impl Config {
    /// Reads the configuration of a tunnel; the file's name is the tunnel's: `nc0.toml` is `nc0`'s.
    ///
    /// # Errors
    /// Every error of the file at once.
    pub fn read(path: &Path) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let file = path.display().to_string();
        let read = read_text(path, "`netcombiner init` writes a pair of them")
            .map_err(|why| ConfigErrors::of_file(file.clone(), why))?;
        let text = match std::str::from_utf8(&read.bytes) {
            Ok(text) => text,
            Err(error) => {
                let at = Lines::new(&read.bytes).position(error.valid_up_to());
                return Err(ConfigErrors::of_place(file, at, "this is not UTF-8 text"));
            }
        };
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let folder = Folder(path.parent().unwrap_or(Path::new("")).to_owned());
        build(text, &file, &stem, &folder, read.warning)
    }

    /// The configuration of the tunnel `name`, of a text; key files come from `loader`.
    ///
    /// # Errors
    /// Every error of the text at once.
    pub fn parse(
        text: &str,
        name: &str,
        loader: &dyn Loader,
    ) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        build(text, &format!("{name}.toml"), name, loader, None)
    }
}

/// `warning` is what is to be said of the file's permissions if it holds a secret.
fn build(
    text: &str,
    file: &str,
    name: &str,
    loader: &dyn Loader,
    warning: Option<Warning>,
) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    let name: IfName = name.parse().map_err(|_| {
        ConfigErrors::of_file(
            file.to_owned(),
            format!(
                "{name:?}, the name of the file without its ending, is the name of the tunnel's \
                 device, and is not one (1-15 characters, no spaces, '/' or ':')"
            ),
        )
    })?;
    // The parser would call it a word without quotes.
    if let Some(offset) = text.find('\0') {
        let at = Lines::new(text.as_bytes()).position(offset);
        let why = "this is not text: it holds a NUL byte";
        return Err(ConfigErrors::of_place(file.to_owned(), at, why));
    }
    let mut report = Report::new(text);
    let (root, broken) = DeTable::parse_recoverable(text);
    for error in &broken {
        report.syntax(error);
    }
    let fields = Fields::of_file(&schema::FILE, root.get_ref(), &mut report);

    let found = keys::read(&fields, loader, &mut report);
    if found.secret_inside {
        report.warnings.extend(warning);
    }
    let tunnel = address::tunnel(&fields, &mut report);
    let public = address::public(&fields, &tunnel, &mut report);
    let around = Around {
        name: &name,
        public: public.as_ref(),
        tunnel: &tunnel,
    };
    let role = role::read(&fields, &around, &mut report);
    let meeting = link::read(&fields, &around, &mut report);
    let security = security(&fields, &mut report);
    let mtu = mtu(&fields, &mut report);
    let offload = fields.flag("offload", &mut report).unwrap_or(true);
    let ecn = fields.flag("ecn", &mut report).unwrap_or(true);
    let threads = fields.number("threads", 1..=2, "a number of threads", &mut report);
    let redundant = redundant(&fields, &mut report);
    let allow = address::allowed_networks(&fields, &mut report);
    let numbers = numbers::read(&fields, &mut report);
    let manage_routing = fields.flag("manage_routing", &mut report).unwrap_or(true);

    let config = role
        .zip(found.keys)
        .zip(public)
        .map(|((role, keys), public)| Config {
            name,
            role,
            keys,
            security,
            public,
            tunnel,
            mtu,
            offload,
            ecn,
            threads,
            listen: meeting.listen,
            remote: meeting.remote,
            links: meeting.links,
            redundant,
            allow,
            numbers,
            manage_routing,
        });
    report.finish(file.to_owned(), config)
}

/// Data in clear and open to forgery is for the inside of another VPN alone: it is said twice.
fn security(fields: &Fields<'_>, report: &mut Report<'_>) -> Security {
    const TWICE: &str = "i_understand_data_is_not_protected";
    let security = fields.word("security", report).unwrap_or(Security::Encrypt);
    let said_twice = fields.flag(TWICE, report);
    if security == Security::None && said_twice != Some(true) {
        report.error(
            &fields.at("security"),
            format!(
                "\"none\" lets anyone read and forge the data: it needs {TWICE} = true too (or \
                 use \"encrypt\" or \"authenticate\")"
            ),
        );
    }
    if security != Security::None && said_twice.is_some() {
        report.error(
            &fields.at(TWICE),
            format!("only with security = \"none\", and here it is \"{security}\""),
        );
    }
    security
}

/// What is sent twice is looked for in every packet: the list is short.
fn redundant(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<Class> {
    const MOST: usize = 16;
    let Some(field) = fields.get("redundant") else {
        return Vec::new();
    };
    let classes = field.words(report);
    if let Some((at, _)) = classes.get(MOST) {
        report.error(at, format!("is one too many (at most {MOST})"));
    }
    classes.into_iter().map(|(_, class)| class).collect()
}

fn mtu(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<Mtu> {
    Mtu::new(fields.number("mtu", 1280..=9000, "an MTU in bytes", report)?)
}

/// Key files beside the configuration: a relative path counts from its folder.
struct Folder(PathBuf);

impl Loader for Folder {
    fn load(&self, path: &Path) -> Result<KeyFile, String> {
        let path = self.0.join(path);
        let read = read_text(&path, "`netcombiner genkey` and `genpsk` make one")
            .map_err(|why| format!("{}: {why}", path.display()))?;
        let text = std::str::from_utf8(&read.bytes).unwrap_or_default();
        Ok(KeyFile {
            text: Zeroizing::new(text.to_owned()),
            warning: read.warning,
        })
    }
}

struct ReadFile {
    bytes: Zeroizing<Vec<u8>>,
    warning: Option<Warning>,
}

/// Why a file was not read, and what to do.
fn tell(error: io::Error, hint: &str) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::NotFound {
        format!("there is no such file ({hint})")
    } else if kind == io::ErrorKind::PermissionDenied {
        "this user may not read it (try as root, or with sudo)".to_owned()
    } else {
        format!("cannot be read: {error}")
    }
}

/// Reads a file that may hold a secret, or says why not; `hint` is for one that is not there.
fn read_text(path: &Path, hint: &str) -> Result<ReadFile, String> {
    let tell = |error| tell(error, hint);
    let file = File::open(path).map_err(tell)?;
    let about = file.metadata().map_err(tell)?;
    if about.is_dir() {
        return Err("is a folder, not a file".to_owned());
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(tell)?;
    if bytes.len() as u64 > LARGEST {
        return Err("is larger than 1 MiB, so it is not ours".to_owned());
    }
    Ok(ReadFile {
        bytes,
        warning: open_to_others(path, &about),
    })
}

#[cfg(unix)]
fn open_to_others(path: &Path, about: &std::fs::Metadata) -> Option<Warning> {
    use std::os::unix::fs::PermissionsExt as _;
    // Read or write for the group or for all.
    const OTHERS: u32 = 0o066;
    let mode = about.permissions().mode() & 0o7777;
    (about.is_file() && mode & OTHERS != 0).then(|| Warning {
        place: path.display().to_string(),
        text: format!(
            "holds a secret that others than its owner can read or change (mode {mode:04o}): \
             chmod 600 {}",
            shell_word(path)
        ),
    })
}

#[cfg(not(unix))]
fn open_to_others(_: &Path, _: &std::fs::Metadata) -> Option<Warning> {
    None
}

/// A path as a shell takes it.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,=".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
