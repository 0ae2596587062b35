//! Runs that differ in nothing but their seed, as one row of the table; what distinguishes the rows; their ranks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::runs::Run;
use super::stats::Mean;
use crate::run::RunFolder;

/// Equal runs of different seeds.
#[derive(Debug, Clone)]
pub struct Group {
    /// Method and bits, and the keys of the configuration in which it differs from other rows.
    pub label: String,
    /// Places in the list of runs.
    pub runs: Vec<usize>,
    /// Their seeds.
    pub seeds: Vec<u64>,
    /// Top-1 after the last scored epoch, in percent; none where nothing has been scored.
    pub top1: Option<Mean>,
    /// Top-1 minus that of the same run's float network, in points, where a run has both.
    pub gap: Option<Mean>,
    /// Pictures that the scores are of.
    pub split: String,
    /// What it can be compared with: data set, split.
    pub comparable: String,
    /// 1 more than the number of comparable rows that are better than chance explains; none of one seed, or of runs that are
    /// not finished.
    pub rank: Option<usize>,
}

/// Keys in which equal runs may differ.
const PRIVATE: [&str; 6] =
    ["train.seed", "data.dir", "device.memory_mib", "device.pictures", "train.log_every", "train.heartbeat_seconds"];

/// The rows for `runs`, best first.
pub fn groups(runs: &[Run]) -> Vec<Group> {
    let mut by_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let described: Vec<BTreeMap<String, Value>> = runs.iter().map(description).collect();
    for (i, run) in runs.iter().enumerate() {
        // What is unfinished has its own row: its score is of another epoch.
        let unfinished = if run.finished { String::new() } else { run.path.display().to_string() };
        let split = run.score().map_or("", |s| &s.split);
        let key = json!([run.data_sha256, split, described[i], unfinished]).to_string();
        by_key.entry(key).or_default().push(i);
    }
    let members: Vec<Vec<usize>> = by_key.into_values().collect();
    let varying = varying(&members, runs, &described);
    let mut groups: Vec<Group> =
        members.into_iter().map(|members| group(members, runs, &described, &varying)).collect();
    let score = |g: &Group| g.top1.map_or(f64::NEG_INFINITY, |m| m.mean);
    groups.sort_by(|a, b| score(b).total_cmp(&score(a)).then_with(|| a.label.cmp(&b.label)));
    let ranks: Vec<Option<usize>> = groups.iter().map(|g| rank(g, &groups, runs)).collect();
    groups.iter_mut().zip(ranks).for_each(|(g, rank)| g.rank = rank);
    groups
}

fn group(
    members: Vec<usize>,
    runs: &[Run],
    described: &[BTreeMap<String, Value>],
    varying: &BTreeSet<String>,
) -> Group {
    let first = &runs[members[0]];
    let of = |i: &usize| runs[*i].score().map(|s| s.top1);
    let top1: Vec<f64> = members.iter().filter_map(of).collect();
    let gap = |i: &usize| {
        let (last, float) = (runs[*i].score()?, runs[*i].float_score()?);
        (last.phase == "quant").then_some(last.top1 - float.top1)
    };
    let gap: Vec<f64> = members.iter().filter_map(gap).collect();
    let mut label = first.method();
    for key in varying {
        let value = described[members[0]].get(key).unwrap_or(&Value::Null);
        label += &format!(", {}={}", key.trim_start_matches("quant."), short(value));
    }
    if !first.finished {
        label += &format!(", unfinished ({})", first.name);
    }
    let split = first.score().map_or("", |s| &s.split).to_string();
    let comparable = format!("{} {split}", first.data_sha256);
    let seeds = members.iter().map(|i| runs[*i].config.train.seed).collect();
    Group { label, seeds, top1: Mean::of(&top1), gap: Mean::of(&gap), split, comparable, rank: None, runs: members }
}

/// See [`Group::rank`].
fn rank(group: &Group, all: &[Group], runs: &[Run]) -> Option<usize> {
    let is_ranked = |g: &Group| runs[g.runs[0]].finished && g.comparable == group.comparable;
    let own = group.top1.filter(|m| m.deviation.is_some() && is_ranked(group))?;
    let better = all.iter().filter(|g| is_ranked(g)).filter_map(|g| g.top1?.exceeds(&own)).filter(|b| *b).count();
    Some(1 + better)
}

/// What a run is, but for its seed and where it ran: the leaves of its configuration, and of that of its start.
fn description(run: &Run) -> BTreeMap<String, Value> {
    let mut all = leaves(&run.config);
    if let Some(start) = &run.config.train.init_from {
        // Each seed may have a start of its own; what counts is how that was made.
        let folder = if start.is_dir() { Some(start.as_path()) } else { start.parent() };
        let config = folder.and_then(|folder: &Path| RunFolder::open(folder).ok()?.config().ok());
        let made = config.map_or_else(|| json!(start), |config| json!(leaves(&config)));
        all.insert("train.init_from".into(), made);
    }
    all
}

fn leaves(config: &crate::config::Config) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    crate::run::leaves("", &serde_json::to_value(config).unwrap_or_default(), &mut all);
    all.retain(|key, _| !PRIVATE.contains(&key.as_str()));
    all
}

/// Keys in which rows differ that method and bits do not tell apart already.
fn varying(members: &[Vec<usize>], runs: &[Run], described: &[BTreeMap<String, Value>]) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for (k, a) in members.iter().enumerate() {
        for b in &members[k + 1..] {
            let (a, b) = (a[0], b[0]);
            if runs[a].method() != runs[b].method() {
                continue;
            }
            let all: BTreeSet<&String> = described[a].keys().chain(described[b].keys()).collect();
            keys.extend(all.into_iter().filter(|key| described[a].get(*key) != described[b].get(*key)).cloned());
        }
    }
    keys
}

/// A value of a label: what is long is cut.
fn short(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), String::from);
    if text.chars().count() <= 24 { text } else { text.chars().take(23).chain(['…']).collect() }
}
