//! What was borrowed of the host, as it was before: kernel settings, where the local table's rule
//! stood, and whether the addresses that we want were there already (addresses carry no mark on kernels
//! before 5.18, so this is how ours are known, on whatever device).
//!
//! It is written to a file before the first change and removed after everything has been given
//! back. When we were killed, the file of then holds the truth and the present values do not.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::borrowed::{Before, Borrowed};
use super::{HostError, KERNEL_LOCAL_PREF, Scope};
use crate::config::units::{Family, IfName, RulePref};
use crate::route::border;
use crate::route::forwarding::SWITCHES;
use crate::route::handed::HandedOver;
use crate::route::links::{Observed, ObservedLink};
use crate::route::resource::{LocalTable, Setting};
use crate::route::{HostState, Resource};

/// The borrowed things of one tunnel, and their file.
#[derive(Debug)]
pub struct Baseline {
    path: PathBuf,
    tunnel: IfName,
    borrowed: Borrowed,
}

impl Baseline {
    /// Reads the file that a killed instance left, if any. Changes nothing.
    pub fn open(run_directory: &Path, tunnel: &IfName) -> Result<Self, HostError> {
        let path = run_directory.join(format!("{tunnel}.baseline"));
        let refuse = |error| HostError::Baseline {
            path: path.display().to_string(),
            error,
        };
        let borrowed = match fs::read_to_string(&path) {
            Ok(text) => Borrowed::read(&text).map_err(|fault| {
                refuse(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "{fault}; it holds the settings from before netcombiner ran: restore them \
                         by hand, then remove it"
                    ),
                ))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Borrowed::default(),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(refuse(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "only its owner may read it: run this as root",
                )));
            }
            Err(error) => return Err(refuse(error)),
        };
        Ok(Self {
            path,
            tunnel: tunnel.clone(),
            borrowed,
        })
    }

    /// True when nothing is borrowed. Which devices and forwarders there are is noted before the first loan.
    pub fn is_empty(&self) -> bool {
        let mut loans = self.borrowed.clone();
        loans.forwarders.clear();
        loans.devices.clear();
        loans == Borrowed::default()
    }

    /// The value from before of a setting that is borrowed.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.borrowed.settings.get(key).map(String::as_str)
    }

    /// What has been handed over to the client.
    pub fn handed_over(&self) -> &HandedOver {
        &self.borrowed.handed
    }

    /// Remembers who could forward before we switched it on, and by which devices.
    pub fn set_forwarders(&mut self, who: Vec<String>, devices: &[ObservedLink]) {
        let devices = devices.iter().map(|it| it.device.to_string());
        self.borrowed.devices = devices.collect();
        self.borrowed.forwarders = who;
    }

    /// Leaves out those who were there already when we switched forwarding on, and did without it. While it is
    /// not borrowed, that is everybody. The others may forward by the devices that they name or that are new.
    pub fn keep_newcomers(&self, observed: &mut Observed) {
        let is_on = SWITCHES.iter().any(|key| self.setting(key).is_some());
        let before = &self.borrowed;
        let who = &mut observed.forwarders;
        who.retain(|it| is_on && !before.forwarders.contains(it));
        if who.is_empty() {
            return;
        }
        let tunnel = self.tunnel.as_str();
        for link in &observed.links {
            let name = link.device.to_string();
            // An older version wrote none of them down.
            let is_new = !before.devices.is_empty() && !before.devices.contains(&name);
            if is_new || observed.filters.forwards(who, tunnel, link) {
                observed.opened.push(name);
            }
        }
    }

    /// Leaves forwarding on where it would be switched off, and says so, when somebody of those who forward
    /// now did not when we switched it on.
    pub fn leave_switches_to(
        &mut self,
        observed: &Observed,
        desired: &HostState,
    ) -> Result<(), HostError> {
        let Some(who) = observed.forwarders.first() else {
            return Ok(());
        };
        for switch in self.switches_back(desired) {
            self.borrowed.settings.remove(switch);
            log::warn!(
                "{switch} was 0 before netcombiner and stays 1: {who} came after, and needs it{}",
                self.routed_since(switch, observed)
            );
        }
        self.save().map_err(|error| self.refuse(error))
    }

    /// What a switch that stays on routes besides, and how to close that, where there is something.
    fn routed_since(&self, switch: &str, observed: &Observed) -> String {
        let (family, word) = match SWITCHES.iter().position(|it| *it == switch) {
            Some(0) => (Family::V4, "ipv4"),
            Some(1) => (Family::V6, "ipv6"),
            // pf was open to all as soon as somebody came.
            _ => return String::new(),
        };
        let leads_out = |link: &&ObservedLink| link.has_any_default();
        let uplinks = observed.links.iter().filter(leads_out);
        let uplinks: Vec<_> = uplinks.map(|link| link.device.clone()).collect();
        let shut = border::unopened(observed, &uplinks, &[], &self.tunnel);
        let (mut networks, mut names) = (Vec::new(), Vec::new());
        for link in shut.iter().filter_map(|it| observed.link(it)) {
            let own = link.addresses_of(family).map(|own| own.network());
            let before = networks.len();
            networks.extend(own.map(|own| format!("{own} ({})", link.device)));
            if networks.len() > before {
                names.push(format!("\"{}\"", link.device));
            }
        }
        if names.len() < 2 {
            return String::new();
        }
        let (networks, names) = (networks.join(", "), names.join(", "));
        format!(
            ". This host routes between these as well now, unless other rules stop it: {networks}. To close \
             that: nft 'table inet closed {{ chain forward {{ type filter hook forward priority 0; \
             meta nfproto {word} iifname {{ {names} }} oifname {{ {names} }} drop; }}; }}'"
        )
    }

    /// The switches of forwarding that are to go back to "off".
    pub fn switches_back(&self, desired: &HostState) -> Vec<&'static str> {
        let wanted = |key: &str| desired.iter().any(|it| is_setting(it, key));
        let mut switches = SWITCHES.to_vec();
        switches.retain(|key| self.setting(key) == Some("0") && !wanted(key));
        switches
    }

    /// True when forwarding is wanted and no switch of it is borrowed yet.
    pub fn switches_on(&self, desired: &HostState) -> bool {
        let wanted = |key: &&str| desired.iter().any(|it| is_setting(it, key));
        SWITCHES.iter().all(|key| self.setting(key).is_none()) && SWITCHES.iter().any(wanted)
    }

    /// Everything borrowed, as it was.
    pub fn state(&self) -> HostState {
        let settings = self.borrowed.settings.iter().map(|(key, value)| {
            Resource::Setting(Setting {
                key: key.clone(),
                value: value.clone(),
            })
        });
        let local_tables = self.borrowed.local_tables.iter().map(|(family, pref)| {
            Resource::LocalTable(LocalTable {
                family: *family,
                pref: *pref,
            })
        });
        let addresses = self.addresses(Before::There);
        settings.chain(local_tables).chain(addresses).collect()
    }

    /// What to look for on the host: all that `desired` names and all that was ever borrowed.
    pub fn scope(&self, desired: &HostState) -> Scope {
        let ours = self.addresses(Before::Absent).collect();
        let mut scope = Scope::of(&self.tunnel, [desired, &self.state(), &ours]);
        scope.marked |= self.borrowed.marked;
        scope
    }

    fn addresses(&self, before: Before) -> impl Iterator<Item = Resource> {
        let written = self.borrowed.addresses.iter();
        written
            .filter(move |(_, b)| **b == before)
            .map(|(address, _)| Resource::Address(address.clone()))
    }

    /// Remembers how everything that `desired` borrows stands in `present`, unless it is
    /// remembered already, and writes the file. Nothing may be changed before this.
    pub fn borrow(&mut self, desired: &HostState, present: &HostState) -> Result<(), HostError> {
        let before = self.borrowed.clone();
        if self.is_empty() {
            self.heed_unknown(desired, present);
        }
        for resource in desired.iter() {
            match resource {
                Resource::Setting(setting) => self.borrow_setting(&setting.key, present),
                Resource::LocalTable(local) => self.borrow_local_table(local.family, present),
                Resource::Address(address) => {
                    let before = if present.contains(resource) {
                        Before::There
                    } else {
                        Before::Absent
                    };
                    let addresses = &mut self.borrowed.addresses;
                    addresses.get_or_insert_with(address.clone(), || before);
                }
                Resource::Neighbour(_)
                | Resource::Route(_)
                | Resource::Filter(_)
                | Resource::Rule(_) => self.borrowed.marked = true,
            }
        }
        let handed = HandedOver::in_state(desired);
        // While all is given back, the old one still holds.
        if !handed.addresses.is_empty() {
            self.borrowed.handed = handed;
        }
        if self.borrowed == before {
            return Ok(());
        }
        self.save().map_err(|error| self.refuse(error))
    }

    /// A killed instance was here whose file is gone, or is in another run directory. The kernel's own place of
    /// table local is known without it; the old values of settings are not.
    fn heed_unknown(&mut self, desired: &HostState, present: &HostState) {
        let is_marked = |it: &Resource| {
            use Resource::{Filter, Route, Rule};
            matches!(it, Route(_) | Filter(_) | Rule(_))
        };
        if !present.iter().any(is_marked) {
            return;
        }
        for resource in desired.iter() {
            if let Resource::LocalTable(local) = resource {
                let tables = &mut self.borrowed.local_tables;
                tables.insert(local.family, KERNEL_LOCAL_PREF);
            }
        }
        let mut made = Vec::new();
        for resource in present.iter().filter(|it| desired.contains(it)) {
            if let Resource::Setting(setting) = resource {
                made.push(setting.key.as_str());
            }
        }
        log::warn!(
            "a netcombiner was killed here, and what it changed is not on record in {}; these settings may be \
             its own, and will stay: {}",
            self.path.display(),
            made.join(" ")
        );
    }

    fn borrow_setting(&mut self, key: &str, present: &HostState) {
        for resource in present.iter() {
            if let Resource::Setting(setting) = resource
                && setting.key == key
            {
                let value = || setting.value.clone();
                let settings = &mut self.borrowed.settings;
                settings.get_or_insert_with(key.to_owned(), value);
            }
        }
    }

    fn borrow_local_table(&mut self, family: Family, present: &HostState) {
        // Two can stand there when an earlier instance was killed during the move: the first is the
        // kernel's. None at all is a broken host, to which the kernel's own place is given back.
        let mut pref = None;
        for resource in present.iter() {
            if let Resource::LocalTable(local) = resource
                && local.family == family
            {
                pref = Some(pref.map_or(local.pref, |it: RulePref| it.min(local.pref)));
            }
        }
        self.borrowed
            .local_tables
            .get_or_insert_with(family, || pref.unwrap_or(KERNEL_LOCAL_PREF));
    }

    /// `desired`, and for everything borrowed that it does not name the value from before.
    pub fn complete(&self, desired: &HostState, present: &HostState) -> HostState {
        let mut complete: HostState = desired.iter().cloned().collect();
        for resource in self.state().iter() {
            let wanted = match resource {
                // A setting of a device that is gone has gone with it.
                Resource::Setting(setting) => {
                    !desired.iter().any(|other| is_setting(other, &setting.key))
                        && present.iter().any(|other| is_setting(other, &setting.key))
                }
                Resource::LocalTable(local) => !desired.iter().any(|other| {
                    matches!(other, Resource::LocalTable(other) if other.family == local.family)
                }),
                // The administrator's address stays where it stands, and is not put back when he
                // took it away meanwhile.
                Resource::Address(_) => present.contains(resource),
                Resource::Neighbour(_)
                | Resource::Route(_)
                | Resource::Filter(_)
                | Resource::Rule(_) => false,
            };
            if wanted {
                complete.insert(resource.clone());
            }
        }
        complete
    }

    /// Forgets what `desired` no longer names: it has been given back, and from now on is the
    /// administrator's to change.
    pub fn settle(&mut self, desired: &HostState) -> Result<(), HostError> {
        let before = self.borrowed.clone();
        let wanted = Scope::of(&self.tunnel, [desired]);
        let Borrowed {
            settings,
            local_tables,
            addresses,
            marked,
            handed,
            forwarders,
            devices,
            undoing: _,
        } = &mut self.borrowed;
        settings.retain(|key, _| wanted.settings.contains(key));
        local_tables.retain(|family, _| wanted.local_tables.contains_key(family));
        addresses.retain(|address, _| wanted.addresses.contains(address));
        *marked &= wanted.marked;
        if !*marked {
            *handed = HandedOver::default();
        }
        if !SWITCHES.iter().any(|switch| settings.contains_key(*switch)) {
            forwarders.clear();
            devices.clear();
        }
        if self.borrowed == before {
            Ok(())
        } else if self.is_empty() {
            self.remove()
        } else {
            self.save().map_err(|error| self.refuse(error))
        }
    }

    /// The commands that undo what was done, in the order in which it was done.
    pub fn undoing(&self) -> &[String] {
        &self.borrowed.undoing
    }

    /// Remembers how to undo something, before it is done.
    pub fn remember(&mut self, undoing: String) -> Result<(), HostError> {
        if self.borrowed.undoing.contains(&undoing) {
            return Ok(());
        }
        self.borrowed.undoing.push(undoing);
        self.save().map_err(|error| self.refuse(error))
    }

    /// Forgets how to undo something: it has been undone.
    pub fn forget(&mut self, undoing: &str) -> Result<(), HostError> {
        self.borrowed.undoing.retain(|it| it != undoing);
        self.save().map_err(|error| self.refuse(error))
    }

    /// Forgets everything: it has been given back.
    pub fn remove(&mut self) -> Result<(), HostError> {
        self.borrowed = Borrowed::default();
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.refuse(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn refuse(&self, error: io::Error) -> HostError {
        HostError::Baseline {
            path: self.path.display().to_string(),
            error,
        }
    }

    /// Writes beside and renames, so that a crash leaves the old file or the new one.
    fn save(&self) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let beside = self.path.with_extension("baseline.new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(self.borrowed.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        File::open(directory)?.sync_all()
    }
}

fn is_setting(resource: &Resource, key: &str) -> bool {
    matches!(resource, Resource::Setting(setting) if setting.key == key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::route::resource::Address;

    fn setting(key: &str, value: &str) -> Resource {
        Resource::Setting(Setting {
            key: key.into(),
            value: value.into(),
        })
    }

    fn local(family: Family, pref: u32) -> Resource {
        Resource::LocalTable(LocalTable {
            family,
            pref: RulePref(pref),
        })
    }

    fn gateway() -> Resource {
        Resource::Address(Address {
            device: "lan".parse().unwrap(),
            prefix: "192.168.1.1/24".parse().unwrap(),
            peer: None,
        })
    }

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!(
            "netcombiner-baseline-{name}-{}",
            std::process::id()
        ));
        let _ = fs::remove_dir_all(&directory);
        directory
    }

    #[test]
    fn first_values_win() {
        let directory = directory("first");
        let tunnel = "nc0".parse().unwrap();
        let desired: HostState = [setting("a", "1"), local(Family::V4, 20), gateway()]
            .into_iter()
            .collect();
        let before: HostState = [setting("a", "0"), local(Family::V4, 0), gateway()]
            .into_iter()
            .collect();
        let mut baseline = Baseline::open(&directory, &tunnel).unwrap();
        assert!(baseline.is_empty());
        baseline.borrow(&desired, &before).unwrap();
        let mode = fs::metadata(&baseline.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // Killed; the present values are ours now.
        let mut baseline = Baseline::open(&directory, &tunnel).unwrap();
        baseline.borrow(&desired, &desired).unwrap();
        assert_eq!(baseline.state(), before);
        assert_eq!(baseline.complete(&HostState::new(), &desired), before);
        assert_eq!(baseline.complete(&desired, &desired), desired);

        baseline.remove().unwrap();
        baseline.remove().unwrap();
        assert!(Baseline::open(&directory, &tunnel).unwrap().is_empty());
        fs::remove_dir_all(&directory).unwrap();
    }

    /// The file of the one that was killed is gone: what is ours stands there, and table local where it was put.
    #[test]
    fn the_kernels_place_of_table_local_needs_no_record() {
        use crate::route::resource::Rule;
        let directory = directory("unknown");
        let desired = HostState::from_iter([setting("a", "1"), local(Family::V4, 20)]);
        for (is_marked, pref) in [(true, 0), (false, 20)] {
            let rule = Rule::new(Family::V4, RulePref(19), crate::config::units::TableId(19));
            let rule = is_marked.then_some(Resource::Rule(rule));
            let present = desired.iter().cloned().chain(rule).collect();
            let mut baseline = Baseline::open(&directory, &"nc0".parse().unwrap()).unwrap();
            baseline.set_forwarders(vec!["chain FORWARD".to_owned()], &[]);
            baseline.borrow(&desired, &present).unwrap();
            assert!(baseline.state().contains(&local(Family::V4, pref)));
            baseline.remove().unwrap();
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_is_gone_is_not_given_back() {
        let directory = directory("gone");
        let mut baseline = Baseline::open(&directory, &"nc0".parse().unwrap()).unwrap();
        let before: HostState = [setting("wan1", "1"), gateway()].into_iter().collect();
        let desired: HostState = [setting("wan1", "2"), gateway()].into_iter().collect();
        baseline.borrow(&desired, &before).unwrap();
        let nothing = HostState::new();
        assert_eq!(baseline.complete(&nothing, &nothing), nothing);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn an_added_address_is_ours() {
        let directory = directory("ours");
        let mut baseline = Baseline::open(&directory, &"nc0".parse().unwrap()).unwrap();
        let desired: HostState = [setting("a", "1"), gateway()].into_iter().collect();
        let before: HostState = [setting("a", "0")].into_iter().collect();
        baseline.borrow(&desired, &before).unwrap();
        let mut baseline = Baseline::open(&directory, &"nc0".parse().unwrap()).unwrap();
        baseline.borrow(&desired, &desired).unwrap();
        assert_eq!(baseline.state(), before);
        assert_eq!(baseline.complete(&HostState::new(), &desired), before);
        // It is looked for although nobody wants it any more, so that it can be taken away.
        let scope = baseline.scope(&HostState::new());
        assert_eq!(scope.addresses.len(), 1);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_broken_file_is_refused() {
        let directory = directory("broken");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("nc0.baseline"), "{").unwrap();
        let error = Baseline::open(&directory, &"nc0".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("nc0.baseline"), "{error}");
        fs::remove_dir_all(&directory).unwrap();
    }
}
