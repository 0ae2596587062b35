//! Exports that are opened by the tools which they are for: onnxruntime, the qonnx package, torch. `scripts/setup-python.sh exports`
//! makes a Python that has them; `CQAT_PYTHON` says where it is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use cqat::data::{DataSet, EMBEDDED, PICTURE_BYTES, Split, load};
use cqat::evaluate::{Kind, Loaded};
use cqat::export::{self, Format, Golden};
use cqat::integer::{IntegerNet, IntegerShortcut, IntegerWeights, Multiplier, Window};
use cqat::model::{Model, Source};
use serde_json::Value;
use tempfile::TempDir;

use super::common::{Ran, cqat, gpu, parsed};

/// Of the logits' largest magnitude: no logit may be further off. One code that a tie or 32-bit floating point puts on the other side
/// moves logits by less.
const WORST: f64 = 0.03;
/// The same of the mean difference.
const MEAN: f64 = 0.002;

/// What the trained runs change of the first, which is of the default method.
const RUNS: [(&str, &[&str]); 6] = [
    ("per_channel", &["quant.weights.granularity=per_channel"]),
    ("lsqplus", &["quant.method=lsqplus"]),
    ("ewgs", &["quant.method=ewgs"]),
    ("w8a8", &["quant.weight_bits=8", "quant.activation_bits=8"]),
    ("drop_lsb", &["quant.reduce=drop_lsb_floor"]),
    ("shift", &["quant={pow2_norm: true, weights: {pow2: true}, activations: {pow2: true}}"]),
];

/// Runs of ResNet-8 on the embedded set, and one of depth 10.
static PLACE: LazyLock<TempDir> = LazyLock::new(|| {
    let place = tempfile::tempdir().unwrap();
    let yaml = "network: {depth: 8, width: 8}\ntrain: {batch: 16, float_epochs: 4, quant_epochs: 1}\ndata: {dir: embedded, subset: 400}\n";
    std::fs::write(place.path().join("tiny.yaml"), yaml).unwrap();
    let train = |name: &str, sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        cqat(place.path(), &[&["train", "tiny.yaml", "--out", name], &sets[..]].concat()).ok();
    };
    train("cqat", &[]);
    for (name, sets) in RUNS {
        train(name, &[&["train.init_from=cqat", "train.float_epochs=0"], sets].concat());
    }
    train("depth10", &["network.depth=10", "train.float_epochs=2"]);
    place
});

fn loaded(run: &str) -> Loaded {
    Loaded::read(&PLACE.path().join(run)).unwrap()
}

fn model_of(run: &str, multiplier: Multiplier) -> Model {
    let loaded = loaded(run);
    let class_names = loaded.class_names();
    let net = loaded.fold(class_names.len(), multiplier).unwrap();
    let source = Source { run: run.into(), config: loaded.checkpoint.meta.config.clone(), ..Source::default() };
    Model { net, class_names, normalisation: loaded.checkpoint.meta.normalisation, source }
}

/// A thousand pictures: all test pictures, then training ones.
fn pictures(count: usize) -> Split {
    let DataSet { test, train, .. } = load(EMBEDDED, 0, 0).unwrap();
    let mut images = [test.images, train.images].concat();
    images.truncate(count * PICTURE_BYTES);
    let mut labels = [test.labels, train.labels].concat();
    labels.truncate(count);
    assert_eq!(labels.len(), count);
    Split { side: 32, images, labels }
}

/// What a script of this folder prints of an export, with the pictures and the logits that it should give.
fn compare(script: &str, kind: &str, file: &Path, depth: &[&str], pictures: &[u8], logits: &[f32]) -> Value {
    let python = std::env::var_os("CQAT_PYTHON").map(PathBuf::from);
    let python = python.expect("hint: export CQAT_PYTHON=$(scripts/setup-python.sh exports)");
    let folder = tempfile::tempdir().unwrap();
    let [images, expected] = ["images", "logits"].map(|name| folder.path().join(name));
    std::fs::write(&images, pictures).unwrap();
    std::fs::write(&expected, bytemuck::cast_slice::<f32, u8>(logits)).unwrap();
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exports").join(script));
    command.arg(kind).arg(file).args(depth).args([&images, &expected]);
    let all = Ran::of(command).ok().out;
    parsed(all.lines().last().unwrap_or_default())
}

/// Fails unless the logits are near those expected and at most one picture in a hundred has another class.
///
/// Where the real value of a code lies within 1e-6 of a rounding edge, 32-bit floating point decides; pictures with a plain background repeat
/// that value all over.
fn assert_near(what: &str, found: &Value) {
    println!("{what}: {found}");
    let number = |key: &str| found[key].as_f64().unwrap_or_else(|| panic!("{what}: no {key} in {found}"));
    let largest = number("largest");
    assert!(number("worst") <= WORST * largest, "{what}: {found}");
    assert!(number("mean") <= MEAN * largest, "{what}: {found}");
    assert!(number("pictures") - number("same_top1") <= number("pictures") / 100.0, "{what}: {found}");
}

/// Runs the graph of a model on the first pictures of the embedded set and compares it with the integer engine; how many have its class.
fn run_graph(what: &str, model: &Model, format: Format, count: usize) -> u64 {
    run_graph_on(what, model, format, &pictures(count).images)
}

fn run_graph_on(what: &str, model: &Model, format: Format, pictures: &[u8]) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let golden = Golden::new(&model.net, &[]).unwrap();
    export::model(model, &golden, format).unwrap().write(&out).unwrap();
    let logits = model.net.numbers(&model.net.run(pictures).unwrap());
    let found = compare("run_graph.py", format.name(), &out.join("model.onnx"), &[], pictures, &logits);
    assert_near(&format!("{} of {what}", format.name()), &found);
    found["same_top1"].as_u64().unwrap()
}

/// Runs the graphs of random networks on pictures of noise.
fn run_random_graphs(format: Format, count: usize) {
    for (what, net) in super::networks() {
        let pictures = super::Random::new(9).bytes(count * net.picture_bytes());
        run_graph_on(what, &super::model(net), format, &pictures);
    }
}

/// Networks that no short training makes: the model with parts replaced.
fn altered() -> Vec<(&'static str, Model)> {
    let model = model_of("cqat", Multiplier::Bits32);
    let with = |change: &dyn Fn(&mut IntegerNet)| {
        let mut model = model.clone();
        change(&mut model.net);
        model
    };
    let windows = |window: Window, shift: u32| {
        with(&|net| {
            for layer in net.layers.iter_mut().filter(|layer| layer.bits == 4) {
                layer.window = window;
                layer.channels.iter_mut().for_each(|k| k.shift -= shift);
            }
        })
    };
    let plain = |lo, hi| Window { base_lo: lo, base_hi: hi, shift: 0, round: false, lo, hi };
    let drops = |round| Window { base_lo: 0, base_hi: 255, shift: 2, round, lo: 0, hi: 15 };
    vec![
        ("negative factors", with(&turn_around)),
        ("an offset above 0", windows(plain(2, 17), 0)),
        ("an offset below 0", windows(plain(0, 11), 0)),
        ("dropped bits, rounded", windows(drops(true), 2)),
        ("dropped bits", windows(drops(false), 2)),
    ]
}

/// Turns every other channel's codes and factors around, which leaves the network what it is but for the lowest code; then a code of -128
/// comes to the first of them.
fn turn_around(net: &mut IntegerNet) {
    let turn = |weights: &mut IntegerWeights, k: usize| {
        let count = weights.codes.len() / weights.scales.len();
        let highest = (1i16 << (weights.bits - 1)) - 1;
        for code in &mut weights.codes[k * count..][..count] {
            *code = (-i16::from(*code)).min(highest) as i8;
        }
    };
    for layer in &mut net.layers {
        for k in (1..layer.channels.len()).step_by(2) {
            turn(&mut layer.conv.weights, k);
            layer.channels[k].multiplier = -layer.channels[k].multiplier;
            if let IntegerShortcut::Projection(conv) = &mut layer.shortcut {
                turn(&mut conv.weights, k);
                layer.channels[k].shortcut = -layer.channels[k].shortcut;
            }
        }
    }
    assert!(net.layers[0].channels[1].multiplier < 0 && net.layers[0].conv.weights.bits == 8);
    net.layers[0].conv.weights.codes[27] = -128;
}

#[test]
#[ignore = "needs onnxruntime: make test-exports"]
fn onnxruntime_gives_the_same_classes() {
    assert!(run_graph("cqat", &model_of("cqat", Multiplier::Bits32), Format::Onnx, 1000) >= 999);
    for run in ["depth10"].into_iter().chain(RUNS.map(|(run, _)| run)) {
        run_graph(run, &model_of(run, Multiplier::Bits32), Format::Onnx, 1000);
    }
    run_graph("16-bit multipliers", &model_of("cqat", Multiplier::Bits16), Format::Onnx, 200);
    run_graph("shifts for multipliers", &model_of("shift", Multiplier::Shift), Format::Onnx, 200);
    for (what, model) in altered() {
        run_graph(what, &model, Format::Onnx, 200);
    }
    run_random_graphs(Format::Onnx, 200);
}

#[test]
#[ignore = "needs the qonnx package: make test-exports"]
fn qonnx_gives_the_same_classes() {
    for run in ["cqat", "depth10"].into_iter().chain(RUNS.map(|(run, _)| run)) {
        run_graph(run, &model_of(run, Multiplier::Bits32), Format::Qonnx, 10);
    }
    for (what, model) in altered() {
        run_graph(what, &model, Format::Qonnx, 5);
    }
    run_random_graphs(Format::Qonnx, 5);
}

#[test]
#[ignore = "needs torch: make test-exports"]
fn torch_loads_what_was_exported() {
    let (gpu, pictures) = (gpu(false), pictures(200));
    let folder = tempfile::tempdir().unwrap();
    let near = |what: &str, kind: &str, file: &Path, depth: &str, logits: &[f32]| {
        let found = compare("run_state.py", kind, &file.join("model.safetensors"), &[depth], &pictures.images, logits);
        assert_near(what, &found);
    };
    for (run, depth) in [("cqat", "8"), ("depth10", "10")].into_iter().chain(RUNS.map(|(run, _)| (run, "8"))) {
        let out = folder.path().join(run);
        let loaded = loaded(run);
        export::run(&loaded, run, Format::Safetensors).unwrap().write(&out).unwrap();
        for (name, kind) in [("float", Kind::Float), ("quantized", Kind::FakeQuant)] {
            let logits =
                loaded.with_network(kind, 10, Some(&gpu), |network| network.logits(&pictures)).unwrap().numbers;
            near(&format!("torch, {name} state of {run}"), name, &out, depth, &logits);
        }
        let model = model_of(run, Multiplier::Bits32);
        let golden = Golden::new(&model.net, &[]).unwrap();
        let out = folder.path().join(format!("{run}-model"));
        export::model(&model, &golden, Format::Safetensors).unwrap().write(&out).unwrap();
        let logits = model.net.numbers(&model.net.run(&pictures.images).unwrap());
        near(&format!("torch, state of the model of {run}"), "quantized", &out, depth, &logits);
    }
}
