//! From a file or preset and `--set` overrides to a [`Config`].

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

use super::{Config, FORMAT_VERSION, diagnose, presets};
use crate::error::{Error, Result};

/// Larger files are refused: a configuration is a page of text.
const MAX_BYTES: u64 = 1 << 20;
/// Deeper brackets are refused: the YAML reader's time grows with the square of their depth.
const MAX_BRACKETS: u32 = 64;

impl Config {
    /// Reads a configuration: `spec` is the name of a preset or the path of a YAML file (write `./demo` for a file
    /// that is called like a preset). Every item of `sets` is a `key.path=value` override, applied in order.
    ///
    /// Impossible combinations are left to [`Config::validate`].
    ///
    /// # Errors
    /// No such file or preset, a file over 1 MiB, invalid YAML, an unknown key, a value of the wrong type.
    pub fn load(spec: &str, sets: &[String]) -> Result<Config> {
        let (text, origin) = source(spec)?;
        Config::from_yaml(&text, &origin, sets)
    }

    /// [`Config::load`] of the YAML `text`, which error messages call `origin`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_yaml(text: &str, origin: &str, sets: &[String]) -> Result<Config> {
        let overrides = sets.iter().map(|set| Override::parse(set)).collect::<Result<Vec<_>>>()?;
        Config::with_overrides(text, origin, &overrides)
    }

    /// [`Config::from_yaml`] with overrides of any origin, applied in order.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn with_overrides(text: &str, origin: &str, overrides: &[Override]) -> Result<Config> {
        shallow(text, origin)?;
        let in_file = |e| diagnose::in_file(origin, e);
        check_version(&serde_yaml::from_str(text).map_err(in_file)?, origin)?;
        let mut config: Config = serde_yaml::from_str(text).map_err(in_file)?;
        // Only a file of the right types gets here, so its aliases expand to little. Duplicate layers show now.
        let mut value: Value = serde_yaml::from_str(text).map_err(in_file)?;
        let defaults = serde_yaml::to_value(Config::default()).map_err(in_file)?;
        if !overrides.is_empty() {
            // A section with all its keys commented out reads as null.
            drop_empty(&mut value, &defaults);
        }
        for o in overrides {
            insert(&mut value, &defaults, &split(&o.key, &o.value), &o.value);
            config = typed(&value).map_err(|e| diagnose::at(&o.place, e))?;
        }
        Ok(config)
    }

    /// Refuses the text of a configuration that a newer program wrote; what cannot be read as one says nothing.
    ///
    /// # Errors
    /// A newer `format_version`.
    pub fn refuse_newer(text: &str, origin: &str) -> Result<()> {
        let probe = shallow(text, origin).ok().and_then(|()| serde_yaml::from_str(text).ok());
        probe.map_or(Ok(()), |probe| check_version(&probe, origin))
    }

    /// The whole configuration, defaults included, as YAML that [`Config::load`] reads back unchanged.
    ///
    /// # Errors
    /// None that a configuration can cause.
    pub fn to_yaml(&self) -> Result<String> {
        serde_yaml::to_string(self).map_err(|e| Error::config("cannot write the configuration as YAML").caused_by(e))
    }
}

/// The text of a preset or a file, and what messages call it.
///
/// # Errors
/// No such file or preset, a file over 1 MiB, one that is not UTF-8.
pub(crate) fn source(spec: &str) -> Result<(String, String)> {
    match presets().iter().find(|(name, ..)| *name == spec) {
        Some((name, _, yaml)) => Ok((yaml.to_string(), format!("preset {name}"))),
        None => Ok((read(spec)?, spec.to_string())),
    }
}

/// Removes keys without a value where the defaults have a map.
fn drop_empty(value: &mut Value, default: &Value) {
    let (Value::Mapping(map), Value::Mapping(defaults)) = (value, default) else { return };
    for (key, default) in defaults.iter().filter(|(_, d)| d.is_mapping()) {
        match map.get_mut(key) {
            Some(Value::Null) => drop(map.remove(key)),
            Some(section) => drop_empty(section, default),
            None => {}
        }
    }
}

/// Through text, because errors then carry the path of the key; deserialising a `Value` loses it.
fn typed(value: &Value) -> serde_yaml::Result<Config> {
    serde_yaml::from_str(&serde_yaml::to_string(value)?)
}

pub(crate) fn read(spec: &str) -> Result<String> {
    let cannot_read = |e: std::io::Error| {
        Error::config(format!("cannot read the configuration `{spec}`"))
            .hint("check the file's permissions")
            .caused_by(e)
    };
    if Path::new(spec).is_dir() {
        return Err(Error::config(format!("`{spec}` is a folder, expected a YAML file or the name of a preset"))
            .hint("name the .yaml file inside it"));
    }
    let file = File::open(spec).map_err(|e| match e.kind() {
        ErrorKind::NotFound => not_found(spec),
        _ => cannot_read(e),
    })?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::config(format!("`{spec}` is larger than 1 MiB, expected a configuration of a few KiB"))
            .hint("check that the path names a configuration, not a data set or checkpoint"));
    }
    String::from_utf8(bytes).map_err(|e| {
        Error::config(format!("`{spec}` is not UTF-8 text (byte {})", e.utf8_error().valid_up_to()))
            .hint("check that the path names a configuration and save it as UTF-8")
    })
}

fn not_found(spec: &str) -> Error {
    let names: Vec<&str> = presets().iter().map(|(name, ..)| *name).collect();
    let error = Error::config(format!("`{spec}` is neither a file nor a preset"));
    match diagnose::closest(spec, &names) {
        Some(name) => error.hint(format!("did you mean the preset `{name}`?")),
        None => error.hint(format!("presets: {}", names.join(", "))),
    }
}

/// Refuses text whose brackets are nested so deep that the YAML reader would take its time.
pub(crate) fn shallow(text: &str, place: &str) -> Result<()> {
    let mut depth = 0_u32;
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_BRACKETS {
            return Err(Error::config(format!("{place}: brackets nested more than {MAX_BRACKETS} deep"))
                .hint("close every [ and {; a configuration needs three levels"));
        }
    }
    Ok(())
}

/// First look at a file: is it YAML at all, and of which version? Everything else is skipped, aliases unexpanded.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Probe {
    format_version: u32,
}

/// A file from a newer program is told so before its new keys are called unknown.
pub(crate) fn check_version(probe: &Probe, origin: &str) -> Result<()> {
    if probe.format_version <= FORMAT_VERSION {
        return Ok(());
    }
    Err(Error::config(format!(
        "{origin} has format_version {}, expected at most {FORMAT_VERSION}: a newer program wrote it",
        probe.format_version
    ))
    .hint("use the program that wrote the file, or a newer one"))
}

/// Keys whose values are text.
const TEXT_KEYS: [&str; 3] = ["data.dir", "train.init_from", "train.distill.teacher"];

/// A value for one key of a configuration, which goes before the file's.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// Where it is written, as error messages say it.
    pub place: String,
    /// The dotted key, such as `train.batch`.
    pub key: String,
    /// Its value; maps on the way are made.
    pub value: Value,
}

impl Override {
    /// That of `--set key.path=value`.
    ///
    /// # Errors
    /// Text of another form, a value that is not YAML.
    pub fn parse(set: &str) -> Result<Override> {
        let Some((key, text)) = set.split_once('=') else {
            return Err(Error::config(format!("--set {set}: expected key.path=value")).hint("such as train.batch=64"));
        };
        shallow(text, &format!("--set {key}"))?;
        let value: Value = serde_yaml::from_str(text).map_err(|e| {
            Error::config(format!("--set {set}: the value of `{key}` is not valid YAML"))
                .hint("write a number, a word, a list [0.5, 0.75] or a map {weight_bits: 8}, quoted for the shell")
                .caused_by(e)
        })?;
        // The shell has no quotes left to tell a folder `2024` from a number.
        let plain = TEXT_KEYS.contains(&key) && (value.is_number() || value.is_bool());
        let value = if plain { Value::from(text.trim()) } else { value };
        Override::new(format!("--set {set}"), key, value)
    }

    /// `value` for the dotted `key`, written at `place`.
    ///
    /// # Errors
    /// A key with an empty part.
    pub fn new(place: String, key: &str, value: Value) -> Result<Override> {
        if split(key, &value).iter().any(|part| part.trim().is_empty()) {
            return Err(Error::config(format!("{place}: the key `{key}` has an empty part, expected key.path=value"))
                .hint("such as train.batch=64"));
        }
        Ok(Override { place, key: key.to_string(), value })
    }
}

/// The parts of a dotted key. Names of layers contain dots themselves: under `quant.layers` the last part is a field,
/// unless the value is the layer's whole map.
pub(crate) fn split<'a>(key: &'a str, value: &Value) -> Vec<&'a str> {
    if let Some(name) = key.strip_prefix("quant.layers.") {
        return match name.rsplit_once('.') {
            Some((layer, field)) if !value.is_mapping() => vec!["quant", "layers", layer, field],
            _ => vec!["quant", "layers", name],
        };
    }
    key.split('.').collect()
}

/// Puts `value` at `path`. A map for a section, which `defaults` tells from other maps, changes the keys that it has and leaves the others.
fn insert(at: &mut Value, defaults: &Value, path: &[&str], value: &Value) {
    let of = |key: &Value| defaults.get(key).unwrap_or(&Value::Null);
    let is_section = defaults.as_mapping().is_some_and(|d| !d.is_empty());
    if path.is_empty() && !(is_section && value.is_mapping()) {
        *at = value.clone();
        return;
    }
    if !at.is_mapping() {
        *at = Value::Mapping(Mapping::new());
    }
    let Value::Mapping(map) = at else { return };
    match (path, value) {
        ([first, rest @ ..], _) => {
            let key = Value::from(*first);
            insert(map.entry(key.clone()).or_insert(Value::Null), of(&key), rest, value);
        }
        ([], Value::Mapping(keys)) => {
            for (key, value) in keys {
                insert(map.entry(key.clone()).or_insert(Value::Null), of(key), &[], value);
            }
        }
        ([], _) => {}
    }
}
