//! Rust code without its comments and the contents of its literals.

/// The same lines, with spaces for every character of a comment or inside a string or character
/// literal. Knows raw strings and nested block comments.
pub(crate) fn bare(text: &str) -> String {
    let mut rest = text;
    let mut out = String::with_capacity(text.len());
    while let Some(first) = rest.chars().next() {
        let hidden = hidden_len(rest, out.chars().next_back());
        let taken = hidden.unwrap_or(first.len_utf8());
        let (piece, after) = rest.split_at(taken);
        if hidden.is_some() {
            out.extend(piece.chars().map(|c| if c == '\n' { c } else { ' ' }));
        } else {
            out.push(first);
        }
        rest = after;
    }
    out
}

/// The bytes of the comment or literal that begins here; nothing when none does.
fn hidden_len(text: &str, before: Option<char>) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment_len(text));
    }
    if text.starts_with('"') {
        return Some(quoted_len(text, '"'));
    }
    if text.starts_with('\'') {
        return char_len(text);
    }
    // A raw string's `r`, not the last letter of a name.
    let in_name = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if text.starts_with('r') && (!in_name || before == Some('b')) {
        return raw_len(text);
    }
    None
}

fn block_comment_len(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while let Some(next) = text[at..].find(['/', '*']).map(|found| at + found) {
        let step = match text.get(next..next + 2) {
            Some("/*") => {
                depth += 1;
                2
            }
            Some("*/") => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at = next + step;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// A character literal; a lifetime's apostrophe has no second one after one character.
fn char_len(text: &str) -> Option<usize> {
    let mut chars = text.chars().skip(1);
    match (chars.next()?, chars.next()?) {
        ('\\', _) => Some(quoted_len(text, '\'')),
        (c, '\'') => Some(2 + c.len_utf8()),
        _ => None,
    }
}

fn raw_len(text: &str) -> Option<usize> {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let inside = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - inside.len();
    Some(
        inside
            .find(&end)
            .map_or(text.len(), |at| start + at + end.len()),
    )
}

/// Where `word` stands in `line` as whole words: no letter, digit or `_` goes on at either end.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let in_name = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let begins = in_name(word.chars().next()) && in_name(line[..at].chars().next_back());
        let after = line[at + word.len()..].chars().next();
        let ends = in_name(word.chars().next_back()) && in_name(after);
        !begins && !ends
    })
}
