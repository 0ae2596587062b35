//! What is wrong with a sweep is said before anything is trained, and nothing is overwritten.

use std::path::Path;

use super::{SWEEP, place};
use crate::common::{Ran, command, contents, cqat, workplace};

/// The sweep fails like this, and makes no folder.
#[track_caller]
fn refused(sweep: &str, message: &str, hint: &str) {
    std::fs::write(place().join("bad.yaml"), sweep).unwrap();
    Ran::of(command(place(), &["sweep", "bad.yaml", "--out", "bad"])).fails(2, message, hint);
    assert!(!place().join("bad").exists());
}

#[test]
fn sweeps_that_cannot_run() {
    let message = "bad.yaml:2:8: quant.weight_bit=3: unknown key `weight_bit` in `quant`, expected";
    refused("base: tiny.yaml\ngrid: {quant.weight_bit: [3, 4]}", message, "did you mean `weight_bits`?");
    let message = "bad.yaml:2:8: train.batch=many: `train.batch` is the text \"many\", expected a whole number";
    refused("base: tiny.yaml\ngrid: {train.batch: [8, many]}", message, "");
    let message = "bad.yaml: the run `w9` cannot run: `quant.weight_bits` is 9, expected 2 to 8 bits";
    refused("base: tiny.yaml\ngrid: {quant.weight_bits: [8, 9]}", message, "quant.method=none");
    let message = "the run `layer9.conv.weight_bits3` cannot run: `quant.layers.layer9.conv` names no layer";
    refused("base: tiny.yaml\ngrid: {quant.layers.layer9.conv.weight_bits: [3, 4]}", message, "the layers are");
    refused("base: tiny.yaml\ngrid: {}", "bad.yaml: the grid is empty", "such as grid");
    let runs = |list: &str| format!("base: tiny.yaml\nruns: [{list}]");
    let twins = runs("{name: a, set: {train.seed: 1}}, {name: A, set: {train.seed: 2}}");
    refused(&twins, "bad.yaml: two runs are called `a`", "a name of its own");
    let message = "bad.yaml: the runs `a` and `b` have the same configuration";
    refused(&runs("{name: a}, {name: b}"), message, "vary train.seed");
    let message = "bad.yaml:2:24: all runs set `train.seed` to the same value";
    refused(
        &runs("{name: a, set: {train.seed: 1}}, {name: b, set: {train.seed: 1, train.batch: 4}}"),
        message,
        "`set`",
    );
    refused(&runs("{name: ../a}"), "bad.yaml: the run is called `../a`, expected letters", "the name of a folder");
    let both = "base: tiny.yaml\nset: {train.seed: 3}\ngrid: {train.seed: [1, 2]}";
    refused(both, "`train.seed` stands in `set` and in `grid`", "remove it from `set`");
    let missing = "base: tiny.yaml\nset: {train.init_from: nowhere, train.float_epochs: 0}\ngrid: {train.seed: [1, 2]}";
    refused(missing, "run seed1: train.init_from is nowhere, which does not exist", "in which cqat is started");
    let message = "`nowhere.yaml` is neither a file nor a preset";
    refused("base: nowhere.yaml\ngrid: {train.seed: [1, 2]}", message, "presets: ");
    let base = "base: tiny.yaml\nset: {trian.seed: 3}\ngrid: {train.seed: [1, 2]}";
    refused(base, "bad.yaml:2:7: unknown key `trian` at the top level", "did you mean `train`?");
    refused("base: [tiny.yaml", "bad.yaml:", "fix the YAML");
    let many = "base: tiny.yaml\ngrid:\n".to_string()
        + &["train.seed", "train.log_every", "quant.calibration_batches", "train.quant_epochs", "train.float_epochs"]
            .map(|key| format!("  {key}: [1, 2, 3, 4, 5, 6, 7]\n"))
            .concat();
    refused(&many, "bad.yaml: the sweep has more than 10000 runs", "vary fewer keys");
}

#[test]
fn options_that_cannot_be() {
    let sweep = |more: &[&str]| cqat(place(), &[&["sweep", "s.yaml", "--out", "bad"], more].concat());
    sweep(&["--jobs", "0"]).fails(2, "--jobs is 0, expected at least 1", "1 is the default");
    sweep(&["--shard", "2/2"]).fails(2, "invalid value '2/2' for '--shard <I/N>': shard 2 of 2, expected 0 to 1", "");
    sweep(&["--set", "train.seed=1"]).fails(
        2,
        "--set train.seed=1: the sweep varies `train.seed`",
        "the same for all runs",
    );
    let nowhere = Ran::of(command(place(), &["sweep", "s.yaml", "--out", "bad", "--device", "cpu,nonesuch"]));
    nowhere.fails(4, "no adapter matches", "the adapters are");
    Ran::of(command(place(), &["sweep", "nowhere.yaml"])).fails(
        2,
        "the sweep `nowhere.yaml` does not exist",
        "docs/sweeps.md",
    );
    let too_little = ["--dry-run", "--set", "device.memory_mib=1"];
    let ran = sweep(&too_little).fails(4, "the run `float-", "a smaller train.batch fits");
    assert!(ran.err.contains("does not fit this device: ") && ran.out.contains(" too much "), "{ran:?}");
    // The data is looked at before every run fails for want of it.
    sweep(&["--data", "elsewhere"]).fails(3, "the data folder elsewhere does not exist", "embedded");
    assert!(!place().join("bad").exists());
}

#[test]
fn changed_runs_are_trained_anew_only_by_force() {
    let here = workplace();
    let write = |sweep: &str| std::fs::write(here.path().join("s.yaml"), sweep).unwrap();
    let sweep = |more: &[&str]| cqat(here.path(), &[&["sweep", "s.yaml", "--out", "out"], more].concat());
    let runs = |lr: &str, more: &str| {
        format!(
            "base: tiny.yaml\nset: {{train.float_epochs: 0, train.quant_epochs: 1}}\n\
             runs: [{{name: a, set: {{train.quant.lr: 0.01}}}}, {{name: b, set: {{train.quant.lr: {lr}}}}}{more}]"
        )
    };
    write(&runs("0.02", ""));
    sweep(&[]).ok();
    let out = here.path().join("out");
    let before = contents(&out);
    write(&runs("0.03", ", {name: c, set: {train.quant.lr: 0.04}}"));
    sweep(&[]).fails(2, "out has runs of other configurations than s.yaml says: b", "--force");
    let ran = sweep(&["--dry-run"]).ok();
    assert!(ran.err.contains("out has other configurations of b") && ran.out.contains("\nc "), "{ran:?}");
    assert!(contents(&out) == before);
    // None is removed while one of them is trained, or cannot be read.
    write(&runs("0.03", ", {name: c, set: {train.quant.lr: 0.04}}").replace("lr: 0.01", "lr: 0.05"));
    let trained = std::fs::OpenOptions::new().read(true).write(true).open(out.join("state/b.lock")).unwrap();
    trained.lock().unwrap();
    sweep(&["--force"]).fails(5, "another process is training out/b", "wait until it ends");
    drop(trained);
    assert!(contents(&out) == before);
    let state = std::fs::read(out.join("state/b.yaml")).unwrap();
    std::fs::write(out.join("state/b.yaml"), "network: {breadth: 8}").unwrap();
    sweep(&["--force"]).fails(5, "out/state/b.yaml cannot be read as a configuration", "a newer program wrote it");
    std::fs::write(out.join("state/b.yaml"), state).unwrap();
    assert!(contents(&out) == before);
    write(&runs("0.03", ", {name: c, set: {train.quant.lr: 0.04}}"));
    let kept = |name: &str| std::fs::read(out.join(name).join("manifest.json")).unwrap();
    let (a, b) = (kept("a"), kept("b"));
    sweep(&["--force"]).ok();
    assert!(kept("a") == a && kept("b") != b && out.join("c/last.safetensors").exists());
    assert_eq!(super::rows(&out)["b"]["train.quant.lr"], "0.03");
    // Without the others the table is of this one; their folders stay.
    write(
        "base: tiny.yaml\nset: {train.float_epochs: 0, train.quant_epochs: 1, train.quant.lr: 0.01}\nruns: [{name: a}]",
    );
    sweep(&[]).ok();
    assert!(super::rows(&out).len() == 1 && out.join("b/last.safetensors").exists() && kept("a") == a);
}

#[test]
fn what_no_sweep_made_is_not_written_over() {
    let here = workplace();
    std::fs::write(here.path().join("s.yaml"), SWEEP).unwrap();
    let fails = |name: &str, hint: &str| {
        let before = contents(here.path());
        let ran = cqat(here.path(), &["sweep", "s.yaml", "--out", "out", "--force"]);
        ran.fails(5, &format!("out/{name} was not made by a sweep and would be overwritten"), hint);
        assert!(contents(here.path()) == before);
    };
    let out = here.path().join("out");
    let write = |name: &str| {
        let path = out.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "mine").unwrap();
        move || std::fs::remove_file(path).unwrap()
    };
    for name in ["sweep.yaml", "results.csv"] {
        let remove = write(name);
        fails(name, "choose another folder with --out");
        remove();
    }
    let _stays = write("w4-seed1/thesis.txt");
    fails("w4-seed1", "move it away");
    assert!(Path::new(&out).join("w4-seed1/thesis.txt").exists());
}
