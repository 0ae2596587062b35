//! Turns the YAML reader's errors into messages that name the place, what was expected, and the likely fix.

use serde_yaml::Value;

use super::Config;
use crate::error::Error;

/// What a text describes.
#[derive(Clone, Copy, PartialEq)]
enum Subject {
    Configuration,
    Sweep,
}

/// The error of a configuration's file, with line and column.
pub(super) fn in_file(origin: &str, error: serde_yaml::Error) -> Error {
    explain(&place_of(origin, &error), Subject::Configuration, error)
}

/// The error of a sweep's file, with line and column.
pub(crate) fn in_sweep(origin: &str, error: serde_yaml::Error) -> Error {
    explain(&place_of(origin, &error), Subject::Sweep, error)
}

fn place_of(origin: &str, error: &serde_yaml::Error) -> String {
    match error.location() {
        Some(at) => format!("{origin}:{}:{}", at.line(), at.column()),
        None => origin.to_string(),
    }
}

/// The error that an override written at `place` caused.
pub(super) fn at(place: &str, error: serde_yaml::Error) -> Error {
    explain(place, Subject::Configuration, error)
}

fn explain(place: &str, subject: Subject, error: serde_yaml::Error) -> Error {
    let text = without_mark(&error);
    let (path, what) = split_path(&text);
    if let Some(key) = what.strip_prefix("unknown field ").and_then(|rest| quoted(rest).next()) {
        return match subject {
            Subject::Configuration => unknown_key(place, path, key, what),
            Subject::Sweep => unknown_key_of_a_sweep(place, path, key, what),
        };
    }
    if let Some(word) = what.strip_prefix("unknown variant ").and_then(|rest| quoted(rest).next()) {
        let words: Vec<&str> = quoted(what).skip(1).collect();
        let error = Error::config(format!("{place}: `{path}` is `{word}`, expected {}", one_of(&words)));
        return suggest(error, word, &words);
    }
    if let Some((found, expected)) = ["invalid type: ", "invalid value: "]
        .iter()
        .find_map(|prefix| what.strip_prefix(prefix)?.split_once(", expected "))
    {
        let name = match (path, subject) {
            ("", Subject::Configuration) => "the configuration".to_string(),
            ("", Subject::Sweep) => "the sweep".to_string(),
            _ => format!("`{path}`"),
        };
        return type_hint(
            Error::config(format!("{place}: {name} is {}, expected {}", plain(found), plain(expected))),
            found,
            expected,
        );
    }
    if let Some(key) = ["duplicate entry with key ", "duplicate field "].iter().find_map(|p| what.strip_prefix(p)) {
        let (key, map) = (key.trim_matches(['"', '`']), map_at(path));
        return Error::config(format!("{place}: the key `{key}` occurs twice {map}, expected once"))
            .hint("remove one of them");
    }
    if let Some(key) = what.strip_prefix("missing field ").and_then(|rest| quoted(rest).next()) {
        let error = Error::config(format!("{place}: the key `{key}` is missing {}", map_at(path)));
        return match (subject, key) {
            (Subject::Sweep, "base") => error.hint("name what its runs have in common, a preset or a file: base: cqat"),
            (Subject::Sweep, "name") => {
                error.hint("every run of the list has a name, its folder's: {name: a, set: {...}}")
            }
            _ => error.hint(format!("give it a value: `{key}: ...`")),
        };
    }
    other(place, path, what)
}

/// Errors of the YAML itself, and the texts of this crate's own readers.
fn other(place: &str, path: &str, what: &str) -> Error {
    match what {
        "deserializing from YAML containing more than one document is not supported" => {
            Error::config(format!("{place}: more than one YAML document, expected one"))
                .hint("remove the `---` between them, or split the file")
        }
        "unknown anchor" => Error::config(format!("{place}: an alias without an anchor of its name"))
            .hint("quote a value that starts with `*`"),
        _ if path.is_empty() => Error::config(format!("{place}: {what}"))
            .hint("fix the YAML: indent with spaces, one `key: value` on a line"),
        _ => Error::config(format!("{place}: `{path}`: {what}")),
    }
}

fn map_at(path: &str) -> String {
    if path.is_empty() { "at the top level".to_string() } else { format!("in `{path}`") }
}

fn unknown_key(place: &str, path: &str, key: &str, what: &str) -> Error {
    let valid: Vec<&str> = quoted(what).skip(1).collect();
    let error = Error::config(format!("{place}: unknown key `{key}` {}, expected {}", map_at(path), one_of(&valid)));
    let homes = homes_of(key);
    if path.starts_with("quant.layers.") && closest(key, &valid).is_none() {
        return error.hint("name the layer, then its bits: quant.layers.layer1.0.conv1.weight_bits=8");
    }
    if homes.is_empty() {
        suggest(error, key, &valid)
    } else {
        error.hint(format!("`{key}` goes {}", homes.join(" or ")))
    }
}

fn unknown_key_of_a_sweep(place: &str, path: &str, key: &str, what: &str) -> Error {
    let valid: Vec<&str> = quoted(what).skip(1).collect();
    let error = Error::config(format!("{place}: unknown key `{key}` {}, expected {}", map_at(path), one_of(&valid)));
    match closest(key, &valid) {
        Some(_) => suggest(error, key, &valid),
        None => {
            error.hint("keys of the configuration go under `set`, `grid` or `runs`, such as set: {train.batch: 64}")
        }
    }
}

fn suggest(error: Error, word: &str, valid: &[&str]) -> Error {
    match closest(word, valid) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}

fn type_hint(error: Error, found: &str, expected: &str) -> Error {
    match found {
        _ if expected == "text" && ["integer ", "floating point ", "boolean "].iter().any(|t| found.starts_with(t)) => {
            error.hint("put it in quotes: \"2024\"")
        }
        r#"string "yes""# | r#"string "on""# => error.hint("write true"),
        r#"string "no""# | r#"string "off""# => error.hint("write false"),
        "unit value" => error.hint("remove the key to get its default, or give it a value"),
        _ => error,
    }
}

/// The message without " at line L column C", which the place already says.
fn without_mark(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match error.location() {
        Some(at) => text.replacen(&format!(" at line {} column {}", at.line(), at.column()), "", 1),
        None => text,
    }
}

/// "quant.weights: unknown field ..." into the path (empty at the top level) and the rest.
fn split_path(text: &str) -> (&str, &str) {
    const STARTS: [&str; 8] = [
        "unknown field ",
        "unknown variant ",
        "invalid type: ",
        "invalid value: ",
        "duplicate entry ",
        "duplicate field ",
        "missing field ",
        "after_epochs needs ",
    ];
    STARTS
        .iter()
        .filter_map(|start| text.find(&format!(": {start}")))
        .min()
        .map_or(("", text), |at| (&text[..at], &text[at + 2..]))
}

/// Words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn one_of(words: &[&str]) -> String {
    match words {
        [] => "no key at all".to_string(),
        [word] => word.to_string(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The reader's names of types in a user's words.
fn plain(name: &str) -> String {
    match name {
        "u32" => "a whole number from 0 to 4294967295".to_string(),
        "u64" | "usize" => "a whole number, 0 or more".to_string(),
        "i32" => "a whole number".to_string(),
        "f32" => "a number".to_string(),
        "a boolean" => "true or false".to_string(),
        "a sequence" => "a list".to_string(),
        "sequence" => "a list".to_string(),
        "a map" | "map" => "a map of keys".to_string(),
        "unit value" => "empty".to_string(),
        "a YAML tag starting with '!'" => "a single word".to_string(),
        _ if name.starts_with("struct ") => "a map of keys".to_string(),
        _ => {
            let number = name.strip_prefix("integer ").or_else(|| name.strip_prefix("floating point "));
            // Numbers beyond 64 bits come as "integer `N` as u128".
            let number =
                number.map(|digits| digits.split(" as ").next().unwrap_or(digits).trim_matches('`').to_string());
            number.or_else(|| name.strip_prefix("string ").map(|s| format!("the text {s}"))).unwrap_or(name.to_string())
        }
    }
}

/// Where in a configuration a key of this name exists, as "under `train.optimizer`".
fn homes_of(key: &str) -> Vec<String> {
    fn walk(at: &Value, path: &str, key: &str, homes: &mut Vec<String>) {
        for (name, value) in at.as_mapping().into_iter().flatten() {
            let Some(name) = name.as_str() else { continue };
            if name == key {
                homes.push(if path.is_empty() { "at the top level".into() } else { format!("under `{path}`") });
            }
            let dot = if path.is_empty() { "" } else { "." };
            walk(value, &format!("{path}{dot}{name}"), key, homes);
        }
    }
    let mut homes = Vec::new();
    if let Ok(defaults) = serde_yaml::to_value(Config::default()) {
        walk(&defaults, "", key, &mut homes);
    }
    homes
}

/// The nearest of `candidates`, if it is near enough to be a slip: a third of the letters, two at least.
pub(super) fn closest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(2);
    let (distance, near) = candidates.iter().map(|c| (edit_distance(word, c), *c)).min()?;
    (distance <= limit && distance < near.len()).then_some(near)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distances() {
        let cases = [
            ("", "abc", 3),
            ("batch", "batch", 0),
            ("btach", "batch", 1),
            ("bit", "bits", 1),
            ("kitten", "sitting", 3),
        ];
        for (a, b, distance) in cases {
            assert_eq!((edit_distance(a, b), edit_distance(b, a)), (distance, distance), "{a} {b}");
        }
    }

    #[test]
    fn only_slips_are_suggested() {
        assert_eq!(closest("wieght_bit", &["method", "weight_bits"]), Some("weight_bits"));
        assert_eq!(closest("colour", &["method", "weight_bits"]), None);
        assert_eq!(closest("x", &["lr"]), None);
        assert_eq!(closest("x", &[]), None);
    }
}
