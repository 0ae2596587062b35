//! `cqat compare`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::run::{RunFolder, leaves};
use crate::terminal::one_line;
use crate::{Error, Result};

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// A run folder
    a: PathBuf,
    /// Another run folder
    b: PathBuf,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// What is compared: every leaf by its path.
type Leaves = BTreeMap<String, Value>;

/// A run as it is compared.
struct Described {
    config: Leaves,
    environment: Leaves,
    result: Leaves,
}

impl CompareArgs {
    pub(super) fn run(&self) -> Result<()> {
        let (a, b) = (describe(&self.a)?, describe(&self.b)?);
        let sections = [
            ("config", differences(&a.config, &b.config)),
            ("environment", differences(&a.environment, &b.environment)),
            ("result", differences(&a.result, &b.result)),
        ];
        if self.json {
            let object: serde_json::Map<String, Value> = sections
                .into_iter()
                .map(|(name, rows)| {
                    let rows =
                        rows.into_iter().map(|(key, a, b)| (key, json!([a, b]))).collect::<serde_json::Map<_, _>>();
                    (name.to_string(), Value::Object(rows))
                })
                .collect();
            println!("{:#}", Value::Object(object));
            return Ok(());
        }
        println!("{:38} {:>28} {:>28}", "", one_line(self.a.display()), one_line(self.b.display()));
        for (name, rows) in sections {
            println!("{name}{}", if rows.is_empty() { ": the same" } else { "" });
            for (key, a, b) in rows {
                println!("  {:36} {:>28} {:>28}", one_line(key), shown(&a), shown(&b));
            }
        }
        Ok(())
    }
}

/// The leaves that differ; null stands for one that is not there.
fn differences(a: &Leaves, b: &Leaves) -> Vec<(String, Value, Value)> {
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let of = |leaves: &Leaves, key: &String| leaves.get(key).cloned().unwrap_or(Value::Null);
    // The kernel of a shape that only one of the networks has says no more than the configurations do.
    let tells = |key: &str, a: &Value, b: &Value| !key.starts_with("kernels.") || !(a.is_null() || b.is_null());
    let all = keys.into_iter().map(|key| (key.clone(), of(a, key), of(b, key)));
    all.filter(|(key, a, b)| a != b && tells(key, a, b)).collect()
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => one_line(text),
        other => one_line(other),
    }
}

fn describe(path: &Path) -> Result<Described> {
    let folder = RunFolder::open(path)?;
    let damaged = |name: &str| {
        Error::training(format!("{} cannot be read", folder.file(name).display()))
            .hint("is it a run folder? The file is missing or damaged")
    };
    let text = |name: &str| {
        let bytes = std::fs::read(folder.file(name)).map_err(|e| damaged(name).caused_by(e))?;
        Ok::<_, Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let config = serde_json::to_value(folder.config()?).map_err(|e| damaged("config.yaml").caused_by(e))?;
    let manifest: Value =
        serde_json::from_str(&text("manifest.json")?).map_err(|e| damaged("manifest.json").caused_by(e))?;
    let mut described =
        Described { config: Leaves::new(), environment: Leaves::new(), result: results(&text("metrics.jsonl")?) };
    leaves("", &config, &mut described.config);
    leaves("", &manifest, &mut described.environment);
    // These differ between any two runs and say nothing.
    described.environment.retain(|key, _| !["command", "started", "resumed"].contains(&key.as_str()));
    Ok(described)
}

/// The last scores of each phase and split. A line that cannot be read, as the last of a killed process may be, is passed over.
fn results(metrics: &str) -> Leaves {
    let mut found = Leaves::new();
    for line in metrics.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if line["kind"] == "epoch"
            && let (Some(phase), Some(split)) = (line["phase"].as_str(), line["split"].as_str())
        {
            for key in ["epoch", "loss", "top1", "top5"] {
                found.insert(format!("{phase}.{split}.{key}"), line[key].clone());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_scores_of_each_phase_count() {
        let metrics = "{\"kind\":\"header\"}\n{\"kind\":\"epoch\",\"phase\":\"float\",\"split\":\"test\",\"epoch\":1,\"top1\":10.0}\n\
                       {\"kind\":\"epoch\",\"phase\":\"float\",\"split\":\"test\",\"epoch\":2,\"top1\":20.5}\n{\"kind\":\"epo";
        let found = results(metrics);
        assert_eq!((&found["float.test.top1"], &found["float.test.epoch"]), (&json!(20.5), &json!(2)));
        let mut other = found.clone();
        other.insert("float.test.top1".into(), json!(21.0));
        other.remove("float.test.loss");
        other.insert("kernels.conv".into(), json!("lane"));
        let different = differences(&found, &other);
        assert_eq!(different, [("float.test.top1".into(), json!(20.5), json!(21.0))]);
    }
}
