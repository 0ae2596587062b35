//! From a sweep's file to its runs.

use serde_yaml::Value;

use super::file::{File, shown};
use super::{MOST_RUNS, Run, Sweep, names};
use crate::config::{Config, Override, load};
use crate::error::{Error, Result};
use crate::setup;

/// A run in the making: the parts of its name, and its keys with their places and values.
type Draft = (Vec<String>, Vec<(String, String, Value)>);

/// The runs of `file`, each of which can run. `sets`: overrides of the base configuration, as for `--set`.
///
/// # Errors
/// See [`Sweep::read`].
pub(super) fn expand(file: &File, sets: &[String]) -> Result<Sweep> {
    let keys = varied(file)?;
    let base = base_overrides(file, sets, &keys)?;
    let (text, origin) = load::source(&file.base)?;
    Config::with_overrides(&text, &origin, &base)?; // its own slips are not those of the first run
    let mut runs: Vec<Run> = Vec::new();
    for (parts, values) in drafts(file)? {
        let name = parts.join("-");
        let mut all = base.clone();
        for (place, key, value) in values {
            all.push(Override::new(format!("{place}: {key}={}", shown(&value)), &key, value)?);
        }
        let config = Config::with_overrides(&text, &origin, &all)?;
        setup::check(&config).map_err(|e| of_run(&file.origin, &name, &e))?;
        names::check(&name, &file.origin)?;
        refuse_twin(file, &runs, &name, &config)?;
        runs.push(Run { name, config, start: None });
    }
    Ok(Sweep { origin: file.origin.clone(), keys, runs, starts: Vec::new() })
}

/// The keys that runs set, in the file's order: those of `runs`, then those of the grid.
fn varied(file: &File) -> Result<Vec<String>> {
    let mut keys: Vec<String> = Vec::new();
    for (key, _) in file.runs.iter().flat_map(|(_, set)| set) {
        if !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    let twice = |key: &str, places: &str, hint: &str| {
        Err(Error::config(format!("{}: `{key}` stands in {places}, expected in one of them", file.place(key)))
            .hint(hint))
    };
    for key in &keys {
        if file.grid.iter().any(|(other, _)| other == key) {
            return twice(
                key,
                "`grid` and in `runs`",
                "remove it from one: the grid is done for every run of the list",
            );
        }
        let values: Vec<Option<&Value>> =
            file.runs.iter().map(|(_, set)| set.iter().find(|(k, _)| k == key).map(|(_, value)| value)).collect();
        if values.len() > 1 && values.iter().all(|v| v.is_some() && *v == values[0]) {
            return Err(Error::config(format!("{}: all runs set `{key}` to the same value", file.place(key)))
                .hint("a key that is the same for all runs goes under `set`"));
        }
    }
    keys.extend(file.grid.iter().map(|(key, _)| key.clone()));
    match file.set.iter().find(|(key, _)| file.grid.iter().any(|(other, _)| other == key)) {
        Some((key, _)) => twice(key, "`set` and in `grid`", "remove it from `set`"),
        None => Ok(keys),
    }
}

/// Those of `set`, then those of the command line.
fn base_overrides(file: &File, sets: &[String], keys: &[String]) -> Result<Vec<Override>> {
    let of_file = file.set.iter().map(|(key, value)| Override::new(file.place_in("set", key), key, value.clone()));
    let mut all = of_file.collect::<Result<Vec<_>>>()?;
    for set in sets {
        let new = Override::parse(set)?;
        if keys.contains(&new.key) {
            return Err(Error::config(format!("--set {set}: the sweep varies `{}`", new.key))
                .hint("set a key that is the same for all runs, or change the sweep's file"));
        }
        all.push(new);
    }
    Ok(all)
}

/// Every run of the list with every point of the grid.
fn drafts(file: &File) -> Result<Vec<Draft>> {
    let keys: Vec<&str> = file.grid.iter().map(|(key, _)| key.as_str()).collect();
    let count = file.grid.iter().try_fold(file.runs.len().max(1), |n, (_, values)| n.checked_mul(values.len()));
    if count.is_none_or(|n| n > MOST_RUNS) {
        return Err(Error::config(format!("{}: the sweep has more than {MOST_RUNS} runs", file.origin))
            .hint("vary fewer keys, or give them fewer values"));
    }
    let mut drafts: Vec<Draft> = Vec::new();
    for (i, (name, set)) in file.runs.iter().enumerate() {
        let part = format!("runs[{i}].set");
        let keys = set.iter().map(|(key, value)| (file.place_in(&part, key), key.clone(), value.clone()));
        drafts.push((vec![name.clone()], keys.collect()));
    }
    if drafts.is_empty() {
        drafts.push((Vec::new(), Vec::new()));
    }
    for ((key, values), label) in file.grid.iter().zip(names::labels(&keys)) {
        let place = file.place(key);
        let with = |draft: &Draft, value: &Value| {
            let (mut parts, mut set) = draft.clone();
            parts.push(names::part(&label, value));
            set.push((place.clone(), key.clone(), value.clone()));
            (parts, set)
        };
        drafts =
            drafts.iter().flat_map(|draft| values.iter().map(|value| with(draft, value)).collect::<Vec<_>>()).collect();
    }
    Ok(drafts)
}

/// Two runs of one name would share a folder, also where a file system does not tell capitals; two of one configuration would be
/// the same run.
fn refuse_twin(file: &File, runs: &[Run], name: &str, config: &Config) -> Result<()> {
    if let Some(other) = runs.iter().find(|run| run.name.eq_ignore_ascii_case(name)) {
        return Err(Error::config(format!("{}: two runs are called `{}`", file.origin, other.name))
            .hint("a run's name is its folder's: give each run under `runs` a name of its own, capitals apart"));
    }
    match runs.iter().find(|run| run.config == *config) {
        Some(other) => Err(Error::config(format!(
            "{}: the runs `{}` and `{name}` have the same configuration",
            file.origin, other.name
        ))
        .hint("remove one of them, or vary train.seed")),
        None => Ok(()),
    }
}

fn of_run(origin: &str, name: &str, e: &Error) -> Error {
    let error = Error::new(e.kind(), format!("{origin}: the run `{name}` cannot run: {e}"));
    match e.hint_text() {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// A configuration as a map.
pub(super) fn as_value(config: &Config) -> Result<Value> {
    // By way of text: a value of 32 bits keeps its few digits.
    serde_yaml::from_str(&config.to_yaml()?)
        .map_err(|e| Error::config("cannot write the configuration as YAML").caused_by(e))
}

/// What stands in a configuration at the dotted `key`; null where nothing does.
pub(super) fn value_at(config: &Value, key: &str) -> Value {
    let found = load::split(key, &Value::Null).iter().try_fold(config, |at, part| at.get(*part));
    // The whole map of a layer has a key of one part more.
    let layer = || config.get("quant")?.get("layers")?.get(key.strip_prefix("quant.layers.")?);
    found.or_else(layer).cloned().unwrap_or(Value::Null)
}
