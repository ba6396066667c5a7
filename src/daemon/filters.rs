//! The packet filters of others, as far as they stand in the tunnel's way: looked at whenever they
//! change.

use std::time::Duration;

use crate::config::{Config, Warning};
use crate::route::Observed;
use crate::route::foreign::{Finding, findings};

/// How often packets are counted while a filter may drop some.
pub(super) const PULSE: Duration = Duration::from_secs(5);

/// Fewer packets one way without one the other way say nothing.
const TELLING: u64 = 5;

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Filters {
    findings: Vec<Finding>,
    /// What the log has heard already.
    said: Vec<String>,
    /// Packets from the tunnel's device and to it, at the last pulse.
    counted: Option<(u64, u64)>,
    /// They go one way alone.
    one_way: bool,
}

impl Filters {
    /// Judges them as they were last read.
    pub(super) fn look(&mut self, config: &Config, observed: &Observed) {
        self.findings = findings(config, observed, &observed.filters);
        let is_there = |text: &String| self.findings.iter().any(|it| it.text == *text);
        let before = self.said.len();
        self.said.retain(is_there);
        if before > 0 && self.said.is_empty() && self.findings.is_empty() {
            log::info!("no packet filter of this host drops the tunnel's packets any more");
        }
        for finding in self.findings.clone() {
            if finding.certain && !self.said.contains(&finding.text) {
                self.say(finding, "");
            }
        }
        self.one_way &= !self.findings.is_empty();
    }

    /// True while packets are worth counting.
    pub(super) fn may_drop(&self) -> bool {
        !self.findings.is_empty()
    }

    /// Takes the packets that have come from the tunnel's device, and gone to it. True: they have
    /// begun to go one way alone.
    pub(super) fn count(&mut self, from: u64, to: u64) -> bool {
        let (from_before, to_before) = self.counted.replace((from, to)).unwrap_or((from, to));
        let (came, went) = (from - from_before.min(from), to - to_before.min(to));
        let was = self.one_way;
        if came > 0 && went > 0 {
            self.one_way = false;
        } else if came.max(went) >= TELLING {
            self.one_way = true;
        }
        self.one_way && !was
    }

    /// Says which filter it may be, also one of which it is not certain.
    pub(super) fn accuse(&mut self, device: &str) {
        if let Some(finding) = self.findings.first().cloned() {
            let said = one_way(device);
            self.say(finding, &said);
        }
    }

    fn say(&mut self, finding: Finding, before: &str) {
        self.said.push(finding.text.clone());
        log::warn!("{before}{}", Warning::from(finding));
    }

    /// For `show`.
    pub(super) fn lines(&self, device: &str) -> Vec<String> {
        let mut lines: Vec<_> = self.findings.iter().map(|it| it.text.clone()).collect();
        if let Some(first) = lines.first_mut()
            && self.one_way
        {
            first.insert_str(0, &one_way(device));
        }
        lines
    }
}

fn one_way(device: &str) -> String {
    format!("packets go through {device} one way and none come back: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field row B2: while it runs.
    #[test]
    fn packets_that_go_one_way_alone_are_noticed_once() {
        let mut filters = Filters::default();
        // What came before the first look does not count.
        assert!(!filters.count(1000, 0));
        assert!(!filters.count(1004, 0));
        assert!(filters.count(1010, 0));
        assert!(!filters.count(1020, 0));
        assert!(!filters.count(1030, 9));
        assert!(!filters.count(1030, 9));
        assert!(filters.count(1030, 20));
        filters.findings = vec![Finding {
            certain: false,
            text: "chain forward".to_owned(),
        }];
        let line = "packets go through nc0 one way and none come back: chain forward";
        assert_eq!(filters.lines("nc0"), [line]);
        assert!(!filters.count(1040, 30));
        assert_eq!(filters.lines("nc0"), ["chain forward"]);
    }
}
