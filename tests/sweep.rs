//! Sweeps: many runs of one file, in one folder, however often they are stopped.

mod common;

#[cfg(unix)]
#[path = "sweep/examples.rs"]
mod examples;
#[path = "sweep/refusals.rs"]
mod refusals;
#[cfg(unix)]
#[path = "sweep/stopping.rs"]
mod stopping;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use common::{Ran, cqat, last, metrics, on_device, parsed, workplace};
use cqat::checkpoint::Checkpoint;
use cqat::config::Config;
use cqat::sweep::{Estimate, Folder, Sweep, duration};
use cqat::tensors::is_training_state;
use tempfile::TempDir;

/// Two bit-widths and two seeds: four runs, two float starts.
const SWEEP: &str = "base: tiny.yaml
set: {data.subset: 40, train.quant_epochs: 1}
grid:
  quant.weight_bits: [4, 3]
  train.seed: [0, 1]
";

const RUNS: [&str; 4] = ["w4-seed0", "w4-seed1", "w3-seed0", "w3-seed1"];

/// A workplace with the sweep in `s.yaml`, done in `full`.
static PLACE: LazyLock<TempDir> = LazyLock::new(|| {
    let place = workplace();
    std::fs::write(place.path().join("s.yaml"), SWEEP).unwrap();
    cqat(place.path(), &["sweep", "s.yaml", "--out", "full", "--jobs", "2"]).ok();
    place
});

fn place() -> &'static Path {
    PLACE.path()
}

/// The rows of a sweep's table, by the name of the run.
fn rows(sweep: &Path) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut csv = csv::Reader::from_path(sweep.join("results.csv")).unwrap();
    let head = csv.headers().unwrap().clone();
    let row = |record: csv::StringRecord| {
        let cells = head.iter().zip(&record).map(|(key, cell)| (key.to_string(), cell.to_string()));
        (record[0].to_string(), cells.collect())
    };
    csv.records().map(|record| row(record.unwrap())).collect()
}

/// Names of the shared float runs.
fn starts(sweep: &Path) -> Vec<String> {
    let names = std::fs::read_dir(sweep).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut starts: Vec<String> = names.filter(|n| n.starts_with("float-") && sweep.join(n).is_dir()).collect();
    starts.sort();
    starts
}

/// How often a process was started for a run.
fn processes(sweep: &Path, run: &str) -> usize {
    std::fs::read_to_string(sweep.join(format!("{run}.log"))).unwrap().matches("$ cqat train ").count()
}

/// Every run became what it is in `full`.
#[track_caller]
fn equals_the_whole(sweep: &Path) {
    let full = place().join("full");
    assert_eq!(starts(sweep), starts(&full));
    for run in RUNS.map(String::from).iter().chain(&starts(&full)) {
        assert!(last(&sweep.join(run)).tensors == last(&full.join(run)).tensors, "{run} differs");
        assert_eq!(metrics(&sweep.join(run)), metrics(&full.join(run)), "{run}");
    }
    let times_differ = |mut rows: BTreeMap<String, BTreeMap<String, String>>| {
        rows.values_mut().for_each(|row| drop(row.remove("seconds")));
        rows
    };
    assert_eq!(times_differ(rows(sweep)), times_differ(rows(&full)));
}

/// Waits until `ready`, for a minute at most.
#[track_caller]
fn wait(ready: impl Fn() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn runs_share_their_float_start_and_one_table() {
    let full = place().join("full");
    let rows = rows(&full);
    assert_eq!((rows.len(), starts(&full).len()), (4, 2));
    for (name, row) in &rows {
        let run = full.join(name);
        let config = Config::load(run.join("config.yaml").to_str().unwrap(), &[]).unwrap();
        let start = full.join(&row["float_start"]);
        assert_eq!((row["status"].as_str(), row["error"].as_str(), config.train.float_epochs), ("finished", "", 0));
        assert_eq!(row["quant.weight_bits"], config.quant.weight_bits.to_string());
        assert_eq!(row["train.seed"], config.train.seed.to_string());
        assert_eq!((config.data.subset, row["epochs"].as_str(), row["split"].as_str()), (Some(40), "1", "test"));
        // The numbers are those of the run folders.
        let score = metrics(&run).into_iter().rfind(|l| l["kind"] == "epoch" && l["split"] == "test").unwrap();
        let float = metrics(&start).into_iter().rfind(|l| l["kind"] == "epoch" && l["split"] == "test").unwrap();
        let number = |key: &str| row[key].parse::<f64>().unwrap();
        assert_eq!((Some(number("top1")), Some(number("loss"))), (score["top1"].as_f64(), score["loss"].as_f64()));
        assert_eq!((Some(number("float_top1")), row["evaluation"].as_str()), (float["top1"].as_f64(), "fake_quant"));
        assert!(number("seconds") > 0.0 && number("bops") > 1e6);
        // It begins with the start's float network.
        let weights = |run: &Path| {
            let mut tensors = Checkpoint::read(&run.join("float.safetensors")).unwrap().tensors;
            tensors.retain(|name, _| !is_training_state(name));
            tensors
        };
        assert!(weights(&run) == weights(&start), "{name}");
        let seeds = Config::load(start.join("config.yaml").to_str().unwrap(), &[]).unwrap().train.seed;
        assert_eq!(seeds, config.train.seed);
    }
    assert!(rows["w4-seed0"]["bops"].parse::<u64>().unwrap() > rows["w3-seed0"]["bops"].parse::<u64>().unwrap());
    let sweep: serde_yaml::Value =
        serde_yaml::from_str(&std::fs::read_to_string(full.join("sweep.yaml")).unwrap()).unwrap();
    assert_eq!(sweep["runs"][1]["values"]["train.seed"], 1);
}

#[test]
fn a_float_start_is_what_one_run_trains_in_float() {
    let sets = ["--set", "data.subset=40", "--set", "train.quant_epochs=1"];
    cqat(place(), &[&["train", "tiny.yaml", "--out", "alone"], &sets[..]].concat()).ok();
    let start = place().join("full").join(&rows(&place().join("full"))["w4-seed0"]["float_start"]);
    let float = |run: &Path| Checkpoint::read(&run.join("float.safetensors")).unwrap().tensors;
    let (mut alone, mut start) = (float(&place().join("alone")), float(&start));
    for tensors in [&mut alone, &mut start] {
        tensors.retain(|name, _| !is_training_state(name));
    }
    assert!(!alone.is_empty() && alone == start);
}

#[test]
fn what_is_finished_is_not_trained_again() {
    let full = place().join("full");
    let before: Vec<_> = RUNS.map(|run| std::fs::read(full.join(run).join("manifest.json")).unwrap()).into();
    let table = std::fs::read(full.join("results.csv")).unwrap();
    let ran = cqat(place(), &["sweep", "s.yaml", "--out", "full"]).ok();
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("results: full/results.csv\n", ""));
    let after: Vec<_> = RUNS.map(|run| std::fs::read(full.join(run).join("manifest.json")).unwrap()).into();
    assert!(before == after && table == std::fs::read(full.join("results.csv")).unwrap());
    assert!(RUNS.iter().all(|run| processes(&full, run) == 1));
}

#[test]
fn shards_at_once_are_the_whole() {
    let out = place().join("sharded");
    let shard = |i: usize| {
        let shard = format!("{i}/4");
        on_device(place(), &["sweep", "s.yaml", "--out", "sharded", "--shard", &shard]).spawn().unwrap()
    };
    let shards: Vec<_> = (0..4).map(shard).collect();
    shards.into_iter().for_each(|shard| drop(Ran::from(shard.wait_with_output().unwrap()).ok()));
    equals_the_whole(&out);
    let all = starts(&out);
    assert!(RUNS.iter().copied().chain(all.iter().map(String::as_str)).all(|run| processes(&out, run) == 1));
}

/// `kill -9` of the sweep: its run saves and stops, and the next sweep goes on.
#[test]
fn killed_and_started_again() {
    let out = place().join("killed");
    for ready in ["float", "w4-seed0"] {
        let mut child = on_device(place(), &["sweep", "s.yaml", "--out", "killed"]).spawn().unwrap();
        let is_there = |name: &str| name.starts_with(ready) && out.join(name).join("last.safetensors").exists();
        wait(|| {
            std::fs::read_dir(&out).is_ok_and(|all| all.flatten().any(|e| is_there(e.file_name().to_str().unwrap())))
        });
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // A half-written run, as a crash before the first checkpoint leaves it.
    std::fs::create_dir_all(out.join("w3-seed1")).unwrap();
    std::fs::write(out.join("w3-seed1/metrics.jsonl"), "{\"kind\":\"hea").unwrap();
    std::fs::copy(place().join("full/state/w3-seed1.yaml"), out.join("state/w3-seed1.yaml")).unwrap();
    cqat(place(), &["sweep", "s.yaml", "--out", "killed"]).ok();
    equals_the_whole(&out);
}

#[test]
fn interrupted_and_started_again() {
    let out = place().join("stopped");
    let child = on_device(place(), &["sweep", "s.yaml", "--out", "stopped", "--jobs", "2"]).spawn().unwrap();
    wait(|| out.is_dir() && starts(&out).iter().filter(|s| out.join(s).join("last.safetensors").exists()).count() == 2);
    let done = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(done.success());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert!(ran.err.contains("stopping the runs, each of which saves first"), "{}", ran.err);
    ran.fails(130, "interrupted; ", "start the same sweep again");
    let log = std::fs::read_to_string(out.join(format!("{}.log", starts(&out)[0]))).unwrap();
    assert!(log.contains("interrupted; the run was saved") || log.contains("run folder: "), "{log}");
    assert!(rows(&out).values().all(|row| row["status"] == "pending"));
    cqat(place(), &["sweep", "s.yaml", "--out", "stopped", "--jobs", "2"]).ok();
    equals_the_whole(&out);
}

/// Somebody interrupts a start alone: what needs it waits for the next sweep, and this one ends.
#[cfg(target_os = "linux")]
#[test]
fn a_run_that_somebody_else_interrupts() {
    let out = place().join("alone-stopped");
    let child = on_device(place(), &["sweep", "s.yaml", "--out", "alone-stopped", "--shard", "0/2"]).spawn().unwrap();
    wait(|| out.is_dir() && starts(&out).iter().any(|s| out.join(s).join("last.safetensors").exists()));
    let id = child.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let done = std::process::Command::new("kill").args(["-INT", children.trim()]).status().unwrap();
    assert!(done.success(), "{children}");
    let ran = Ran::from(child.wait_with_output().unwrap());
    ran.fails(5, "2 runs were interrupted by somebody else", "it goes on where they stopped");
    assert_eq!(rows(&out)["w4-seed0"]["status"], "pending");
}

#[test]
fn a_failure_is_recorded_and_retried_when_asked() {
    let here = workplace();
    let sweep = "base: tiny.yaml
set: {train.float_epochs: 1, train.quant_epochs: 1}
runs:
  - {name: big, set: {train.batch: 64}}
  - {name: alone, set: {train.batch: 56, train.float_epochs: 0}}
  - {name: small, set: {train.batch: 8, data.dir: pictures}}
";
    std::fs::create_dir(here.path().join("pictures")).unwrap();
    for file in ["train.bin", "test.bin"] {
        std::fs::copy(here.path().join("data").join(file), here.path().join("pictures").join(file)).unwrap();
    }
    std::fs::write(here.path().join("s.yaml"), sweep).unwrap();
    let out = here.path().join("out");
    let run = |more: &[&str]| cqat(here.path(), &[&["sweep", "s.yaml", "--out", "out"], more].concat());
    let message = "2 of 3 runs failed: big, alone";
    let ran = run(&[]).fails(5, message, "out/results.csv has their errors");
    assert!(
        ran.err.contains("alone: failed: train.batch is 56, expected at most the 48 training pictures"),
        "{}",
        ran.err
    );
    let table = rows(&out);
    let status = |name: &str| (table[name]["status"].as_str(), table[name]["error"].clone());
    assert_eq!(status("small"), ("finished", String::new()), "the others go on");
    assert_eq!(status("alone"), ("failed", "train.batch is 56, expected at most the 48 training pictures".into()));
    let start = table["big"]["float_start"].clone();
    let error = format!("its float start {start} failed: train.batch is 64, expected at most the 48 training pictures");
    assert_eq!(status("big"), ("blocked", error));
    let record = parsed(&std::fs::read_to_string(out.join("state/alone.json")).unwrap());
    assert_eq!(record["hint"], "--set train.batch=48 or less");
    // Not tried again, but still a failure; nor is it by another shard.
    run(&[]).fails(5, message, "--retry-failed");
    assert_eq!((processes(&out, "alone"), processes(&out, &start)), (1, 1));
    // What is not trained takes no time.
    let time = |more: &[&str]| {
        let shown = run(&[&["--dry-run"], more].concat()).ok().out;
        shown.lines().find(|line| line.starts_with("alone ")).unwrap().split_whitespace().nth(4).unwrap().to_string()
    };
    assert!(time(&[]) == "-" && time(&["--retry-failed"]).parse::<f64>().is_ok());
    // The cause is gone, and nothing was trained on these pictures before.
    std::fs::write(here.path().join("data/train.bin"), common::cifar100(64, 1)).unwrap();
    run(&["--retry-failed"]).ok();
    assert!(rows(&out).values().all(|row| row["status"] == "finished" && row["error"].is_empty()));
    assert_eq!((processes(&out, "alone"), processes(&out, "small")), (2, 1));
}

/// Numbers that depend on the device become `#`.
fn without_numbers(text: &str) -> String {
    let word = |word: &str| if word.parse::<f64>().is_ok_and(|v| v > 1.0) { "#".to_string() } else { word.to_string() };
    text.lines().map(|line| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn a_dry_run_shows_what_is_to_come() {
    let ran = cqat(place(), &["sweep", "s.yaml", "--out", "unmade", "--dry-run"]).ok();
    assert!(!place().join("unmade").exists() && ran.err.is_empty(), "{}", ran.err);
    insta::assert_snapshot!("dry-run", without_numbers(&ran.out));
    let ran = cqat(place(), &["sweep", "s.yaml", "--out", "unmade", "--dry-run", "--shard", "1/2"]).ok();
    assert_eq!(ran.out.lines().count(), 1 + 1 + 2 + 1, "a start and its two runs:\n{}", ran.out);
    // Runs that are finished tell how long others take.
    let more = SWEEP.replace("[4, 3]", "[4, 3, 2]");
    std::fs::write(place().join("more.yaml"), more).unwrap();
    let ran = cqat(place(), &["sweep", "more.yaml", "--out", "full", "--dry-run"]).ok();
    let line = |start: &str| ran.out.lines().find(|l| l.starts_with(start)).unwrap().to_string();
    assert!(line("w3-seed0").contains("finished") && line("w2-seed0").contains("pending"), "{}", ran.out);
    let sweep = Sweep::read(&place().join("more.yaml"), &[]).unwrap();
    let estimates = Estimate::of_all(&sweep, &Folder::new(&place().join("full")), None).unwrap();
    let seconds: Vec<f64> = estimates.iter().map(|e| e.seconds.unwrap()).collect();
    // All runs do the same work: an epoch of theirs takes as long as the four did in the mean, and every evaluation.
    let full = place().join("full");
    let spent = |is: &dyn Fn(&serde_json::Value) -> bool| {
        let lines = RUNS.map(String::from).into_iter().chain(starts(&full)).flat_map(|run| {
            let text = std::fs::read_to_string(full.join(run).join("metrics.jsonl")).unwrap();
            text.lines().map(parsed).collect::<Vec<_>>()
        });
        let all: Vec<f64> =
            lines.filter(|l| l["kind"] == "epoch" && is(l)).map(|l| l["seconds"].as_f64().unwrap()).collect();
        all.iter().sum::<f64>() / all.len() as f64
    };
    let expected = spent(&|l| l["split"] == "train" && l["phase"] == "quant") + spent(&|l| l["split"] == "test");
    assert!(expected > 0.0 && seconds[..6].iter().all(|s| *s == 0.0), "{seconds:?}");
    assert!(seconds[6..].iter().all(|s| (s / expected - 1.0).abs() < 1e-6), "{seconds:?}, expected {expected}");
    let total = duration(seconds.iter().sum());
    assert!(ran.out.ends_with(&format!("6 runs: {total} left, as the finished runs show\n")), "{}", ran.out);
}

/// A list of devices is a process on each; the pictures may lie elsewhere; a run of the list may be the start of others.
#[test]
fn two_devices_and_a_float_run_in_the_sweep() {
    let here = workplace();
    std::fs::rename(here.path().join("data"), here.path().join("pictures")).unwrap();
    let sweep = "base: tiny.yaml
runs:
  - {name: w4, set: {quant.weight_bits: 4, train.quant_epochs: 0}}
  - {name: float, set: {quant.method: none, train.quant_epochs: 0}}
  - {name: calibrated, set: {quant.weight_bits: 3, train.float_epochs: 0, train.quant_epochs: 1}}
";
    std::fs::write(here.path().join("s.yaml"), sweep).unwrap();
    let device = common::device();
    let devices = format!("{device},{device}");
    let arguments = ["sweep", "s.yaml", "--data", "pictures", "--set", "train.float_epochs=1"];
    let ran = Ran::of(common::command(here.path(), &[&arguments[..], &["--device", &devices]].concat()));
    let ran =
        ran.fails(2, "--set train.float_epochs=1: the sweep varies `train.float_epochs`", "change the sweep's file");
    assert!(ran.out.is_empty());
    let ran = Ran::of(common::command(here.path(), &[&arguments[..4], &["--device", &devices]].concat())).ok();
    assert!(
        ran.out == "results: runs/s/results.csv\n" && ran.err.contains(&format!("float: begins on {device}")),
        "{ran:?}"
    );
    let out = here.path().join("runs/s");
    assert!(starts(&out).is_empty());
    let rows = rows(&out);
    assert_eq!((rows["w4"]["float_start"].as_str(), rows["w4"]["epochs"].as_str()), ("float", "0"));
    assert_eq!((rows["float"]["evaluation"].as_str(), rows["w4"]["evaluation"].as_str()), ("float", "fake_quant"));
    assert_eq!(rows["w4"]["float_top1"], rows["float"]["top1"]);
}
