//! "Did you mean ...?": the known word that is nearest to a mistyped one.

/// The nearest of `known`, or nothing when none is near enough to be meant.
pub(crate) fn nearest<'k>(
    typed: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<&'k str> {
    let plain = typed.to_ascii_lowercase().replace('-', "_");
    // One slip in a short word, two in a longer one; more is another word.
    let most = if plain.chars().count() < 5 { 1 } else { 2 };
    known
        .into_iter()
        .map(|word| (distance(&plain, word), word))
        .filter(|&(slips, _)| slips <= most)
        .min()
        .map(|(_, word)| word)
}

/// Optimal string alignment: letters added, left out, changed, or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    // No key is longer; a file of one long word must not cost the square of its length.
    const LONGEST: usize = 64;
    if a.len() > LONGEST || b.len() > LONGEST {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, slips) in [
            ("link", "link", 0),
            ("lnik", "link", 1),
            ("lin", "link", 1),
            ("linkk", "link", 1),
            ("kink", "link", 1),
            ("", "link", 4),
            ("üink", "link", 1),
        ] {
            assert_eq!(distance(a, b), slips, "{a} {b}");
            assert_eq!(distance(b, a), slips, "{b} {a}");
        }
    }

    #[test]
    fn suggestions() {
        let known = ["link", "listen", "public_address"];
        assert_eq!(nearest("lnik", known), Some("link"));
        assert_eq!(nearest("Public-Adress", known), Some("public_address"));
        assert_eq!(nearest("kernel", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"x".repeat(1_000_000), known), None);
    }
}
