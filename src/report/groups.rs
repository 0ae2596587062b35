//! Runs that differ in nothing but their seed, as one row of the table; what distinguishes the rows; their ranks.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

use super::runs::Run;
use super::stats::Mean;
use crate::config::{CONDUCT_KEYS, Config};
use crate::run::RunFolder;

/// Equal runs of different seeds.
#[derive(Debug, Clone)]
pub struct Group {
    /// Method and bits, and the keys of the configuration in which it differs from the defaults and from other rows.
    pub label: String,
    /// The same without bits: what a sweep over bits tries at each of them.
    pub family: String,
    /// Places in the list of runs.
    pub runs: Vec<usize>,
    /// Their seeds, each once.
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

/// Keys that a row's name tells.
const MOST_TOLD: usize = 4;

/// Keys in which equal runs may differ, beside [`CONDUCT_KEYS`].
const PRIVATE: [&str; 2] = ["train.seed", "data.dir"];

/// The rows for `runs`, best first, unfinished ones last.
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
    let groups =
        members.iter().map(|own| group(own.clone(), runs, &described, &varying(own[0], &members, runs, &described)));
    let mut groups: Vec<Group> = groups.collect();
    let score = |g: &Group| g.top1.map_or(f64::NEG_INFINITY, |m| m.mean);
    let finished = |g: &Group| runs[g.runs[0]].finished;
    groups.sort_by(|a, b| {
        let order = finished(b).cmp(&finished(a)).then(score(b).total_cmp(&score(a)));
        order.then_with(|| a.label.cmp(&b.label))
    });
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
    let seeds: BTreeSet<u64> = members.iter().map(|i| runs[*i].config.train.seed).collect();
    // A run that was made twice is one experiment.
    let mean = |value: &dyn Fn(&Run) -> Option<f64>| {
        let of_seed = |seed: &u64| {
            let again = members.iter().map(|i| &runs[*i]).filter(|run| run.config.train.seed == *seed);
            Mean::of(&again.filter_map(value).collect::<Vec<_>>())
        };
        Mean::of(&seeds.iter().filter_map(|seed| Some(of_seed(seed)?.mean)).collect::<Vec<_>>())
    };
    let top1 = mean(&|run| run.score().map(|s| s.top1));
    let gap = mean(&|run| {
        let (last, float) = (run.score()?, run.float_top1()?);
        (last.phase == "quant").then_some(last.top1 - float)
    });
    // What a row has as everybody has it unless told otherwise is not told: the others say how they differ.
    let usual = leaves(&Config::default());
    let own = |key: &&String| described[members[0]].get(*key).unwrap_or(&Value::Null);
    let told: Vec<&String> = varying.iter().filter(|key| own(key) != usual.get(*key).unwrap_or(&Value::Null)).collect();
    let tell = |key: &&String| format!(", {}={}", key.trim_start_matches("quant."), short(own(key)));
    let mut also: String = told.iter().take(MOST_TOLD).map(tell).collect();
    if told.len() > MOST_TOLD {
        also += &format!(", and {} more keys ({})", told.len() - MOST_TOLD, first.name);
    }
    if !first.finished {
        also += &format!(", unfinished ({})", first.name);
    }
    let (label, family) = (first.method() + &also, first.family() + &also);
    let split = first.score().map_or("", |s| &s.split).to_string();
    let comparable = format!("{} {split}", first.data_sha256);
    let seeds = seeds.into_iter().collect();
    Group { label, family, seeds, top1, gap, split, comparable, rank: None, runs: members }
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
        let config = run.start.as_ref().and_then(|folder| RunFolder::open(folder).ok()?.config().ok());
        let made = config.map_or_else(|| json!(start), |config| json!(leaves(&config)));
        all.insert("train.init_from".into(), made);
    }
    all
}

fn leaves(config: &crate::config::Config) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    crate::run::leaves("", &serde_json::to_value(config).unwrap_or_default(), &mut all);
    all.retain(|key, _| !PRIVATE.iter().chain(&CONDUCT_KEYS).any(|private| key == private));
    all
}

/// Keys in which the row of run `own` differs from finished ones of the same method and bits; a run that is not finished is told by
/// its name.
fn varying(
    own: usize,
    members: &[Vec<usize>],
    runs: &[Run],
    described: &[BTreeMap<String, Value>],
) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let is_alike =
        |other: usize| runs[other].finished && runs[own].finished && runs[other].method() == runs[own].method();
    for other in members.iter().map(|m| m[0]).filter(|other| is_alike(*other)) {
        let (a, b) = (&described[own], &described[other]);
        keys.extend(a.keys().chain(b.keys()).filter(|key| a.get(*key) != b.get(*key)).cloned());
    }
    keys
}

/// A value of a label: what is long is cut.
fn short(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Object(_) => "another run".into(),
        other => other.to_string(),
    };
    if text.chars().count() <= 24 { text } else { text.chars().take(23).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Cost;
    use crate::report::Epoch;

    /// A run of one scored epoch with these changes to the preset `cqat`.
    fn run(data: &str, top1: f64, finished: bool, sets: &[&str]) -> Run {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        let config = Config::load("cqat", &sets).unwrap();
        let (net, spec) = crate::setup::network(&config, 10).unwrap();
        let epoch = |phase: &str, top1| Epoch {
            at: 1,
            phase: phase.into(),
            split: "test".into(),
            loss: 1.0,
            top1,
            top5: 90.0,
            samples: 100.0,
        };
        Run {
            start: None,
            start_top1: None,
            path: format!("runs/{top1}").into(),
            name: format!("{top1}"),
            data: data.into(),
            data_sha256: data.into(),
            adapter: "none".into(),
            epochs: vec![epoch("float", 70.0), epoch("quant", top1)],
            traces: Vec::new(),
            cost: Cost::of(&net, spec.as_ref()),
            config,
            finished,
            notes: Vec::new(),
        }
    }

    #[test]
    fn seeds_are_one_row_and_other_keys_have_their_own() {
        let far = ["quant.weights.range_factor=2", "train.seed=7"];
        let runs = [
            run("a", 61.0, true, &["train.seed=1", "device.memory_mib=100"]),
            run("a", 50.0, true, &far),
            run("a", 62.0, true, &["train.seed=2", "data.dir=elsewhere"]),
            run("a", 63.0, true, &["train.seed=3"]),
            run("a", 63.0, true, &["train.seed=3", "data.dir=a copy of it"]),
            run("a", 51.0, true, &["quant.weights.range_factor=2", "train.seed=8"]),
            run("a", 80.0, true, &["quant.weight_bits=8"]),
            run("a", 90.0, false, &["train.seed=4"]),
            run("b", 64.0, true, &["train.seed=1"]),
        ];
        let groups = groups(&runs);
        let rows: Vec<(&str, &[usize])> = groups.iter().map(|g| (g.label.as_str(), &g.runs[..])).collect();
        let (mean, gap) = (groups[2].top1.unwrap(), groups[2].gap.unwrap());
        assert_eq!(
            rows,
            [
                ("cqat W8A4", &[6][..]),
                ("cqat W5A4", &[8]),
                ("cqat W5A4", &[0, 2, 3, 4]),
                ("cqat W5A4, weights.range_factor=2.0", &[1, 5]),
                ("cqat W5A4, unfinished (90)", &[7]),
            ]
        );
        assert_eq!(
            (mean.mean, mean.deviation, gap.mean, &groups[2].seeds[..]),
            (62.0, Some(1.0), -8.0, &[1, 2, 3][..])
        );
        // Single seeds are no judges; other data is another matter.
        assert_eq!(groups.iter().map(|g| g.rank).collect::<Vec<_>>(), [None, None, Some(1), Some(2), None]);
    }

    #[test]
    fn runs_that_start_from_equal_runs_of_other_seeds_are_one_row() {
        let folder = tempfile::tempdir().unwrap();
        let start = |name: &str, sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("config.yaml"), Config::load("float", &sets).unwrap().to_yaml().unwrap()).unwrap();
            path.display().to_string()
        };
        let starts = [
            start("a", &["train.seed=1"]),
            start("b", &["train.seed=2"]),
            start("c", &["train.seed=3", "train.float_epochs=7"]),
        ];
        let from = |start: &String| {
            let sets = ["train.float_epochs=0", &format!("train.init_from={start}")];
            Run { start: Some(start.into()), ..run("a", 60.0, true, &sets) }
        };
        let groups = groups(&starts.iter().map(from).collect::<Vec<_>>());
        let mut sizes: Vec<usize> = groups.iter().map(|g| g.runs.len()).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 2]);
    }
}
