//! Safetensors out and in, and what `cqat export` refuses. Nothing here needs Python.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use cqat::checkpoint::Checkpoint;
use cqat::model::Model;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use tempfile::TempDir;

use super::common::{contents, cqat, last, parsed, workplace};

/// A finished run `run` with its model `m`, a float one, `float`, one of powers of two, `shift`, and the exports `of-run`, `of-float`,
/// `of-shift` and `of-model`.
static PLACE: LazyLock<TempDir> = LazyLock::new(|| {
    let place = workplace();
    let run = |arguments: &[&str]| cqat(place.path(), arguments).ok();
    run(&["train", "tiny.yaml", "--out", "run", "--set", "train.quant_epochs=1"]);
    run(&["train", "tiny.yaml", "--out", "float", "--stop-after", "1"]);
    let shift = "quant={pow2_norm: true, weights: {pow2: true}, activations: {pow2: true}}";
    run(&["train", "tiny.yaml", "--out", "shift", "--set", "train.quant_epochs=1", "--set", shift]);
    run(&["quantize", "run", "--out", "m"]);
    for (from, to) in [("run", "of-run"), ("float", "of-float"), ("shift", "of-shift"), ("m", "of-model")] {
        run(&["export", from, "--format", "safetensors", "--out", to]);
    }
    place
});

fn place() -> &'static Path {
    PLACE.path()
}

fn checkpoint(run: &str) -> Checkpoint {
    last(&place().join(run))
}

/// Type, shape and bytes of every tensor of an export.
fn tensors(export: &str) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(place().join(export).join("model.safetensors")).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    all.iter().map(|(name, t)| (name.into(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Starts a run from an export and stops before it trains: what it has is what it read.
fn read_back(export: &str, out: &str) -> Checkpoint {
    let from = format!("train.init_from={export}/model.safetensors");
    let sets = ["--set", &from, "--set", "train.float_epochs=0", "--set", "train.quant_epochs=0"];
    cqat(place(), &[&["train", "tiny.yaml", "--out", out][..], &sets].concat()).ok();
    checkpoint(out)
}

#[test]
fn a_run_comes_back_as_the_same_network() {
    for (run, export) in [("run", "of-run"), ("float", "of-float")] {
        let back = format!("{export}-back");
        let (was, is) = (checkpoint(run).tensors, read_back(export, &back).tensors);
        let mut compared = 0;
        for (name, tensor) in was.iter().filter(|(name, _)| !cqat::tensors::is_training_state(name)) {
            assert_eq!(is.get(name), Some(tensor), "{run}: {name}");
            compared += 1;
        }
        assert_eq!(compared, 9 * 5 + 2, "{run}");
        let eval = |run: &str| parsed(&cqat(place(), &["eval", "--json", "--kind", "float", run]).ok().out);
        let (was, is) = (eval(run), eval(&back));
        assert_eq!((&is["loss"], &is["top1"]), (&was["loss"], &was["top1"]), "{run}");
    }
}

#[test]
fn a_state_has_the_names_of_torchvision() {
    let float = tensors("of-float");
    assert!(float.keys().all(|name| !name.starts_with("quant.")), "{:?}", float.keys());
    for (name, shape) in [
        ("conv1.weight", &[8, 3, 3, 3][..]),
        ("bn1.running_var", &[8]),
        ("layer2.0.downsample.0.weight", &[16, 8, 1, 1]),
        ("layer2.0.downsample.1.bias", &[16]),
        ("fc.weight", &[100, 32]),
        ("fc.bias", &[100]),
    ] {
        assert_eq!((float[name].0, &float[name].1[..]), (Dtype::F32, shape), "{name}");
    }
    let steps = i64::try_from(checkpoint("float").meta.position.global_step).unwrap();
    assert_eq!(float["bn1.num_batches_tracked"], (Dtype::I64, vec![], steps.to_le_bytes().to_vec()));
    assert!(steps > 0);
}

#[test]
fn codes_are_those_of_the_model() {
    let (run, model) = (tensors("of-run"), tensors("of-model"));
    let net = Model::read(&place().join("m")).unwrap().net;
    let conv = &net.layers[1].conv;
    let codes: Vec<u8> = conv.weights.codes.iter().map(|code| *code as u8).collect();
    let name = format!("quant.{}.weight.codes", conv.name);
    assert_eq!(run[&name], (Dtype::I8, vec![8, 8, 3, 3], codes));
    for (name, tensor) in run.iter().filter(|(name, _)| name.starts_with("quant.")) {
        assert_eq!(model.get(name), Some(tensor), "{name}");
    }
    let window = [0, 255, 0, 1, 0, 15].map(i32::to_le_bytes).concat();
    assert_eq!(model["quant.stem.window"], (Dtype::I32, vec![6], window));
    let shift = net.layers[1].channels[3].shift as i32;
    assert_eq!(model["quant.layer1.0.conv1.shift"].2[12..16], shift.to_le_bytes());
}

#[test]
fn batch_norms_of_powers_of_two_have_their_factors() {
    let (run, shift) = (tensors("of-run"), tensors("of-shift"));
    assert!(run.keys().all(|name| !name.ends_with(".factor")));
    assert_eq!(shift.keys().filter(|name| name.ends_with(".factor")).count(), 9);
    let of = |part: &str| floats(&shift[&format!("layer2.0.downsample.1.{part}")].2);
    let (gamma, variance) = (of("weight"), of("running_var"));
    let factors = floats(&shift["quant.layer2.0.downsample.1.factor"].2);
    assert_eq!(factors.len(), 16);
    for ((factor, gamma), variance) in factors.iter().zip(gamma).zip(variance) {
        let ratio = factor / (gamma / (variance + 1e-5).sqrt());
        assert_eq!(factor.log2().fract(), 0.0);
        assert!(ratio.log2().abs() <= 0.501, "{factor} is {ratio} times the factor");
    }
    // Those behind layers that stay in float too.
    let ends =
        "quant={pow2_norm: true, first_last: float, input: none, weights: {pow2: true}, activations: {pow2: true}}";
    let train =
        ["train", "tiny.yaml", "--out", "ends", "--set", "train.float_epochs=0", "--set", "train.quant_epochs=1"];
    cqat(place(), &[&train[..], &["--set", ends]].concat()).ok();
    cqat(place(), &["export", "ends", "--format", "safetensors", "--out", "of-ends"]).ok();
    let (names, factors) = (tensors("of-ends"), tensors("of-shift"));
    assert!(factors.keys().filter(|name| name.ends_with(".factor")).all(|name| names.contains_key(name)));
    assert!(!names.contains_key("quant.conv1.weight.codes"));
}

#[test]
fn a_model_comes_back_with_weights_on_the_grid() {
    let model = tensors("of-model");
    let tensors = read_back("of-model", "model-back").tensors;
    let was = checkpoint("run").tensors;
    for name in ["conv1", "layer2.0.conv2", "layer2.0.downsample.0", "fc"] {
        let (_, shape, codes) = &model[&format!("quant.{name}.weight.codes")];
        let scales = floats(&model[&format!("quant.{name}.weight.scale")].2);
        let rows = codes.chunks(codes.len() / shape[0]).zip(scales);
        let want: Vec<f32> = rows.flat_map(|(row, s)| row.iter().map(move |c| f32::from(*c as i8) * s)).collect();
        assert_eq!(tensors[&format!("{name}.weight")].data, want, "{name}");
    }
    // The batch norm of the folded network is that of the run: gamma / sqrt(var + eps).
    let of = |part: &str| &was[&format!("layer2.0.bn1.{part}")].data;
    for (k, factor) in tensors["layer2.0.bn1.weight"].data.iter().enumerate() {
        let want = of("weight")[k] / (of("running_var")[k] + 1e-5).sqrt();
        assert!((factor - want).abs() <= 1e-5 * want.abs(), "channel {k}: {factor}, expected {want}");
        let (bias, want) = (tensors["layer2.0.bn1.bias"].data[k], of("bias")[k] - of("running_mean")[k] * want);
        assert!((bias - want).abs() <= 1e-5 * (1.0 + want.abs()), "channel {k}: {bias}, expected {want}");
    }
}

#[test]
fn what_cannot_be_exported_leaves_nothing() {
    let _ = place();
    let export = |arguments: &[&str]| cqat(place(), &[&["export"], arguments].concat());
    for format in ["onnx", "qonnx"] {
        let out = format!("never-{format}");
        let hint = "cqat quantize run --out MODEL";
        export(&["run", "--format", format, "--out", &out]).fails(2, "run is a run, but", hint);
        let image = ["m", "--format", format, "--out", &out, "--image", "p.png"];
        export(&image).fails(2, "--image is for golden vectors", "leave --image out");
    }
    export(&["m", "--format", "onnx", "--out", "of-run"]).fails(2, "of-run exists", "choose a new folder");
    export(&["nothing", "--format", "safetensors", "--out", "never"]).fails(5, "nothing", "");
    let left = contents(place());
    assert!(left.iter().all(|(path, _)| !path.to_string_lossy().contains("never")));
}
