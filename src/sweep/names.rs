//! Names of runs: what a grid varies, in short, safe as the name of a folder on every system.

use serde_yaml::Value;

use super::file::shown;
use crate::error::{Error, Result};

/// Longest name of a run in bytes: file systems take 255, and endings come to it.
pub(super) const LONGEST: usize = 120;

/// How the names of float starts begin; hexadecimal digits follow.
pub(super) const FLOAT: &str = "float-";

/// Their digits.
pub(super) const FLOAT_DIGITS: usize = 8;

/// Names that the folder of a sweep has a use for; the last three because `state/NAME.yaml` and `state/NAME.json` would make a run
/// folder of `state`.
const RESERVED: [&str; 6] = ["state", "sweep", "results", "config", "manifest", "metrics"];

/// Endings of its files.
const ENDINGS: [&str; 4] = [".log", ".csv", ".yaml", ".tmp"];

/// Short forms of the keys that are varied most.
const SHORT: [(&str, &str); 4] =
    [("quant.weight_bits", "w"), ("quant.activation_bits", "a"), ("network.depth", "resnet"), ("quant.method", "")];

/// What stands for each key in the names of the runs: its last part, or as many as tell it from the other keys.
pub(super) fn labels(keys: &[&str]) -> Vec<String> {
    let label = |key: &&str| {
        if let Some((_, short)) = SHORT.iter().find(|(long, _)| long == key) {
            return short.to_string();
        }
        let layer = key.strip_prefix("quant.layers.");
        let tail = |parts: usize| {
            let all: Vec<&str> = key.split('.').collect();
            all[all.len().saturating_sub(parts)..].join(".")
        };
        let clashes = |label: &str| {
            let ends = |other: &str| other == label || other.ends_with(&format!(".{label}"));
            keys.iter().filter(|other| ends(other)).count() > 1
        };
        let parts = (1..).find(|n| !clashes(&tail(*n)) || *n > 8).unwrap_or(1);
        layer.map_or_else(|| tail(parts), String::from)
    };
    keys.iter().map(label).collect()
}

/// `w4`, `flip_false`, `lsq`: a label and its value.
pub(super) fn part(label: &str, value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_string(),
        value => shown(value),
    };
    let mut safe = String::new();
    for c in text.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '+' => safe.push(c),
            _ if safe.is_empty() || safe.ends_with('_') => {}
            _ => safe.push('_'),
        }
    }
    let safe = safe.trim_matches(['_', '.']);
    let joint = if label.is_empty() || value.is_number() { "" } else { "_" };
    format!("{label}{joint}{safe}")
}

/// Refuses a name that cannot be a folder's, or is another's.
///
/// # Errors
/// A configuration error that begins with `place`.
pub(super) fn check(name: &str, place: &str) -> Result<()> {
    let wrong = |expected: &str, hint: &str| {
        Err(Error::config(format!("{place}: the run is called `{name}`, expected {expected}")).hint(hint))
    };
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._+=-".contains(c);
    if !starts || !name.chars().all(is_plain) || name.ends_with('.') {
        return wrong("letters, digits and . _ + = - that begin with a letter or digit", "it is the name of a folder");
    }
    if name.len() > LONGEST {
        return wrong(&format!("at most {LONGEST} characters"), "name the runs yourself under `runs`");
    }
    let lower = name.to_ascii_lowercase();
    let is_digits = |rest: &str| rest.len() == FLOAT_DIGITS && rest.chars().all(|c| c.is_ascii_hexdigit());
    if let Some(ending) = ENDINGS.iter().find(|ending| lower.ends_with(**ending)) {
        return wrong(
            &format!("no name that ends in {ending}"),
            "files of the sweep's folder do: name the run without",
        );
    }
    if RESERVED.contains(&lower.as_str()) || lower.strip_prefix(FLOAT).is_some_and(is_digits) {
        return wrong("another name: the sweep's folder has a use for this one", "such as `w4-a4`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_as_short_as_they_may_be() {
        let keys = ["quant.weight_bits", "quant.weights.range_factor", "quant.activations.range_factor", "train.seed"];
        assert_eq!(labels(&keys), ["w", "weights.range_factor", "activations.range_factor", "seed"]);
        assert_eq!(labels(&["quant.method", "network.width", "train.float.lr"]), ["", "width", "lr"]);
        assert_eq!(labels(&["train.float.lr", "train.quant.lr"]), ["float.lr", "quant.lr"]);
        let layers = ["quant.layers.layer1.0.conv1.weight_bits", "quant.weight_bits"];
        assert_eq!(labels(&layers), ["layer1.0.conv1.weight_bits", "w"]);
    }

    #[test]
    fn values_become_parts_of_names() {
        let of = |label: &str, yaml: &str| part(label, &serde_yaml::from_str(yaml).unwrap());
        assert_eq!((of("w", "4"), of("", "lsq"), of("lr", "0.02")), ("w4".into(), "lsq".into(), "lr0.02".into()));
        assert_eq!((of("flip", "false"), of("clip_norm", "null")), ("flip_false".into(), "clip_norm_none".into()));
        assert_eq!(of("freeze", "{after_epochs: 3}"), "freeze_after_epochs_3");
        assert_eq!(of("init_from", "../a b/x.safetensors"), "init_from_a_b_x.safetensors");
    }

    #[test]
    fn names_are_safe_as_folders() {
        for good in ["w4-a4", "lsq+-seed1", "a=1", "x.y", "0", "float-seed0", "config2", "a.log2"] {
            check(good, "s").unwrap();
        }
        let taken =
            ["Sweep", "float-0123abcd", "a.log", "results.CSV", "sweep.yaml", "results.7.tmp", "config", "manifest"];
        let shapes = ["", ".x", "a/b", "a b", "x.", "ü", "../x", &"a".repeat(121)];
        for bad in shapes.into_iter().chain(taken) {
            let e = check(bad, "s.yaml").unwrap_err();
            assert!(e.to_string().starts_with(&format!("s.yaml: the run is called `{bad}`, expected ")), "{e}");
        }
    }
}
