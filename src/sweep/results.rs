//! `results.csv`: a row for every run of the sweep, whoever trained it.

use serde_yaml::Value;

use super::estimate::Classes;
use super::expand::{as_value, value_at};
use super::file::shown;
use super::metrics::Metrics;
use super::work::blocked;
use super::{Folder, Run, State, Sweep};
use crate::error::{Error, ErrorKind, Result};
use crate::files::write_atomically;

/// How the file begins.
pub(super) const FIRST: &str = "name,status,";

/// Keys that have a column in any case.
const KEYS: [&str; 4] = ["quant.method", "quant.weight_bits", "quant.activation_bits", "train.seed"];

/// Columns behind those of the keys.
const OUTCOME: [&str; 12] = [
    "evaluation",
    "split",
    "top1",
    "top5",
    "loss",
    "train_loss",
    "float_top1",
    "epochs",
    "seconds",
    "bops",
    "float_start",
    "error",
];

/// Writes the table anew from the run folders.
///
/// # Errors
/// A failure to write.
pub(super) fn write(sweep: &Sweep, folder: &Folder) -> Result<()> {
    let _lock = folder.hold("results")?;
    let mut keys: Vec<&str> = KEYS.into();
    keys.extend(sweep.keys.iter().map(String::as_str).filter(|key| !KEYS.contains(key)));
    let failed = |e: csv::Error| Error::training("results.csv cannot be encoded").caused_by(e);
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(["name", "status"].into_iter().chain(keys.iter().copied()).chain(OUTCOME)).map_err(failed)?;
    let classes = Classes::read(sweep, folder);
    for run in &sweep.runs {
        csv.write_record(row(sweep, folder, run, &keys, &classes)?).map_err(failed)?;
    }
    let bytes =
        csv.into_inner().map_err(|e| Error::training("results.csv cannot be encoded").caused_by(e.into_error()))?;
    write_atomically(&folder.results(), &bytes, ErrorKind::Training)
}

/// What a table says of a run: its status, and the error of one that failed, waits for one that did, or has lost its scores.
pub fn status(folder: &Folder, run: &Run) -> (&'static str, Option<String>) {
    let start = run.start.as_ref().map(|name| (name, folder.state(name)));
    match (folder.state(&run.name), start) {
        (State::Failed(error), _) => ("failed", Some(error)),
        (State::Pending, Some((name, State::Failed(error)))) => ("blocked", Some(blocked(name, &error))),
        (state, _) => (state.name(), None),
    }
}

fn row(sweep: &Sweep, folder: &Folder, run: &Run, keys: &[&str], classes: &Classes) -> Result<Vec<String>> {
    let config = as_value(&run.config)?;
    let (status, error) = status(folder, run);
    let m = Metrics::read(&folder.run(&run.name));
    let is_scoreless = folder.state(&run.name) == State::Finished && m.score.is_none();
    let error = error.or_else(|| is_scoreless.then(|| "its metrics.jsonl has no score: cqat eval makes one".into()));
    let start = run.start.as_ref().and_then(|name| sweep.run(name));
    let float = start.and_then(|start| Metrics::read(&folder.run(&start.name)).float_top1).or(m.float_top1);
    let number = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
    let score = m.score.as_ref();
    let mut row = vec![run.name.clone(), status.to_string()];
    row.extend(keys.iter().map(|key| match value_at(&config, key) {
        Value::Null => String::new(),
        value => shown(&value),
    }));
    row.extend([
        score.map_or(String::new(), |s| s.evaluation.clone()),
        score.map_or(String::new(), |s| s.split.clone()),
        number(score.map(|s| s.top1)),
        number(score.map(|s| s.top5)),
        number(score.map(|s| s.loss)),
        number(m.train_loss),
        number(float),
        m.epochs.to_string(),
        format!("{:.1}", m.seconds()),
        classes.bops(&run.config)?.to_string(),
        run.start.clone().unwrap_or_default(),
        error.unwrap_or_default(),
    ]);
    Ok(row)
}
