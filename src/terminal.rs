//! Text for a terminal.

/// Names and paths come from elsewhere: what would steer the terminal is written out. Line breaks and tabs stay.
pub fn printable(text: &str) -> String {
    written_out(text, |c| c.is_control() && c != '\n' && c != '\t')
}

/// A name or a path, as [`printable`], and in one line.
pub fn one_line(name: impl ToString) -> String {
    written_out(&name.to_string(), char::is_control)
}

/// A path as a word of a shell's command line.
pub fn shell_word(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

fn written_out(text: &str, is_bad: impl Fn(char) -> bool) -> String {
    text.chars().map(|c| if is_bad(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// An error as a user sees it: what happened, why, and what to do.
pub fn explain(e: &crate::Error) -> String {
    let mut text = format!("error: {e}\n");
    let mut source = std::error::Error::source(e);
    while let Some(cause) = source {
        text += &format!("  caused by: {cause}\n");
        source = cause.source();
    }
    if let Some(hint) = e.hint_text() {
        text += &format!("hint: {hint}\n");
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_written_out() {
        assert_eq!(printable("bird's \u{1b}[2Ja\tb\n\u{7}"), "bird's \\u{1b}[2Ja\tb\n\\u{7}");
        assert_eq!(one_line("a\nb\tc"), "a\\nb\\tc");
        let word = |text: &str| shell_word(std::path::Path::new(text));
        assert_eq!(
            (word("runs/a-1"), word("my run"), word("it's")),
            ("runs/a-1".into(), "'my run'".into(), "'it'\\''s'".into())
        );
        let cause = std::io::Error::other("why\u{1b}");
        let e = crate::Error::data("what").caused_by(cause).hint("how");
        assert_eq!(explain(&e), "error: what\n  caused by: why\\u{1b}\nhint: how\n");
    }
}
