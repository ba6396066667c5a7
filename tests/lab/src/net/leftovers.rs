//! What of a lab is still there after it should be gone.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::spawn::{MARK, mark};
use super::{HostState, Namespace, host_state};
use crate::error::Error;

/// Looks at the host before a lab, and compares after it.
#[derive(Debug)]
pub struct Watch {
    root: Namespace,
    before: HostState,
    /// Inodes of the lab's namespaces.
    namespaces: BTreeSet<u64>,
}

/// What was left: an empty list each when all is well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Lab namespaces that a process of ours still holds.
    pub namespaces: Vec<String>,
    /// Differences of the host's own devices, addresses, rules, routes and settings.
    pub host: Vec<String>,
    /// Processes that the lab started, or that those started.
    pub processes: Vec<String>,
}

impl Leftovers {
    /// How many in all.
    pub const fn count(&self) -> usize {
        self.namespaces.len() + self.host.len() + self.processes.len()
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("namespace", &self.namespaces),
            ("host", &self.host),
            ("process", &self.processes),
        ];
        for (kind, lines) in kinds {
            for line in lines {
                writeln!(f, "left over: {kind} {line}")?;
            }
        }
        Ok(())
    }
}

impl Watch {
    /// Notes what the host is like now, before the lab.
    pub fn start() -> Result<Self, Error> {
        let root = Namespace::current("root")?;
        let before = host_state(&root)?;
        Ok(Self {
            root,
            before,
            namespaces: BTreeSet::new(),
        })
    }

    /// Notes a namespace of the lab.
    pub fn add(&mut self, namespace: &Namespace) -> Result<(), Error> {
        self.namespaces.insert(namespace.inode()?);
        Ok(())
    }

    /// What is left. To be called when the lab is dropped.
    pub fn leftovers(&self) -> Result<Leftovers, Error> {
        let mut left = Leftovers {
            host: self.before.differences(&host_state(&self.root)?),
            ..Leftovers::default()
        };
        let own = std::process::id();
        let marks: Vec<String> = self
            .namespaces
            .iter()
            .map(|inode| format!("{MARK}={}", mark(*inode)))
            .collect();
        for pid in processes() {
            let dir = format!("/proc/{pid}");
            if pid != own {
                let environment = fs::read(format!("{dir}/environ")).unwrap_or_default();
                let mut entries = environment.split(|byte| *byte == 0);
                if !entries.any(|entry| marks.iter().any(|mark| entry == mark.as_bytes())) {
                    continue;
                }
                let name = fs::read_to_string(format!("{dir}/comm")).unwrap_or_default();
                left.processes.push(format!("{pid} {}", name.trim()));
            }
            let held = held_namespaces(Path::new(&dir));
            let ours = held.intersection(&self.namespaces);
            left.namespaces
                .extend(ours.map(|inode| format!("{inode} held by process {pid}")));
        }
        Ok(left)
    }
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The inodes of the network namespaces that a process is in or has open.
fn held_namespaces(process: &Path) -> BTreeSet<u64> {
    let mut held = BTreeSet::new();
    let tasks = fs::read_dir(process.join("task"))
        .into_iter()
        .flatten()
        .flatten();
    for task in tasks {
        held.extend(fs::metadata(task.path().join("ns/net")).map(|meta| meta.ino()));
    }
    for open in fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let target = fs::read_link(open.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        let inode = target
            .strip_prefix("net:[")
            .and_then(|rest| rest.strip_suffix(']'));
        held.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
    }
    held
}
