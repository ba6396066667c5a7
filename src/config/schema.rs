//! Every key that a configuration may have, on one page. Their meaning, unit and default stand in
//! `etc/nc0-remote.toml` and `etc/nc0-local.toml`, and a test holds the two together.

use super::suggest::nearest;

/// Which portal a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Portal {
    Local,
    Remote,
}

impl Portal {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }
}

/// One key of a table.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// The only portal that has it.
    pub(super) only: Option<Portal>,
}

/// The keys of one table; the file itself is the table without a name.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) name: &'static str,
    pub(super) keys: &'static [Key],
}

const fn both(name: &'static str) -> Key {
    Key { name, only: None }
}

const fn local(name: &'static str) -> Key {
    Key {
        name,
        only: Some(Portal::Local),
    }
}

pub(super) static FILE: Schema = Schema {
    name: "",
    keys: &[
        both("role"),
        both("private_key"),
        both("private_key_file"),
        both("peer_public_key"),
        both("preshared_key"),
        both("preshared_key_file"),
        both("public_address"),
        both("listen"),
        both("remote"),
        both("security"),
        both("i_understand_data_is_not_protected"),
        both("redundant"),
        both("allow"),
        both("mtu"),
        both("offload"),
        both("ecn"),
        both("threads"),
        both("tunnel"),
        both("manage_routing"),
        both("table_base"),
        both("keep_pref"),
        both("link_pref"),
        both("link_table_base"),
        both("mark"),
        both("mark_mask"),
        both("link"),
        local("deliver"),
        local("client"),
        local("lan"),
        local("forwards"),
        local("without_tunnel"),
        local("native_ipv6"),
        both("keep"),
    ],
};

pub(super) static LINK: Schema = Schema {
    name: "link",
    keys: &[
        both("name"),
        both("device"),
        both("transport"),
        both("port"),
        both("remote"),
        both("gateway"),
        both("source"),
        both("metric"),
        both("rate_up"),
        both("rate_down"),
        both("congestion"),
    ],
};

pub(super) static CLIENT: Schema = Schema {
    name: "client",
    keys: &[both("device"), both("gateway")],
};

pub(super) static LAN: Schema = Schema {
    name: "lan",
    keys: &[both("device"), both("devices")],
};

pub(super) static TUNNEL: Schema = Schema {
    name: "tunnel",
    keys: &[
        both("local"),
        both("remote"),
        both("local_v6"),
        both("remote_v6"),
    ],
};

static ALL: [&Schema; 5] = [&FILE, &LINK, &CLIENT, &LAN, &TUNNEL];

impl Schema {
    pub(super) fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// What is said of a key that this table does not have.
    pub(super) fn unknown(&self, name: &str) -> String {
        if let Some(word) = nearest(name, self.keys.iter().map(|key| key.name)) {
            return format!("unknown key (did you mean \"{word}\"?)");
        }
        // In TOML a key that stands below a [table] belongs to it: the commonest slip there is.
        if !self.name.is_empty() && FILE.find(name).is_some() {
            return "unknown key here (it belongs to the file: write it above the first [table])"
                .to_owned();
        }
        match ALL.iter().find(|table| table.find(name).is_some()) {
            Some(table) => format!("unknown key here (it belongs to \"{}\")", table.name),
            None if self.name.is_empty() => {
                "unknown key (the comments of the default configurations name all)".to_owned()
            }
            None => format!(
                "unknown key (known here: {})",
                self.keys
                    .iter()
                    .map(|key| key.name)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        }
    }
}

/// Every key by its table and name: `mtu`, `link.port`.
pub fn known_keys() -> impl Iterator<Item = String> {
    ALL.iter().flat_map(|table| {
        table.keys.iter().map(|key| match table.name {
            "" => key.name.to_owned(),
            name => format!("{name}.{}", key.name),
        })
    })
}
