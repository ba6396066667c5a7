//! `show NAME dump` for scripts: one line a path, fields between tabs; an order that stays.

use super::status::{PathStatus, Status, state_word};
use crate::config::units::fixed;

/// One line a path: interface, path, link, device, transport, state, endpoint, rtt (ms), loss
/// (0-1), rate sent, rate received (bit/s), bytes sent, bytes received, handshake age (s).
/// What is not known is `-`. Ends with a line feed, or is empty.
pub(super) fn dump(status: &Status) -> String {
    let mut out = String::new();
    for (link, path) in status.all_paths() {
        let (name, device, transport) = link.map_or(("-", "-", "-"), |link| {
            (&link.name, &link.device, &link.transport)
        });
        let fields = line(status, path);
        out.push_str(&format!(
            "{}\t{}\t{name}\t{device}\t{transport}\t{fields}\n",
            status.interface, path.path
        ));
    }
    out
}

fn line(status: &Status, path: &PathStatus) -> String {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    [
        state_word(path.state).to_owned(),
        or_dash(path.endpoint.map(|endpoint| endpoint.to_string())),
        or_dash(path.rtt_ms.map(|rtt| fixed(rtt, 3))),
        fixed(path.loss, 4),
        path.rate_sent.to_string(),
        path.rate_received.to_string(),
        path.bytes_sent.to_string(),
        path.bytes_received.to_string(),
        or_dash(status.latest_handshake_s.map(|age| fixed(age, 0))),
    ]
    .join("\t")
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::{local_example, remote_example};
    use super::*;

    #[test]
    fn one_line_a_path() {
        assert_eq!(
            dump(&local_example()),
            "nc0\t0\tdsl\twan0\tudp\tup\t203.0.113.2:4725\t20.500\t0.0050\t1500000\t20100000\t\
             10485760\t1073741824\t72\n"
        );
        assert_eq!(
            dump(&remote_example()),
            "nc0\t0\t-\t-\t-\tvalidating\t198.51.100.7:40001\t-\t0.0000\t0\t0\t92\t148\t-\n"
        );
    }
}
