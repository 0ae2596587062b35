//! The sweep's file: a base configuration, and what is varied.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

use crate::config::{diagnose, load};
use crate::error::{Error, Result};

/// A sweep's file, read.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// What messages call it.
    pub(super) origin: String,
    text: String,
    /// The file or preset of the base configuration.
    pub(super) base: String,
    /// Keys that are the same for all runs.
    pub(super) set: Vec<(String, Value)>,
    /// Keys with the values that they take, in the file's order.
    pub(super) grid: Vec<(String, Vec<Value>)>,
    /// Named runs with the keys that they set.
    pub(super) runs: Vec<(String, Vec<(String, Value)>)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default, rename = "format_version")]
    _format_version: u32,
    base: String,
    #[serde(default)]
    set: Mapping,
    grid: Option<Mapping>,
    #[serde(default)]
    runs: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    set: Mapping,
}

impl File {
    /// Reads the file `path`.
    ///
    /// # Errors
    /// No such file, invalid YAML, an unknown key, a value of the wrong type, nothing that is varied.
    pub(super) fn read(path: &Path) -> Result<File> {
        let origin = path.display().to_string();
        if !path.exists() {
            return Err(Error::config(format!("the sweep `{origin}` does not exist, expected a YAML file"))
                .hint("docs/sweeps.md describes it; configs/sweeps/ has examples"));
        }
        File::parse(load::read(&origin)?, &origin, path.parent().unwrap_or(Path::new("")))
    }

    /// [`File::read`] of `text`. `folder`: what a base is relative to that is no preset.
    fn parse(text: String, origin: &str, folder: &Path) -> Result<File> {
        load::shallow(&text, origin)?;
        let in_sweep = |e| diagnose::in_sweep(origin, e);
        load::check_version(&serde_yaml::from_str(&text).map_err(in_sweep)?, origin)?;
        let Contents { base, set, grid, runs, .. } = serde_yaml::from_str(&text).map_err(in_sweep)?;
        let mut file =
            File { origin: origin.into(), text, base: base_of(&base, folder), set: vec![], grid: vec![], runs: vec![] };
        file.set = file.keys(&set)?;
        if grid.as_ref().is_some_and(Mapping::is_empty) || (grid.is_none() && runs.is_empty()) {
            return Err(Error::config(format!("{origin}: the grid is empty, expected keys with the values they take"))
                .hint("such as grid: {quant.weight_bits: [2, 3, 4]}; or name single runs under `runs`"));
        }
        for (key, values) in file.keys(&grid.unwrap_or_default())? {
            let values = file.values(&key, values)?;
            file.grid.push((key, values));
        }
        for Entry { name, set } in runs {
            let keys = file.keys(&set)?;
            file.runs.push((name, keys));
        }
        Ok(file)
    }

    /// `FILE:LINE:COLUMN` of the first place where `key` stands as a key, else the file.
    pub(super) fn place(&self, key: &str) -> String {
        self.places(key).into_iter().next().unwrap_or(self.origin.clone())
    }

    /// The place of `key`, and if it has several, or none is found, the `part` of the file where it stands.
    pub(super) fn place_in(&self, part: &str, key: &str) -> String {
        match &self.places(key)[..] {
            [place] => place.clone(),
            _ => format!("{}: {part}", self.origin),
        }
    }

    /// `FILE:LINE:COLUMN` of all places where `key` stands as a key, but for comments that begin a line or follow a space.
    fn places(&self, key: &str) -> Vec<String> {
        let mut places = Vec::new();
        for (i, line) in self.text.lines().enumerate() {
            let comment = line.find(" #").or(line.starts_with('#').then_some(0)).unwrap_or(line.len());
            for (at, _) in line[..comment].match_indices(key) {
                let before = line[..at].chars().next_back();
                let after = line[at + key.len()..].trim_start_matches(['"', '\'', ' ']);
                if before.is_none_or(|c| " {,\"'".contains(c)) && after.starts_with(':') {
                    places.push(format!("{}:{}:{}", self.origin, i + 1, line[..at].chars().count() + 1));
                }
            }
        }
        places
    }

    /// The entries of a map of dotted keys.
    fn keys(&self, map: &Mapping) -> Result<Vec<(String, Value)>> {
        let entry = |(key, value): (&Value, &Value)| match key.as_str() {
            Some(key) => Ok((key.to_string(), value.clone())),
            None => Err(Error::config(format!("{}: a key is {key:?}, expected text", self.origin))
                .hint("write the key's path, such as quant.weight_bits")),
        };
        map.iter().map(entry).collect()
    }

    /// The values of a key of the grid: a list of at least two that differ.
    fn values(&self, key: &str, values: Value) -> Result<Vec<Value>> {
        let place = self.place(key);
        let Value::Sequence(values) = values else {
            return Err(Error::config(format!("{place}: `{key}` in `grid` is no list, expected the values it takes"))
                .hint(format!("write {key}: [A, B], or move a key that is the same for all runs to `set`")));
        };
        match &values[..] {
            [] => {
                return Err(Error::config(format!("{place}: `{key}` in `grid` has no values, expected two or more"))
                    .hint("list the values, or remove the key"));
            }
            [_] => {
                return Err(Error::config(format!("{place}: `{key}` in `grid` has one value, expected two or more"))
                    .hint("a key that is the same for all runs goes under `set`"));
            }
            _ => {}
        }
        if let Some(i) = (1..values.len()).find(|i| values[..*i].contains(&values[*i])) {
            return Err(Error::config(format!("{place}: `{key}` in `grid` has the value {} twice", shown(&values[i])))
                .hint("every value makes runs of its own: remove one of the two"));
        }
        Ok(values)
    }
}

/// A value in one line.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        _ => serde_json::to_string(value).unwrap_or_default(),
    }
}

/// A preset's name as it is; a path as seen from the folder of the sweep's file.
fn base_of(base: &str, folder: &Path) -> String {
    let is_preset = crate::config::presets().iter().any(|(name, ..)| *name == base);
    let path: PathBuf = folder.join(base);
    if is_preset { base.to_string() } else { path.display().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File> {
        File::parse(text.into(), "s.yaml", Path::new("folder"))
    }

    #[test]
    fn order_is_the_files_and_places_are_found() {
        let file = parse("base: x.yaml\ngrid:\n  quant.weight_bits: [4, 2]\n  \"train.seed\": [1, 0]\n").unwrap();
        assert_eq!(file.base, "folder/x.yaml");
        assert_eq!((file.grid[0].0.as_str(), file.grid[1].0.as_str()), ("quant.weight_bits", "train.seed"));
        assert_eq!(file.place("quant.weight_bits"), "s.yaml:3:3");
        assert_eq!(file.place("train.seed"), "s.yaml:4:4");
        assert_eq!(file.place("seed"), "s.yaml", "a part of a key is no key");
        assert_eq!(parse("base: demo\nruns: [{name: a}]").unwrap().base, "demo");
        let file =
            parse("# train.seed: 3\nbase: demo # train.seed: 4\nruns:\n- {name: a, set: {train.seed: 1}}").unwrap();
        assert_eq!(file.place_in("runs[0].set", "train.seed"), "s.yaml:4:19");
        let file = parse("base: demo\nruns:\n- {name: a, set: {b: 1}}\n- {name: c, set: {b: 2}}").unwrap();
        assert_eq!(
            (file.place("b"), file.place_in("runs[1].set", "b")),
            ("s.yaml:3:19".into(), "s.yaml: runs[1].set".into())
        );
    }

    #[test]
    fn what_is_no_sweep_is_refused() {
        for (text, message, hint) in [
            ("grid: {a: [1, 2]}", "s.yaml:1:1: the key `base` is missing at the top level", "base: cqat"),
            ("base: demo", "the grid is empty", "such as grid"),
            ("base: demo\ngrid: {}", "the grid is empty", "such as grid"),
            ("base: demo\ngrid: {train.seed: []}", "s.yaml:2:8: `train.seed` in `grid` has no values", "list"),
            ("base: demo\ngrid: {train.seed: [1]}", "has one value, expected two or more", "`set`"),
            ("base: demo\ngrid: {train.seed: 1}", "is no list", "[A, B]"),
            ("base: demo\ngrid: {train.seed: [1, 2, 1]}", "has the value 1 twice", "remove one"),
            ("base: demo\ngird: {}", "s.yaml:2:1: unknown key `gird` at the top level, expected", "`grid`"),
            ("base: demo\ntrain: {seed: 1}", "unknown key `train` at the top level", "set: {train.batch: 64}"),
            ("base: demo\nruns: [{set: {}}]", "the key `name` is missing in `runs[0]`", "{name: a, set"),
            (
                "base: demo\nruns: [{name: a, sets: {}}]",
                "unknown key `sets` in `runs[0]`, expected name or set",
                "`set`",
            ),
            ("- base", "s.yaml:1:1: the sweep is a list, expected a map of keys", ""),
            ("base: demo\nformat_version: 9", "a newer program wrote it", ""),
            ("base: demo\ngrid: {3: [1, 2]}", "a key is Number(3), expected text", "quant.weight_bits"),
        ] {
            let e = parse(text).unwrap_err();
            assert!(e.to_string().contains(message), "{text}: {e}");
            assert!(e.hint_text().unwrap_or_default().contains(hint), "{text}: {:?}", e.hint_text());
        }
    }
}
