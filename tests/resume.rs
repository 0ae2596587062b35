//! Runs that stop and go on: bit for bit what they would have been.

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use common::undisturbed::{at, equals_the_undisturbed, place, stateful};
use common::{Ran, cqat, last, metrics, on_device, signal, workplace};
use cqat::checkpoint::{Checkpoint, Phase, Position};
use cqat::safetensors_io::{self, File, NamedTensor};
use cqat::tensors::is_training_state;

/// Waits until `holds`; fails after a minute.
#[track_caller]
fn wait(child: &mut Child, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended too early");
        assert!(start.elapsed() < Duration::from_secs(60), "the run does not get there");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_undisturbed_run_is_whole() {
    assert_eq!(at("full").epoch, 2);
    assert_eq!((at("full").phase, at("full").global_step, at("full").calibrated), (Phase::Quant, 24, true));
    let epochs = metrics(&place().join("full")).iter().filter(|l| l["kind"] == "epoch").count();
    assert_eq!(epochs, 8, "training and test in each of four epochs");
}

/// Codes of the weights are kept from epoch to epoch, and how many of them change is told.
#[test]
fn codes_that_change_are_counted() {
    let lines = metrics(&place().join("full"));
    let changed = |epoch: i64| {
        let of_epoch = |l: &&serde_json::Value| l["tensor"] == "weight" && l["epoch"] == epoch;
        lines.iter().filter(of_epoch).map(|l| l["changed"].as_f64()).collect::<Vec<_>>()
    };
    assert!(changed(1).len() == 10 && changed(1).iter().all(Option::is_none), "{:?}", changed(1));
    assert!(changed(2).iter().all(|c| c.is_some_and(|c| (0.0..0.5).contains(&c))), "{:?}", changed(2));
    assert!(changed(2).iter().flatten().any(|c| *c > 0.0));
    let tensors = last(&place().join("full")).tensors;
    let codes = &tensors["quant.layer1.0.conv1.weight.codes"];
    assert_eq!(codes.shape, tensors["layer1.0.conv1.weight"].shape);
    let scale = tensors["quant.layer1.0.conv1.weight.inv_scale"].data[0];
    let expected =
        tensors["layer1.0.conv1.weight"].data.iter().map(|w| (w * scale).round_ties_even().clamp(-16.0, 15.0));
    assert!(expected.eq(codes.data.iter().copied()));
}

#[test]
fn stop_after_two_epochs_then_resume() {
    let ran = cqat(place(), &["train", "tiny.yaml", "--out", "two", "--stop-after", "2"]).ok();
    assert!(ran.err.contains("stopped as asked; go on with: cqat train --resume two"), "{}", ran.err);
    assert_eq!((at("two").phase, at("two").epoch, at("two").global_step), (Phase::Float, 2, 12));
    let ran = cqat(place(), &["train", "--resume", "two"]).ok();
    assert!(ran.out.contains("run folder: two"), "{}", ran.out);
    equals_the_undisturbed("two");
    // Resuming a run that is finished changes nothing.
    let ran = cqat(place(), &["train", "--resume", "two"]).ok();
    assert!(ran.err.contains("the run was finished already"), "{}", ran.err);
    equals_the_undisturbed("two");
}

#[test]
fn stop_before_the_first_step_and_in_each_phase() {
    cqat(place(), &["train", "tiny.yaml", "--out", "often", "--stop-after", "0"]).ok();
    assert_eq!(at("often"), Position::START);
    for (epochs, phase, epoch) in [("1", Phase::Float, 1), ("1", Phase::Float, 1), ("3", Phase::Quant, 1)] {
        cqat(place(), &["train", "--resume", "often", "--stop-after", epochs]).ok();
        assert_eq!((at("often").phase, at("often").epoch), (phase, epoch));
    }
    cqat(place(), &["train", "--resume", "often"]).ok();
    equals_the_undisturbed("often");
}

#[test]
fn killed_in_the_middle_of_an_epoch() {
    let out = place().join("killed");
    // The kill must fall between the checkpoint of the first epoch and the training line of the second.
    let caught = (0..10).any(|_| {
        let _ = std::fs::remove_dir_all(&out);
        let mut child = on_device(place(), &["train", "tiny.yaml", "--out", "killed"]).spawn().unwrap();
        wait(&mut child, || out.join("metrics.jsonl").exists() && metrics_lines(&out) >= 3);
        std::thread::sleep(Duration::from_millis(40));
        child.kill().unwrap();
        child.wait().unwrap();
        metrics_lines(&out) == 3 && at("killed").epoch == 1
    });
    assert!(caught, "ten kills missed the second epoch");
    std::fs::write(out.join("last.99.tmp"), b"half a checkpoint").unwrap();
    // What a crash may leave behind: half a line after the last checkpoint.
    let mut text = std::fs::read(out.join("metrics.jsonl")).unwrap();
    text.extend(b"{\"kind\":\"epo");
    std::fs::write(out.join("metrics.jsonl"), text).unwrap();
    cqat(place(), &["train", "--resume", "killed"]).ok();
    equals_the_undisturbed("killed");
    assert!(!out.join("last.99.tmp").exists(), "half-written files are removed");
    let manifest = std::fs::read_to_string(out.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["resumed"][0]["command"][2], "--resume", "{manifest}");
}

fn metrics_lines(run: &Path) -> usize {
    std::fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().count()
}

/// Interrupts a run once `ready` exists, in the middle of an epoch of `phase`, and resumes it.
fn interrupted(run: &str, ready: &str, phase: Phase) {
    let out = place().join(run);
    let mut child = on_device(place(), &["train", "tiny.yaml", "--out", run]).spawn().unwrap();
    wait(&mut child, || out.join(ready).exists());
    signal(&child, "-INT");
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert!(ran.err.contains("finishing the step and saving; interrupt again to quit at once"), "{}", ran.err);
    ran.fails(130, "interrupted; the run was saved", &format!("go on with: cqat train --resume {run}"));
    assert_eq!(at(run).phase, phase);
    assert!(at(run).global_step > 0, "a step was finished");
    cqat(place(), &["train", "--resume", run]).ok();
    equals_the_undisturbed(run);
}

/// The pictures have moved: a run is told where they are, as often as it goes on.
#[test]
fn resumed_with_data_that_has_moved() {
    let here = stateful();
    let at = |arguments: &[&str]| cqat(here.path(), arguments);
    at(&["train", "tiny.yaml", "--out", "moved", "--stop-after", "1"]).ok();
    std::fs::rename(here.path().join("data"), here.path().join("elsewhere")).unwrap();
    for command in [&["train", "--resume", "moved"][..], &["eval", "moved"]] {
        at(command).fails(3, "does not exist", "point --data at the data set that the run was trained on");
    }
    at(&["train", "--resume", "moved", "--data", "elsewhere", "--stop-after", "2"]).ok();
    at(&["train", "--resume", "moved", "--data", "./elsewhere/../elsewhere"]).ok();
    assert!(last(&here.path().join("moved")).tensors == last(&place().join("full")).tensors);
    assert_eq!(metrics(&here.path().join("moved")), metrics(&place().join("full")));
}

/// An evaluation may take longer than the epoch: it can be interrupted, and the epoch is not lost with it.
#[test]
fn interrupted_in_the_evaluation_of_an_epoch() {
    let place = stateful();
    let file = |name: &str, count| std::fs::write(place.path().join("data").join(name), common::cifar100(count, 2));
    file("train.bin", 960).unwrap();
    file("test.bin", 959).unwrap();
    let sets = ["train.batch=24", "train.float_epochs=2", "train.quant_epochs=0", "quant.method=none"];
    let sets: Vec<&str> = sets.iter().flat_map(|s| ["--set", s]).collect();
    let train = |out| [&["train", "tiny.yaml", "--out", out], &sets[..]].concat();
    cqat(place.path(), &train("full")).ok();
    let out = place.path().join("stopped");
    let mut command = on_device(place.path(), &train("stopped"));
    let mut child = command.env("RUST_LOG", "cqat=debug").spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("scoring 959 pictures")));
    signal(&child, "-INT");
    let said: Vec<String> = said.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said:?}");
    assert!(said.iter().any(|line| line == "error: interrupted; the run was saved"), "{said:?}");
    assert_eq!((last(&out).meta.position.epoch, last(&out).meta.position.step), (0, 20), "only the evaluation is left");
    let so_far = last(&out).meta.epoch_seconds;
    cqat(place.path(), &["train", "--resume", "stopped"]).ok();
    assert_eq!(metrics(&out), metrics(&place.path().join("full")));
    let first = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap().lines().nth(1).unwrap().to_string();
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert!(
        so_far > 0.0 && first["seconds"].as_f64().unwrap() >= so_far,
        "{first}, after {so_far} s before the resume"
    );
    assert!(last(&out).tensors == last(&place.path().join("full")).tensors);
    // A float run is finished too, when it is.
    let ran = cqat(place.path(), &["train", "--resume", "stopped"]).ok();
    assert!(ran.err.contains("the run was finished already"), "{}", ran.err);
}

/// Post-training quantization ends with an evaluation too; the float network is there to begin it again.
#[test]
fn interrupted_in_post_training_quantization() {
    let here = workplace();
    let file = |name: &str, count| std::fs::write(here.path().join("data").join(name), common::cifar100(count, 2));
    file("train.bin", 960).unwrap();
    file("test.bin", 959).unwrap();
    let sets = ["--set", "train.float_epochs=1", "--set", "train.quant_epochs=0", "--set", "train.batch=48"];
    let train = |out| [&["train", "tiny.yaml", "--out", out], &sets[..]].concat();
    cqat(here.path(), &train("full")).ok();
    let mut child = on_device(here.path(), &train("stopped")).env("RUST_LOG", "cqat=debug").spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("calibrating")) && said.any(|line| line.contains("scoring")));
    signal(&child, "-INT");
    let said: Vec<String> = said.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said:?}");
    cqat(here.path(), &["train", "--resume", "stopped"]).ok();
    let (full, stopped) = (here.path().join("full"), here.path().join("stopped"));
    assert!(last(&full).tensors == last(&stopped).tensors && last(&stopped).meta.position.calibrated);
    assert_eq!(metrics(&full), metrics(&stopped));
}

/// `nohup` means that a run outlives its terminal.
#[test]
fn a_hangup_that_is_ignored_stays_so() {
    let mut command = std::process::Command::new("sh");
    let program = ["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_cqat")];
    command.current_dir(place()).args(program).args([
        "train",
        "tiny.yaml",
        "--out",
        "nohup",
        "--device",
        &common::device(),
    ]);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    wait(&mut child, || place().join("nohup/last.safetensors").exists());
    signal(&child, "-HUP");
    signal(&child, "-HUP");
    assert!(child.wait().unwrap().success());
    equals_the_undisturbed("nohup");
}

/// A run of long steps that has been told once: its process, its checkpoint before that, and what it says from then on.
fn told_once(out: &str, name: &str) -> (Child, Checkpoint, impl Iterator<Item = String>) {
    // Steps long enough for two interrupts to fall into one.
    let sets = ["--set", "network.width=64", "--set", "train.batch=24"];
    let mut child = on_device(place(), &[&["train", "tiny.yaml", "--out", out], &sets[..]].concat()).spawn().unwrap();
    wait(&mut child, || place().join(out).join("last.safetensors").exists());
    let before = last(&place().join(out));
    signal(&child, name);
    // Two signals that wait to be taken are one.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("interrupt again to quit at once")));
    (child, before, lines)
}

#[test]
fn a_second_interrupt_quits_at_once() {
    let (mut child, before, lines) = told_once("quit", "-INT");
    // Two seconds go by that the step has no part of.
    signal(&child, "-STOP");
    std::thread::sleep(Duration::from_millis(2100));
    signal(&child, "-INT");
    signal(&child, "-CONT");
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(!rest.iter().any(|line| line.contains("the run was saved")), "{rest:?}");
    assert!(last(&place().join("quit")).tensors == before.tensors, "the checkpoint is as it was");
}

/// A supervisor signals a sweep and its runs, and the sweep its runs: that is one wish.
#[test]
fn two_interrupts_at_once_are_one() {
    let (mut child, _, lines) = told_once("twice", "-TERM");
    signal(&child, "-INT");
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line == "error: interrupted; the run was saved"), "{rest:?}");
    assert!(last(&place().join("twice")).meta.position.global_step > 0);
}

#[test]
fn a_standard_error_that_nobody_reads_stops_nothing() {
    let mut child = on_device(place(), &["train", "tiny.yaml", "--out", "unread"]).spawn().unwrap();
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
    equals_the_undisturbed("unread");
    // An error keeps its exit code.
    let mut child = on_device(place(), &["train", "tiny.yaml", "--out", "unread"]).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn interrupted_in_a_float_epoch() {
    interrupted("stopped-float", "last.safetensors", Phase::Float);
}

#[test]
fn interrupted_in_a_quantized_epoch() {
    interrupted("stopped-quant", "float.safetensors", Phase::Quant);
}

#[test]
fn a_run_folder_as_the_start_gives_its_float_network() {
    place();
    let sets = ["--set", "train.init_from=full", "--set", "train.float_epochs=0", "--set", "train.quant_epochs=1"];
    cqat(place(), &[&["train", "tiny.yaml", "--out", "from-run"], &sets[..]].concat()).ok();
    let float = |run: &str| {
        let mut tensors = Checkpoint::read(&place().join(run).join("float.safetensors")).unwrap().tensors;
        tensors.retain(|name, _| !is_training_state(name));
        tensors
    };
    assert!(float("full") == float("from-run"));
    assert_eq!((at("from-run").phase, at("from-run").global_step), (Phase::Quant, 6));
}

/// A run is not scored on pictures that the run it begins with has trained on.
#[test]
fn a_start_that_may_have_seen_what_is_held_back_is_refused() {
    let here = place();
    let train = |out: &str, sets: &[&str], more: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let begin = ["train", "tiny.yaml", "--out", out, "--stop-after", "0", "--set", "train.float_epochs=0"];
        cqat(here, &[&begin, &sets[..], more].concat())
    };
    let refused = |sets: &[&str], more: &[&str], message: &str| {
        let hint = "full/float.safetensors is taken without this check";
        train("refused", sets, more).fails(
            2,
            &format!("the run full may have trained on pictures that this one is scored on: {message}"),
            hint,
        );
        assert!(!here.join("refused").exists());
    };
    let from = "train.init_from=full";
    let message = "it held back 0 by seed 0, expected data.validation 8 by seed";
    refused(&[from, "data.validation=8"], &[], &format!("{message} 0"));
    let teacher = "train.distill={weight: 0.5, teacher: full}";
    refused(
        &["train.init_from=full/float.safetensors", teacher, "data.validation=8", "train.seed=1"],
        &[],
        &format!("{message} 1"),
    );
    train("held", &["train.init_from=full/float.safetensors", "data.validation=8"], &[]).ok();
    train("held-too", &["train.init_from=held", "data.validation=4"], &[]).ok();
    let ran = train("not-held", &["train.init_from=held", "data.validation=8", "train.seed=1"], &[]);
    ran.fails(2, "it held back 8 by seed 0, expected data.validation 8 by seed 1", "");
    // Without any, the seed may be another, but not where it may be the seed that chose the test pictures.
    train("other-seed", &[from, "train.seed=1"], &[]).ok();
    std::fs::create_dir(here.join("other")).unwrap();
    std::fs::write(here.join("other/train.bin"), common::cifar100(48, 3)).unwrap();
    std::fs::write(here.join("other/test.bin"), common::cifar100(16, 4)).unwrap();
    let others = ["--data", "other"];
    refused(&[from, "train.seed=1"], &others, "its data are other than cifar100, or split by seed 0, not 1");
    let ran = train("other-data", &[from], &others).ok();
    assert!(ran.err.contains("the run full was trained on other data than cifar100"), "{}", ran.err);
}

#[test]
fn a_position_beyond_the_run_is_refused() {
    place();
    let copy = place().join("beyond");
    std::fs::create_dir(&copy).unwrap();
    for name in ["config.yaml", "last.safetensors"] {
        std::fs::copy(place().join("full").join(name), copy.join(name)).unwrap();
    }
    for (epoch, step) in [(3, 0), (1, 7)] {
        let mut checkpoint = last(&place().join("full"));
        (checkpoint.meta.position.epoch, checkpoint.meta.position.step) = (epoch, step);
        checkpoint.write(&copy.join("last.safetensors")).unwrap();
        let before = std::fs::read(copy.join("last.safetensors")).unwrap();
        let message =
            format!("stands at epoch {epoch}, step {step}, 24 steps in all, but its phase has 2 epochs of 6 steps");
        cqat(place(), &["train", "--resume", "beyond"]).fails(5, &message, "train.init_from");
        assert!(std::fs::read(copy.join("last.safetensors")).unwrap() == before);
    }
    // A run whose manifest was lost goes on, and has one again.
    std::fs::copy(place().join("full/last.safetensors"), copy.join("last.safetensors")).unwrap();
    cqat(place(), &["train", "--resume", "beyond"]).ok();
    let manifest = std::fs::read_to_string(copy.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!((&manifest["format_version"], &manifest["resumed"][0]["command"][1]), (&1.into(), &"train".into()));
}

#[test]
fn a_torchvision_checkpoint_as_the_start() {
    let tensors = Checkpoint::read(&place().join("full/float.safetensors")).unwrap().tensors;
    let mut file = File { tensors, ..File::default() };
    file.tensors.retain(|name, _| !is_training_state(name));
    // Weights of PyTorch come with counters, and without metadata.
    file.tensors.insert("bn1.num_batches_tracked".into(), NamedTensor { shape: vec![], data: vec![12.0] });
    let path = place().join("torchvision.safetensors");
    safetensors_io::write(&path, &file).unwrap();
    let sets = ["--set", "train.init_from=torchvision.safetensors", "--set", "train.float_epochs=0"];
    cqat(place(), &[&["train", "tiny.yaml", "--out", "from-file"], &sets[..]].concat()).ok();
    let full = last(&place().join("full")).tensors;
    let float = Checkpoint::read(&place().join("from-file/float.safetensors")).unwrap().tensors;
    assert_eq!(float["conv1.weight"], file.tensors["conv1.weight"]);
    assert_eq!(float["bn1.running_var"], file.tensors["bn1.running_var"]);
    assert!(last(&place().join("from-file")).tensors["conv1.weight"] != full["conv1.weight"], "other augmentation");
    // It is a start, not a run.
    cqat(place(), &["eval", "torchvision.safetensors"]).fails(
        5,
        "is not a checkpoint of this program",
        "train.init_from",
    );
}
