//! Event files, read back by the real TensorBoard. `scripts/setup-python.sh` makes a Python that has it; `CQAT_PYTHON` says where it
//! is. Without it the tests fail where `CI` or `CQAT_REQUIRE_PYTHON` is set, and say elsewhere that they did nothing.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Ran, cqat, embedded, gpu, lines, parsed, tiny, train, workplace};
use cqat::checkpoint::Checkpoint;
use cqat::tensorboard::{Counts, EventFile};
use serde_json::Value;

/// The Python with TensorBoard; none where it may be missing.
fn python() -> Option<PathBuf> {
    let found = std::env::var_os("CQAT_PYTHON").filter(|path| !path.is_empty()).map(PathBuf::from);
    let is_required = ["CI", "CQAT_REQUIRE_PYTHON"].iter().any(|name| std::env::var_os(name).is_some());
    assert!(
        found.is_some() || !is_required,
        "CQAT_PYTHON names no Python with TensorBoard\nhint: export CQAT_PYTHON=$(scripts/setup-python.sh)"
    );
    if found.is_none() {
        eprintln!("not tested: CQAT_PYTHON names no Python with TensorBoard (scripts/setup-python.sh makes one)");
    }
    found
}

/// The event files in a folder, in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// What TensorBoard finds in a folder.
fn read(python: &Path, folder: &Path) -> Value {
    let mut command = Command::new(python);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tensorboard/read.py");
    command.arg(script).arg(folder).args(files(folder));
    parsed(&Ran::of(command).ok().out)
}

/// Steps and values of a tag.
fn scalar(read: &Value, tag: &str) -> Vec<(u64, f64)> {
    let all = read["scalars"][tag].as_array().unwrap_or_else(|| panic!("no {tag} in {read}"));
    all.iter().map(|e| (e[0].as_u64().unwrap(), e[1].as_f64().unwrap())).collect()
}

#[test]
fn tensorboard_reads_what_was_written() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut file = EventFile::create(folder.path(), None).unwrap();
    for step in [1, 300, 70_000] {
        file.scalars(step, &[("loss/train".into(), step as f64 / 8.0), ("lr".into(), -0.5)]).unwrap();
    }
    file.histogram(7, "codes/fc", &Counts::of_codes(&[-2, 0, 0, 1])).unwrap();
    let found = read(&python, folder.path());
    assert_eq!(scalar(&found, "loss/train"), [(1, 0.125), (300, 37.5), (70_000, 8750.0)]);
    assert_eq!(scalar(&found, "lr").len(), 3);
    let histogram = &found["histograms"]["codes/fc"];
    assert_eq!((&histogram["step"], &histogram["num"], &histogram["sum"]), (&7.into(), &4.0.into(), &(-1.0).into()));
}

/// A run says in its events what it says in `metrics.jsonl`; one that goes on from an earlier checkpoint takes back what came after
/// that, and cut records of a killed process harm nothing.
#[test]
fn a_run_and_its_resumption_are_one_in_tensorboard() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let config = tiny(&["train.float_epochs=1", "train.quant_epochs=2", "train.log_every=2"]);
    let data = embedded(32, 16);
    let gpu = gpu(false);
    train(&config, &data, &gpu, &out, Some(2)).unwrap();
    let early = Checkpoint::read(&out.join("last.safetensors")).unwrap();
    assert_eq!(early.meta.position.global_step, 8);
    common::resume(&out, &config, &data).unwrap();
    // As after a crash: the run goes on from its second epoch once more, behind half a record.
    let events = out.join("tensorboard");
    let torn = files(&events).pop().unwrap();
    let bytes = std::fs::read(&torn).unwrap();
    std::fs::write(&torn, &bytes[..bytes.len() - 5]).unwrap();
    common::go_on(&out, early, &config, &data).unwrap();
    assert_eq!(files(&events).len(), 3, "no process writes into another's file");

    let found = read(&python, &events);
    let steps = |tag: &str| scalar(&found, tag).into_iter().map(|(step, _)| step).collect::<Vec<_>>();
    assert_eq!(
        (steps("loss/train"), steps("top1/test"), steps("lr")),
        (vec![4, 8, 12], vec![4, 8, 12], vec![4, 8, 12])
    );
    assert_eq!(steps("activation_saturated/layer1.0.relu1"), [8, 12]);
    assert_eq!(steps("weight_scale/layer2.0.conv1"), [8, 12]);
    assert_eq!(steps("loss/train so far"), [2, 4, 6, 8, 10, 12]);
    let logged: Vec<f64> = ["float", "quant"]
        .iter()
        .flat_map(|phase| lines(&out, phase, "test"))
        .map(|l| l["loss"].as_f64().unwrap())
        .collect();
    let told: Vec<f64> = scalar(&found, "loss/test").into_iter().map(|(_, v)| v).collect();
    assert!(logged.len() == 3 && logged.iter().zip(&told).all(|(a, b)| (a - b).abs() < 1e-5), "{logged:?} {told:?}");
    assert_eq!(found["histograms"]["weight_codes/layer1.0.conv1"]["num"], 9.0 * 8.0 * 8.0);
}

/// The events cannot be written: the run says so and stops, as for every other file of its folder.
#[test]
fn a_place_that_is_taken_is_an_error() {
    let place = workplace();
    std::fs::create_dir(place.path().join("run")).unwrap();
    std::fs::write(place.path().join("run/tensorboard"), "a file").unwrap();
    let ran = cqat(place.path(), &["train", "tiny.yaml", "--out", "run", "--stop-after", "0"]);
    ran.fails(5, "tensorboard cannot be written", "check that the disk has room");
    assert!(!place.path().join("run/config.yaml").exists(), "no run has begun");
}
