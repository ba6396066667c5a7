//! Counters of packets on a host, by nft.

use netcombiner_lab::prelude::*;

use super::kernel::sh;

/// Counts packets, before anybody's filter.
pub(crate) struct Watch<'a>(&'a Namespace);

impl<'a> Watch<'a> {
    /// Those that match, in a hook.
    pub(crate) fn start(
        namespace: &'a Namespace,
        hook: &str,
        packets: &str,
    ) -> Result<Self, Error> {
        for line in [
            "nft add table inet watch",
            &format!("nft add chain inet watch seen {{ type filter hook {hook} priority -300 ; }}"),
            &format!("nft add rule inet watch seen {packets} counter"),
        ] {
            sh(namespace, line)?;
        }
        Ok(Self(namespace))
    }

    /// How many there were.
    pub(crate) fn packets(&self) -> Result<u64, Error> {
        let text = sh(self.0, "nft list table inet watch")?;
        let mut words = text.split_whitespace();
        words.find(|word| *word == "packets");
        let number = words.next().and_then(|number| number.parse().ok());
        number.ok_or_else(|| Error::failed(format!("no counter in {text}")))
    }
}
