//! Sweeps that are stopped, or stop by themselves, and what becomes of their runs.

use std::path::Path;

use cqat::run::RunFolder;

use super::{SWEEP, equals_the_whole, place, processes, rows, wait};
use crate::common::{Ran, cifar100, contents, cqat, last, on_device, signal, workplace};

/// Names in a folder that end so.
fn ending(folder: &Path, end: &str) -> Vec<String> {
    let names = std::fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(end)).collect()
}

/// Before its first checkpoint a run has nothing to save, and may not even hear of interrupts yet: it did not fail.
#[test]
fn interrupted_before_the_first_checkpoint() {
    let out = place().join("early");
    let child = on_device(place(), &["sweep", "s.yaml", "--out", "early", "--jobs", "2"]).spawn().unwrap();
    wait(|| !ending(&out, ".log").is_empty());
    signal(&child, "-INT");
    let ran = Ran::from(child.wait_with_output().unwrap());
    ran.fails(130, "interrupted; 4 runs are not finished", "start the same sweep again");
    assert_eq!(ending(&out.join("state"), ".json"), [""; 0]);
    assert!(rows(&out).values().all(|row| row["status"] == "pending" && row["error"].is_empty()));
    cqat(place(), &["sweep", "s.yaml", "--out", "early", "--jobs", "2"]).ok();
    equals_the_whole(&out);
}

/// An error of the sweep itself is no loss to its runs: they save, and it waits for them.
#[test]
fn runs_save_before_an_error_ends_the_sweep() {
    let here = workplace();
    let sweep = "base: tiny.yaml
set: {train.float_epochs: 0}
runs: [{name: short, set: {train.quant_epochs: 1}}, {name: long, set: {train.quant_epochs: 500}}]
";
    std::fs::write(here.path().join("s.yaml"), sweep).unwrap();
    let out = here.path().join("out");
    let child = on_device(here.path(), &["sweep", "s.yaml", "--out", "out", "--jobs", "2"]).spawn().unwrap();
    // How the short run ends cannot be written down.
    wait(|| out.join("short/config.yaml").exists());
    std::fs::create_dir(out.join("state/short.json")).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    let is_left = RunFolder::is_being_trained(&out.join("long"));
    ran.fails(5, "out/state/short.json cannot be written", "check that the disk has room");
    let log = std::fs::read_to_string(out.join("long.log")).unwrap();
    assert!(log.contains("error: interrupted; the run was saved") && !is_left, "{log}");
    assert!(last(&out.join("long")).meta.position.global_step > 0);
}

#[test]
fn a_table_that_cannot_be_written_is_written_later() {
    let here = workplace();
    std::fs::write(here.path().join("s.yaml"), SWEEP).unwrap();
    let out = here.path().join("out");
    let child = on_device(here.path(), &["sweep", "s.yaml", "--out", "out"]).spawn().unwrap();
    wait(|| !ending(&out, ".log").is_empty());
    std::fs::remove_file(out.join("results.csv")).unwrap();
    std::fs::create_dir(out.join("results.csv")).unwrap();
    wait(|| !ending(&out.join("state"), ".json").is_empty());
    wait(|| ending(&out, ".log").len() > 1);
    std::fs::remove_dir(out.join("results.csv")).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap()).ok();
    assert_eq!(ran.err.matches("results.csv cannot be written; it is tried again").count(), 1, "{}", ran.err);
    assert!(rows(&out).values().all(|row| row["status"] == "finished"));
}

/// Also in a folder whose name looks like an option.
#[test]
fn a_failed_run_is_retried_from_its_last_checkpoint() {
    let here = workplace();
    std::fs::write(here.path().join("s.yaml"), "base: tiny.yaml\nset: {train.float_epochs: 0}\nruns: [{name: a}]")
        .unwrap();
    cqat(here.path(), &["sweep", "s.yaml", "--out=-whole"]).ok();
    // It failed after its first epoch, as when a device is lost.
    let (whole, out) = (here.path().join("-whole"), here.path().join("out"));
    std::fs::create_dir_all(out.join("state")).unwrap();
    std::fs::copy(whole.join("state/a.yaml"), out.join("state/a.yaml")).unwrap();
    cqat(here.path(), &["train", "out/state/a.yaml", "--out", "out/a", "--stop-after", "1"]).ok();
    let record = r#"{"format_version": 1, "error": "the device was lost", "hint": null, "ended": 0}"#;
    std::fs::write(out.join("state/a.json"), record).unwrap();
    let sweep = |more: &[&str]| cqat(here.path(), &[&["sweep", "s.yaml", "--out", "out"], more].concat());
    sweep(&[]).fails(5, "1 of 1 runs failed: a", "--retry-failed");
    assert_eq!(rows(&out)["a"]["error"], "the device was lost");
    assert!(!out.join("a.log").exists(), "it is not trained");
    sweep(&["--retry-failed"]).ok();
    let log = std::fs::read_to_string(out.join("a.log")).unwrap();
    assert!(log.starts_with("$ cqat train --resume out/a ") && processes(&out, "a") == 1, "{log}");
    assert!(last(&out.join("a")).tensors == last(&whole.join("a")).tensors);
    assert_eq!(rows(&out)["a"]["status"], "finished");
    // Without its checkpoint it is nothing to go on from; what trains it anew is said, and does.
    std::fs::remove_file(out.join("a/last.safetensors")).unwrap();
    sweep(&["--retry-failed"]).fails(5, "1 of 1 runs failed: a", "remove the run folder first");
    std::fs::remove_dir_all(out.join("a")).unwrap();
    sweep(&["--retry-failed"]).ok();
    assert!(last(&out.join("a")).tensors == last(&whole.join("a")).tensors);
}

#[test]
fn a_sweep_goes_on_with_the_data_it_began_with() {
    let here = workplace();
    let write = |runs: &str| {
        let sweep = format!("base: tiny.yaml\nset: {{train.float_epochs: 0, train.quant_epochs: 1}}\nruns: [{runs}]");
        std::fs::write(here.path().join("s.yaml"), sweep).unwrap();
    };
    let sweep = |more: &[&str]| cqat(here.path(), &[&["sweep", "s.yaml", "--out", "out"], more].concat());
    for (name, pictures) in [("few", 4), ("other", 56)] {
        std::fs::create_dir(here.path().join(name)).unwrap();
        std::fs::write(here.path().join(name).join("train.bin"), cifar100(pictures, 3)).unwrap();
        std::fs::write(here.path().join(name).join("test.bin"), cifar100(2, 4)).unwrap();
    }
    write("{name: a, set: {quant.weight_bits: 4}}");
    sweep(&["--data", "few"]).fails(5, "1 of 1 runs failed: a", "");
    sweep(&["--retry-failed"]).ok(); // nothing was trained on the others
    write("{name: a, set: {quant.weight_bits: 4}}, {name: b, set: {quant.weight_bits: 3}}");
    let before = contents(&here.path().join("out"));
    sweep(&["--data", "other"]).fails(3, "out/a was trained on other data than this sweep is given", "point --data at");
    assert!(contents(&here.path().join("out")) == before);
    // The same pictures elsewhere are the same.
    std::fs::rename(here.path().join("data"), here.path().join("moved")).unwrap();
    sweep(&["--data", "moved"]).ok();
    let table = || rows(&here.path().join("out"));
    assert_eq!(table()["b"]["status"], "finished");
    // Nothing is left to train, and still other data are refused.
    sweep(&["--data", "other"]).fails(3, "out/a was trained on other data than this sweep is given", "point --data at");
    std::fs::remove_file(here.path().join("out/b/metrics.jsonl")).unwrap();
    sweep(&["--data", "moved"]).ok();
    assert!(table()["b"]["error"].contains("metrics.jsonl has no score") && table()["a"]["error"].is_empty());
}

/// What a run begins with is asked for until it has begun, and not again.
#[test]
fn a_finished_sweep_does_without_its_start() {
    let here = workplace();
    let float = ["--set", "quant.method=none", "--set", "train.quant_epochs=0", "--set", "train.float_epochs=1"];
    cqat(here.path(), &[&["train", "tiny.yaml", "--out", "start"][..], &float].concat()).ok();
    let write = |runs: &str| {
        let set = "set: {train.init_from: start, train.float_epochs: 0, train.quant_epochs: 1}";
        std::fs::write(here.path().join("s.yaml"), format!("base: tiny.yaml\n{set}\nruns: [{runs}]")).unwrap();
    };
    let sweep = || cqat(here.path(), &["sweep", "s.yaml", "--out", "out"]);
    write("{name: a}");
    sweep().ok();
    std::fs::rename(here.path().join("start"), here.path().join("elsewhere")).unwrap();
    sweep().ok();
    write("{name: a}, {name: b, set: {quant.weight_bits: 3}}");
    sweep().fails(2, "run b: train.init_from is start, which does not exist", "in which cqat is started");
}
