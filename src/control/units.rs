//! Numbers as people read them: wg's bytes and times.

use crate::config::units::{Bitrate, fixed};

/// `1.23 MiB`, as wg writes it.
pub(super) fn bytes(count: u64) -> String {
    let value = count as f64;
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{} KiB", fixed(value / 1_024.0, 2)),
        1_048_576..1_073_741_824 => format!("{} MiB", fixed(value / 1_048_576.0, 2)),
        1_073_741_824..1_099_511_627_776 => format!("{} GiB", fixed(value / 1_073_741_824.0, 2)),
        1_099_511_627_776.. => format!("{} TiB", fixed(value / 1_099_511_627_776.0, 2)),
    }
}

/// `20.1 Mbit/s`.
pub(super) fn rate(bits_per_second: u64) -> String {
    Bitrate::from_bits_per_second(bits_per_second).to_string()
}

/// `1 hour, 2 minutes, 3 seconds`, as wg writes it; parts that are zero are left out.
pub(super) fn duration(seconds: f64) -> String {
    let total = seconds.max(0.0) as u64;
    let parts = [
        (total / 86_400, "day"),
        (total / 3_600 % 24, "hour"),
        (total / 60 % 60, "minute"),
        (total % 60, "second"),
    ];
    let words: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count} {unit}{}", if *count == 1 { "" } else { "s" }))
        .collect();
    if words.is_empty() {
        return "0 seconds".to_owned();
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(5 << 30), "5.00 GiB");
        assert_eq!(duration(0.4), "0 seconds");
        assert_eq!(duration(3_661.0), "1 hour, 1 minute, 1 second");
        assert_eq!(duration(86_400.0 * 2.0), "2 days");
        assert_eq!(rate(20_100_000), "20.1 Mbit/s");
        let text = |value, digits| fixed(value, digits);
        assert_eq!(text(0.0512, 4), "0.0512");
        assert_eq!(text(9.996, 2), "10.00");
        assert_eq!(text(7.5, 0), "8");
        assert_eq!(text(1e30, 1), "1844674407370955161.5");
    }
}
