//! `cqat quantize`, and the commands that take a model file.

mod common;

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use common::{Ran, command, contents, cqat, on_device, parsed, signal, workplace};
use cqat::model::Model;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A finished run `run`, one that is still float, `float`, one whose ranges never freeze, `moving`, and the model of the first, `m`.
static PLACE: LazyLock<TempDir> = LazyLock::new(|| {
    let place = workplace();
    let train = |name: &str, more: &[&str]| {
        cqat(place.path(), &[&["train", "tiny.yaml", "--out", name], more].concat()).ok();
    };
    train("run", &["--set", "train.quant_epochs=1"]);
    train("float", &["--stop-after", "1"]);
    train("moving", &["--set", "train.quant_epochs=1", "--set", "quant.freeze=never"]);
    cqat(place.path(), &["quantize", "run", "--out", "m"]).ok();
    place
});

fn place() -> &'static Path {
    PLACE.path()
}

/// What a command prints as JSON: on the tests' device, or on the CPU where the arguments say so.
fn json_of(arguments: &[&str]) -> Value {
    let ran = if arguments.contains(&"cpu") { Ran::of(command(place(), arguments)) } else { cqat(place(), arguments) };
    parsed(&ran.ok().out)
}

#[test]
fn a_model_is_scored_as_its_run_is_in_integers() {
    let eval = |arguments: &[&str]| json_of(&[&["eval", "--json"], arguments].concat());
    let folded = eval(&["run", "--kind", "folded"]);
    let (device, cpu) = (eval(&["m", "--engine", "device"]), eval(&["m", "--engine", "cpu"]));
    for key in ["top1", "top5", "loss", "samples", "data", "same_data"] {
        assert_eq!((&device[key], &cpu[key]), (&folded[key], &folded[key]), "{key}");
    }
    assert_eq!((device["kind"].as_str(), device["same_data"].as_bool()), (Some("integer"), Some(true)));
    let narrow = eval(&["m", "--accumulator-bits", "6", "--engine", "device"]);
    assert_ne!(narrow["loss"], folded["loss"]);
    assert_eq!(eval(&["m", "--accumulator-bits", "6", "--engine", "cpu"])["loss"], narrow["loss"]);
    assert_ne!(eval(&["m", "--accumulator-bits", "6", "--overflow", "saturate"])["loss"], narrow["loss"]);
    // A software adapter is no reason to leave the CPU, but that it is asked for.
    let free = |arguments: &[&str]| parsed(&Ran::of(command(place(), arguments)).ok().out);
    let devices = free(&["devices", "--json"]);
    let has_gpu = devices.as_array().unwrap().iter().any(|d| d["kind"] != "software");
    assert_eq!(free(&["eval", "--json", "m"])["adapter"] == "CPU", !has_gpu);
    assert_eq!((&eval(&["m"])["adapter"], &cpu["adapter"]), (&device["adapter"], &json!("CPU")));
}

#[test]
fn a_model_stands_beside_its_run() {
    let eval = |arguments: &[&str]| json_of(&[&["eval", "--json"], arguments].concat());
    let both = eval(&["m", "--against", "run", "--layers"]);
    let [fake, folded] = [&["run"][..], &["run", "--kind", "folded"]].map(eval);
    assert_eq!((&both["top1"], &both["loss"]), (&folded["top1"], &folded["loss"]));
    let against = &both["against"];
    assert_eq!(against["fake_quant_top1"], fake["top1"]);
    assert_eq!(against["batch_statistics_samples"], 16);
    assert!(against["same_class"].as_u64().unwrap() >= 14, "{against}");
    let layers = against["layers"].as_array().unwrap();
    let codes: Vec<u64> = layers.iter().map(|l| l["codes"].as_u64().unwrap()).collect();
    assert_eq!(codes, [8, 8, 8, 4, 4, 2, 2].map(|k| 16 * 1024 * k)); // 8 channels of 32 x 32, then twice as many of a quarter
    for l in layers {
        let (codes, differ) = (l["codes"].as_u64().unwrap(), l["differ"].as_u64().unwrap());
        assert!(differ * 500 <= codes && l["largest_difference"].as_u64().unwrap() <= 1, "{l}");
    }
    for l in both["layers"].as_array().unwrap() {
        let [any, these, seen] = ["data_free", "", "observed"]
            .map(|k| l[format!("accumulator_bits_{k}").trim_end_matches('_')].as_u64().unwrap());
        assert!(any >= these && these >= seen && seen > 4, "{l}");
    }
    let text = cqat(place(), &["eval", "m", "--layers"]).ok().out;
    assert!(text.contains("layer2.0.downsample.0") && text.contains("(CPU)"), "{text}");
    let text = cqat(place(), &["eval", "m", "--against", "run"]).ok().out;
    assert!(text.contains("the same class in integers and in fake_quant: 1"), "{text}");
    let eval = |arguments: &[&str]| cqat(place(), &[&["eval"], arguments].concat());
    eval(&["run", "--layers"]).fails(2, "run is a run, expected a model", "cqat quantize");
    eval(&["m", "--layers", "--engine", "device"]).fails(2, "need the integers of the CPU", "leave --engine out");
    eval(&["m", "--against", "moving"]).fails(2, "not made of this run", "fold the run again");
    eval(&["m", "--against", "nowhere"]).fails(5, "nowhere", "");
}

#[test]
fn a_models_inference_is_measured() {
    let bench = |arguments: &[&str]| Ran::of(on_device(place(), &[&["bench"], arguments].concat()));
    let json = parsed(&bench(&["m", "--json", "--steps", "1", "--trace", "t.json"]).ok().out);
    for (pass, batch) in [("integer", 8), ("fake_quant", 8), ("float", 8), ("single_picture", 1), ("cpu", 8)] {
        assert_eq!(json[pass]["batch"], batch, "{json}");
        assert!(json[pass]["images_per_second"].as_f64().unwrap() > 0.0, "{json}");
    }
    let trace = parsed(&std::fs::read_to_string(place().join("t.json")).unwrap());
    std::fs::remove_file(place().join("t.json")).unwrap();
    let products = trace["traceEvents"].as_array().unwrap().iter().filter(|e| e["name"] == "conv");
    let layers: Vec<&str> = products.map(|e| e["args"]["layer"].as_str().unwrap()).collect();
    let net = Model::read(&place().join("m")).unwrap().net;
    let direct: Vec<&str> = net.weights().iter().map(|(name, _)| *name).collect();
    assert_eq!(layers, direct, "no layer of so few channels goes through Winograd's tiles");
    assert!(bench(&["m", "--steps", "1"]).ok().out.contains("single picture"));
    bench(&["m", "--float"]).fails(2, "--float and --kernel are of training steps", "leave them out");
}

#[test]
fn a_model_classifies_pictures() {
    let picture = image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 6, y as u8 * 8, 77]));
    picture.save(place().join("p.png")).unwrap();
    let infer = |arguments: &[&str]| json_of(&[&["infer", "--json"], arguments].concat());
    let folded = infer(&["--kind", "folded", "run", "p.png"]);
    assert_eq!(infer(&["--engine", "device", "m", "p.png"]), folded);
    assert_eq!(infer(&["--engine", "cpu", "m", "p.png"]), folded);
    let [device, cpu] = ["device", "cpu"].map(|engine| infer(&["--engine", engine, "--logits", "m", "p.png"]));
    assert_eq!(device, cpu);
    let net = Model::read(&place().join("m")).unwrap().net;
    let mut picture = cqat::pictures::read_all(&[place().join("p.png")], 32, || ());
    let logits = net.run(&picture.remove(0).unwrap()).unwrap();
    assert_eq!((&cpu[0]["logits"], &cpu[0]["fraction_bits"]), (&json!(logits), &json!(net.classifier.fraction_bits)));
    let real = &infer(&["--kind", "fake_quant", "--logits", "run", "p.png"])[0]["logits"];
    let real: Vec<f64> = real.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let numbers: Vec<f64> = logits.iter().map(|v| f64::from(net.classifier.logit(*v))).collect();
    let spread = real.iter().fold(0f64, |most, v| most.max(v.abs()));
    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 0.05 * spread;
    assert!(real.len() == numbers.len() && real.iter().zip(&numbers).all(near), "{real:?} {numbers:?}");
    assert_eq!(cqat(place(), &["infer", "m", "p.png", "--logits"]).code, 2, "they are in JSON alone");
}

#[test]
fn what_a_model_says_of_itself() {
    let json = parsed(&cqat(place(), &["quantize", "run", "--out", "again", "--json"]).ok().out);
    let layers = json["layers"].as_array().unwrap();
    assert_eq!(
        (json["multiplier"].as_str(), json["model"].as_str(), layers.len()),
        (Some("bits32"), Some("again"), 10)
    );
    let conv = layers.iter().find(|l| l["layer"] == "layer1.0.conv1").unwrap();
    assert_eq!((conv["weights"].as_u64(), conv["bits"].as_u64()), (Some(8 * 8 * 9), Some(5)));
    assert!(conv["accumulator_bits"].as_u64().unwrap() <= 16, "{conv}"); // 72 * 16 * 15 needs 16
    assert!(std::fs::read(place().join("again")).unwrap() == std::fs::read(place().join("m")).unwrap());
}

/// Trained with powers of two everywhere, requantization only shifts, and the integers are still those of fake quantization.
#[test]
fn a_run_that_was_trained_for_shifts_needs_no_multiplier() {
    let shift = "quant={pow2_norm: true, weights: {pow2: true}, activations: {pow2: true}}";
    cqat(place(), &["train", "tiny.yaml", "--out", "shifts", "--set", "train.quant_epochs=1", "--set", shift]).ok();
    cqat(place(), &["quantize", "shifts", "--out", "s", "--multiplier", "shift"]).ok();
    let net = Model::read(&place().join("s")).unwrap().net;
    let factors = net.layers.iter().flat_map(|l| &l.channels).chain(&net.classifier.channels);
    let all: Vec<i32> = factors.flat_map(|k| [k.multiplier, k.shortcut]).collect();
    assert!(all.iter().all(|m| *m == 0 || m.unsigned_abs().is_power_of_two()), "{all:?}");
    assert!(all.iter().filter(|m| **m != 0).count() > 100, "{all:?}");
    let both = parsed(&cqat(place(), &["eval", "s", "--json", "--against", "shifts"]).ok().out);
    for l in both["against"]["layers"].as_array().unwrap() {
        assert!(l["differ"].as_u64().unwrap() * 500 <= l["codes"].as_u64().unwrap(), "{l}");
    }
}

#[test]
fn what_cannot_be_a_model_leaves_nothing() {
    let before = contents(place());
    let quantize = |arguments: &[&str]| cqat(place(), &[&["quantize"], arguments].concat());
    quantize(&["float", "--out", "x"]).fails(5, "no quantized network yet", "go on training");
    quantize(&["moving", "--out", "x"]).fails(5, "the ranges of moving are not frozen", "quant.freeze=never");
    quantize(&["run", "--out", "x", "--multiplier", "shift"]).fails(5, "expected a power of two", "cqat-shift");
    quantize(&["run", "--out", "m"]).fails(2, "m exists", "--force");
    #[cfg(unix)]
    {
        // Through a link.
        std::os::unix::fs::symlink("behind", place().join("link")).unwrap();
        quantize(&["run", "--out", "link", "-q"]).ok();
        assert!(place().join("link").is_symlink() && Model::is_at(&place().join("behind")));
        for name in ["link", "behind"] {
            std::fs::remove_file(place().join(name)).unwrap();
        }
    }
    quantize(&["run", "--out", "nowhere/m"]).fails(2, "there is no folder nowhere", "make it");
    let shift = ["plan", "cqat-shift", "--set", "data.size=24"];
    cqat(place(), &shift).fails(2, "the mean before the classifier is over 9 pixels", "data.size=32");
    quantize(&["nothing", "--out", "x"]).fails(5, "nothing", "");
    cqat(place(), &["eval", "m", "--kind", "float"]).fails(2, "a model has integers alone", "leave --kind out");
    let free = |arguments: &[&str]| Ran::of(command(place(), arguments));
    free(&["eval", "run", "--engine", "cpu"]).fails(2, "run is a run, expected a model file", "cqat quantize");
    cqat(place(), &["infer", "m", "p.png", "--engine", "cpu"]).fails(2, "--engine is cpu", "leave one of them out");
    quantize(&["m", "--out", "x"]).fails(2, "m is a model, expected a run", "the run that it was made of");
    let whole = std::fs::read(place().join("m")).unwrap();
    std::fs::write(place().join("cut"), &whole[..whole.len() - 9]).unwrap();
    cqat(place(), &["eval", "cut"]).fails(5, "cut: is not a whole safetensors file", "cut short");
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 4;
    std::fs::write(place().join("flipped"), flipped).unwrap();
    cqat(place(), &["infer", "flipped", "p.png"]).fails(5, "another hash", "damaged");
    for name in ["cut", "flipped"] {
        std::fs::remove_file(place().join(name)).unwrap();
    }
    let after = contents(place());
    let changed: Vec<_> = after.iter().filter(|entry| !before.contains(entry)).map(|entry| &entry.0).collect();
    assert!(changed.iter().all(|path| path.ends_with("p.png") || path.ends_with("again")), "{changed:?}");
}

/// Whenever it is interrupted, an export is there as a whole or not at all.
#[cfg(unix)]
#[test]
fn an_interrupted_export_is_whole_or_nothing() {
    let here = tempfile::tempdir().unwrap();
    let names = || std::fs::read_dir(here.path()).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    let model = place().join("m");
    let mut stopped = 0;
    // On, where all of the first ones came too late.
    for (attempt, delay) in [0, 1, 3, 10, 30, 100].into_iter().chain([0; 50]).enumerate() {
        if attempt >= 6 && stopped > 0 {
            break;
        }
        let arguments = ["export", model.to_str().unwrap(), "--format", "verilog", "--out", "o"];
        let mut child = command(here.path(), &arguments).spawn().unwrap();
        while names().is_empty() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(delay));
        signal(&child, "-INT");
        let ran = Ran::from(child.wait_with_output().unwrap());
        match names()[..] {
            [] => {
                assert_eq!(ran.code, 130, "{ran:?}");
                stopped += 1;
            }
            // The sums are written last.
            [ref only] if only == "o" && here.path().join("o/SHA256SUMS").exists() => {
                std::fs::remove_dir_all(here.path().join("o")).unwrap();
            }
            ref left => panic!("{left:?}: {ran:?}"),
        }
    }
    assert!(stopped > 0, "no export was interrupted");
}
