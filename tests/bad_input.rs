//! What users get wrong: every message says what happened and what to do, and nothing is lost or left half-written.

mod common;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use common::{Ran, cifar100, command, contents, cqat, on_device, workplace};
use cqat::data::PICTURE_BYTES;
use tempfile::TempDir;

/// A place with a run of ResNet-8 in `run`, stopped before its first step.
static PLACE: LazyLock<TempDir> = LazyLock::new(|| {
    let place = workplace();
    cqat(place.path(), &["train", "tiny.yaml", "--out", "run", "--stop-after", "0"]).ok();
    place
});

fn place() -> &'static Path {
    PLACE.path()
}

/// A copy of `run` to damage.
fn copy_of_the_run(name: &str) -> PathBuf {
    let copy = place().join(name);
    std::fs::create_dir_all(&copy).unwrap();
    for (path, bytes) in contents(&place().join("run")) {
        std::fs::write(copy.join(path.file_name().unwrap()), bytes).unwrap();
    }
    copy
}

/// `cqat train tiny.yaml` with more arguments fails like this, and makes no run folder.
#[track_caller]
fn training_fails(arguments: &[&str], code: i32, message: &str, hint: &str) {
    let fresh = tempfile::tempdir_in(place()).unwrap();
    let out = fresh.path().join("run");
    let fixed = ["train", "tiny.yaml", "--out", out.to_str().unwrap()];
    cqat(place(), &[&fixed, arguments].concat()).fails(code, message, hint);
    assert!(!out.exists(), "a run that cannot start leaves no folder");
}

/// A data folder with this training file.
fn data(name: &str, train: &[u8]) -> String {
    let folder = place().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("train.bin"), train).unwrap();
    std::fs::write(folder.join("test.bin"), cifar100(16, 2)).unwrap();
    name.to_string()
}

#[test]
fn truncated_data_files() {
    let whole = cifar100(48, 1);
    let folder = data("truncated", &whole[..whole.len() - 100]);
    training_fails(
        &["--data", &folder],
        3,
        "train.bin is cut short: its 147452 bytes are 47 CIFAR-100 records",
        "unpack it again",
    );
    let folder = data("empty", &[]);
    training_fails(&["--data", &folder], 3, "the training file of CIFAR-100 is missing", "download the data set again");
}

#[test]
fn wrong_labels() {
    let mut wrong = cifar100(48, 1);
    wrong[5 * (2 + PICTURE_BYTES) + 1] = 100;
    let folder = data("labels", &wrong);
    let message =
        "train.bin: record 5 (counted from 0) has fine label 100 at byte 15371 of the file, expected less than 100";
    training_fails(&["--data", &folder], 3, message, "unpack it again");
}

#[test]
fn no_data() {
    training_fails(&["--data", "nowhere"], 3, "the data folder nowhere does not exist", "embedded");
    let mut with_variable = on_device(place(), &["train", "tiny.yaml", "--out", "unmade"]);
    with_variable.env("CQAT_DATA", "elsewhere");
    Ran::of(with_variable).fails(3, "the data folder elsewhere does not exist", "check the path");
    // --data is stronger than CQAT_DATA, which does not touch the embedded set.
    let mut both = on_device(place(), &["train", "tiny.yaml", "--data", "data", "--out", "both", "--stop-after", "0"]);
    both.env("CQAT_DATA", "elsewhere");
    Ran::of(both).ok();
    let sets = ["--set", "data.dir=embedded", "--out", "builtin", "--stop-after", "0"];
    let mut builtin = on_device(place(), &[&["train", "tiny.yaml"], &sets[..]].concat());
    builtin.env("CQAT_DATA", "elsewhere");
    assert!(Ran::of(builtin).ok().err.contains("fashion-mnist-mini on "));
}

#[test]
fn a_typo_in_the_configuration() {
    let yaml = "network:\n  depth: 8\n  widht: 8\n";
    std::fs::write(place().join("typo.yaml"), yaml).unwrap();
    let message = "typo.yaml:3:3: unknown key `widht` in `network`, expected depth, width or classes";
    cqat(place(), &["train", "typo.yaml"]).fails(2, message, "did you mean `width`?");
    std::fs::write(place().join("type.yaml"), "train:\n  batch: many\n").unwrap();
    cqat(place(), &["plan", "type.yaml"]).fails(2, "type.yaml:2:10: `train.batch` is the text \"many\"", "");
    training_fails(
        &["--set", "train.bacth=4"],
        2,
        "--set train.bacth=4: unknown key `bacth` in `train`",
        "did you mean `batch`?",
    );
    training_fails(&["--set", "network.width=12"], 2, "`network.width` is 12, expected a multiple of 8", "8 would do");
    training_fails(
        &["--set", "network.classes=5"],
        2,
        "network.classes is 5, but cifar100 has 100",
        "a configuration that leaves network.classes out takes the data set's",
    );
    cqat(place(), &["train", "dmo"]).fails(
        2,
        "`dmo` is neither a file nor a preset",
        "did you mean the preset `demo`?",
    );
    cqat(place(), &["train"]).fails(2, "train needs a CONFIG, or --resume RUN", "cqat presets");
}

#[test]
fn a_checkpoint_of_another_network() {
    place();
    let deeper = ["--set", "train.init_from=run", "--set", "network.depth=20"];
    training_fails(&deeper, 5, "the checkpoint has no tensor layer1.1.conv1.weight", "network.depth must match");
    // A deeper network has every tensor of a shallower one, in the same shapes.
    cqat(place(), &["train", "tiny.yaml", "--out", "deep", "--set", "network.depth=20", "--stop-after", "0"]).ok();
    let message = "has a tensor layer1.1.bn1.bias, which the network does not have";
    training_fails(&["--set", "train.init_from=deep"], 5, message, "network.depth must match");
    let wider = ["--set", "train.init_from=run/last.safetensors", "--set", "network.width=16"];
    let message = "tensor conv1.weight has shape [8, 3, 3, 3], expected [16, 3, 3, 3]";
    training_fails(&wider, 5, message, "network.depth, network.width and network.classes must match the checkpoint");
    let message = "missing.safetensors: cannot be read";
    training_fails(&["--set", "train.init_from=missing.safetensors"], 5, message, "check the path");
}

#[test]
fn a_damaged_checkpoint() {
    let copy = copy_of_the_run("damaged");
    let file = copy.join("last.safetensors");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let before = contents(&copy);
    for arguments in [&["train", "--resume", "damaged"], &["eval", "damaged"][..]] {
        let ran = cqat(place(), arguments);
        ran.fails(5, "last.safetensors: is not a whole safetensors file", "use another checkpoint of the run");
    }
    std::fs::write(&file, b"{}").unwrap();
    cqat(place(), &["eval", "damaged"]).fails(5, "is not a whole safetensors file", "use another checkpoint");
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(contents(&copy) == before, "nothing in the folder was touched");
    std::fs::remove_file(&file).unwrap();
    cqat(place(), &["train", "--resume", "damaged"]).fails(5, "damaged has no checkpoint", "start again");
    std::fs::write(copy.join("float.safetensors"), b"any").unwrap();
    let hint = "train.init_from=damaged/float.safetensors";
    cqat(place(), &["train", "--resume", "damaged"]).fails(5, "damaged has no checkpoint", hint);
    cqat(place(), &["train", "--resume", "data"]).fails(5, "data is not a run folder", "run folder");
    cqat(place(), &["eval", "nowhere"]).fails(5, "nowhere: cannot be read", "check the path");
}

#[test]
fn a_resume_with_another_configuration() {
    let copy = copy_of_the_run("edited");
    let yaml = std::fs::read_to_string(copy.join("config.yaml")).unwrap();
    std::fs::write(copy.join("config.yaml"), yaml.replace("quant_epochs: 2", "quant_epochs: 9")).unwrap();
    std::fs::write(copy.join("notes.tmp"), b"mine").unwrap();
    let before = contents(&copy);
    let message = "config.yaml and last.safetensors of edited do not belong together";
    cqat(place(), &["train", "--resume", "edited"]).fails(5, message, "undo the change of either, or start a new run");
    assert!(contents(&copy) == before);
    std::fs::write(copy.join("config.yaml"), yaml).unwrap();
    let ran = cqat(place(), &["train", "--resume", "edited", "--stop-after", "0"]).ok();
    assert!(copy.join("notes.tmp").exists() && !ran.err.contains("finished"), "{}", ran.err);
}

#[test]
fn a_resume_with_other_data() {
    let other = data("other", &cifar100(40, 9));
    let before = contents(&place().join("run"));
    let ran = cqat(place(), &["train", "--resume", "run", "--data", &other]);
    ran.fails(
        3,
        "the run was trained on other data than cifar100",
        "point --data at the data set the run started with",
    );
    assert!(contents(&place().join("run")) == before);
}

#[test]
fn an_evaluation_with_other_data() {
    let other = data("others", &cifar100(40, 9));
    // A run knows its data.
    let mut with_variable = on_device(place(), &["eval", "run", "--json"]);
    with_variable.env("CQAT_DATA", &other);
    assert!(Ran::of(with_variable).ok().out.contains("\"same_data\":true"));
    let message = "holds other pictures (cifar100) than the run was trained on";
    let moved = workplace();
    cqat(moved.path(), &["train", "tiny.yaml", "--out", "run", "--stop-after", "0"]).ok();
    std::fs::remove_dir_all(moved.path().join("data")).unwrap();
    let mut without_asking = on_device(moved.path(), &["eval", "run"]);
    without_asking.env("CQAT_DATA", place().join(&other));
    Ran::of(without_asking).fails(3, message, "point --data at the run's data set");
    let ran = cqat(place(), &["eval", "run", "--data", &other, "--json"]).ok();
    assert!(ran.err.contains(message) && ran.out.contains("\"same_data\":false"), "{}{}", ran.out, ran.err);
}

/// `CQAT_DATA` is for new runs; a run keeps its own data, in whatever form.
#[test]
fn a_run_on_an_archive() {
    let place = workplace();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all("data", place.path().join("data")).unwrap();
    std::fs::write(place.path().join("set.tar"), archive.into_inner().unwrap()).unwrap();
    cqat(place.path(), &["train", "tiny.yaml", "--out", "run", "--data", "set.tar", "--stop-after", "1"]).ok();
    for arguments in [&["train", "--resume", "run"][..], &["eval", "run"]] {
        let mut with_variable = on_device(place.path(), arguments);
        with_variable.env("CQAT_DATA", "elsewhere");
        Ran::of(with_variable).ok();
    }
}

#[test]
fn a_run_folder_that_cannot_be_written_any_more() {
    let out = place().join("blocked");
    cqat(place(), &["train", "tiny.yaml", "--out", "blocked", "--stop-after", "1"]).ok();
    // A folder in the place of the file stops root as well.
    let metrics = std::fs::read(out.join("metrics.jsonl")).unwrap();
    std::fs::remove_file(out.join("metrics.jsonl")).unwrap();
    std::fs::create_dir(out.join("metrics.jsonl")).unwrap();
    let before = std::fs::read(out.join("last.safetensors")).unwrap();
    let ran = cqat(place(), &["train", "--resume", "blocked"]);
    ran.fails(5, "metrics.jsonl cannot be written", "then resume the run");
    assert!(std::fs::read(out.join("last.safetensors")).unwrap() == before);
    std::fs::remove_dir(out.join("metrics.jsonl")).unwrap();
    std::fs::write(out.join("metrics.jsonl"), metrics).unwrap();
    cqat(place(), &["train", "--resume", "blocked"]).ok();
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_under_standard_output() {
    let mut full = command(place(), &["presets", "cqat"]);
    full.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    Ran::of(full).fails(5, "failed printing to stdout", "check that the disk has room");
}

#[test]
fn an_unwritable_run_folder() {
    // A file as the parent stops root as well.
    std::fs::write(place().join("file"), b"kept").unwrap();
    let ran = cqat(place(), &["train", "tiny.yaml", "--out", "file/run"]);
    ran.fails(5, "the run folder file/run cannot be made", "choose a folder you may write with --out DIR");
    assert_eq!(std::fs::read(place().join("file")).unwrap(), b"kept");
}

#[test]
fn a_run_that_another_process_trains() {
    place();
    let mut child = on_device(place(), &["train", "tiny.yaml", "--out", "busy", "--quiet"]).spawn().unwrap();
    while !place().join("busy/last.safetensors").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended too early");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let message = "another process is training busy";
    cqat(place(), &["train", "--resume", "busy"]).fails(5, message, "wait until it ends, or interrupt it");
    assert!(Ran::from(child.wait_with_output().unwrap()).code == 0, "the first process was not disturbed");
    cqat(place(), &["eval", "busy"]).ok();
}

/// A start that cannot write leaves nothing that stands in the way of the next one.
#[cfg(unix)]
/// Runs of a sweep may all begin in the same second; each gets a folder, and one that cannot start leaves none.
#[test]
fn runs_that_are_started_at_once() {
    let place = common::workplace();
    let arguments =
        ["train", "tiny.yaml", "--data", "data", "--set", "train.float_epochs=1", "--set", "train.quant_epochs=0"];
    let start = || common::on_device(place.path(), &arguments).spawn().unwrap();
    let children: Vec<_> = (0..3).map(|_| start()).collect();
    let folders: std::collections::BTreeSet<String> =
        children.into_iter().map(|child| Ran::from(child.wait_with_output().unwrap()).ok().out).collect();
    assert_eq!(folders.len(), 3, "{folders:?}");
    assert_eq!(std::fs::read_dir(place.path().join("runs")).unwrap().count(), 3);
    let empty = common::workplace();
    cqat(empty.path(), &["train", "tiny.yaml", "--data", "nowhere"]).fails(3, "does not exist", "check the path");
    assert!(!empty.path().join("runs").exists());
}

#[test]
fn a_start_that_cannot_write() {
    place();
    let mut command = std::process::Command::new("sh");
    command.current_dir(place()).args([
        "-c",
        "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_cqat"),
    ]);
    command.args(["train", "tiny.yaml", "--out", "failed", "--device", &common::device()]);
    Ran::of(command).fails(5, "cannot be written", "check that the disk has room");
    cqat(place(), &["train", "tiny.yaml", "--out", "failed", "--stop-after", "1"]).ok();
    assert_eq!(common::metrics(&place().join("failed")).len(), 3);
}

#[test]
fn a_folder_with_files_of_the_same_names() {
    place();
    let out = place().join("results");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("metrics.jsonl"), "{\"loss\": 1}\n").unwrap();
    let ran = cqat(place(), &["train", "tiny.yaml", "--out", "results"]);
    ran.fails(5, "results holds metrics.jsonl, which a new run would overwrite", "choose another folder with --out");
    assert_eq!(std::fs::read_to_string(out.join("metrics.jsonl")).unwrap(), "{\"loss\": 1}\n");
}

#[test]
fn a_folder_that_holds_a_run() {
    place();
    let before = contents(&place().join("run"));
    let ran = cqat(place(), &["train", "tiny.yaml", "--out", "run"]);
    ran.fails(
        5,
        "run already holds a run",
        "go on with it: cqat train --resume run; or choose another folder with --out",
    );
    assert!(contents(&place().join("run")) == before, "the run that was there is as it was");
}

#[test]
fn no_gpu() {
    for arguments in [&["train", "demo", "--out", "unmade-gpu"][..], &["devices"], &["plan", "demo"], &["selftest"]] {
        let mut without = command(place(), arguments);
        without.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent");
        let ran = Ran::of(without);
        ran.fails(4, "no Vulkan, Metal or DX12 adapter was found", "apt-get install mesa-vulkan-drivers");
    }
    assert!(!place().join("unmade-gpu").exists());
    let ran = Ran::of(command(place(), &["plan", "demo", "--device", "Voodoo"]));
    ran.fails(4, "no adapter matches --device Voodoo", "the adapters are: 0: ");
}

#[test]
fn a_batch_that_does_not_fit() {
    let batch = ["--set", "device.memory_mib=4", "--set", "train.batch=32"];
    let message = "a batch of 32 does not fit this device: the step needs";
    training_fails(&batch, 4, message, "the largest batch that fits is");
    let ran = cqat(place(), &[&["plan", "tiny.yaml"], &batch[..]].concat());
    let hint = ran.fails(4, message, "or raise device.memory_mib").err;
    // The batch that the hint names does fit.
    let named = hint.split("--set ").nth(1).and_then(|s| s.split(' ').next()).unwrap();
    cqat(place(), &["plan", "tiny.yaml", "--set", "device.memory_mib=4", "--set", named]).ok();
    let message = "train.batch is 49, expected at most the 48 training pictures";
    training_fails(&["--set", "train.batch=49"], 2, message, "--set train.batch=48 or less");
    let message = "train.batch is 9 and train.accumulate 6, expected at most the 48 training pictures";
    let sets = ["--set", "train.batch=9", "--set", "train.accumulate=6"];
    training_fails(&sets, 2, message, "--set train.batch=8 or less");
}

/// Results of an evaluation do not depend on the batch, so it takes what fits.
#[test]
fn an_evaluation_where_the_training_batch_does_not_fit() {
    let out = copy_of_the_run("small");
    let mut checkpoint = cqat::checkpoint::Checkpoint::read(&out.join("last.safetensors")).unwrap();
    let mut config = checkpoint.config().unwrap();
    config.device.memory_mib = Some(4);
    config.train.batch = 32;
    checkpoint.meta.config = config.to_yaml().unwrap();
    std::fs::write(out.join("config.yaml"), &checkpoint.meta.config).unwrap();
    checkpoint.write(&out.join("last.safetensors")).unwrap();
    let scored = |run: &str| cqat(place(), &["eval", run, "--json"]).ok().out;
    assert_eq!(scored("small"), scored("run"));
    let ran = cqat(place(), &["train", "--resume", "small"]);
    ran.fails(4, "a batch of 32 does not fit this device", "a run keeps its batch");
}

#[test]
fn evaluations_that_cannot_be() {
    place();
    let ran = cqat(place(), &["eval", "run", "--kind", "fake_quant"]);
    ran.fails(5, "fake_quant needs a quantized checkpoint, this one is still float", "use --kind float");
    let ran = cqat(place(), &["eval", "run", "--split", "val"]);
    ran.fails(2, "this run held no validation pictures back", "data.validation=5000");
}
