//! Text from elsewhere, made fit for a log and a terminal.

/// The same text with its control characters written out (`\u{1b}`), line feeds included, and those that turn
/// the direction of writing or cannot be seen. Anybody chooses the name of a process, and some programs the
/// names of chains and devices: a terminal shall not obey them, and a log not show lines that were never
/// written.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let is_hidden = matches!(c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if c.is_control() || is_hidden {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// The same for a text of several lines of ours.
pub fn plain_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(plain).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let name = "sshd\u{1b}[2J\r\n\u{9b}31m\u{7}\u{202e}\t";
        let text = r"sshd\u{1b}[2J\r\n\u{9b}31m\u{7}\u{202e}\t";
        assert_eq!(plain(name), text);
        assert_eq!(plain("größer, 家"), "größer, 家");
        assert_eq!(plain_lines("one\ntwo\u{7}\n"), "one\ntwo\\u{7}\n");
    }
}
