//! Parts of the recipe, one by one: ranges, scales, norms, averages, clipping, validation.

mod common;

use common::{embedded, gpu, last, lines, lowered, metrics, resume, tiny, train};
use cqat::checkpoint::{Checkpoint, Phase};
use cqat::evaluate::{Kind, Loaded};
use cqat::exec::Device;
use cqat::kernels::Step;
use cqat::normalisation::Normalisation;
use cqat::safetensors_io::Tensors;
use cqat::score::Totals;
use cqat::session::{Form, Session};
use cqat::train::Outcome;
use serde_json::json;

/// Ranges after the first and the second of two quantized epochs.
fn moved(freeze: &str) -> bool {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(16, 4));
    let out = folder.path().join("run");
    let freeze = format!("quant.freeze={freeze}");
    let config = tiny(&["train.batch=4", "train.float_epochs=0", "train.quant_epochs=2", &freeze]);
    let ranges = |c: &Checkpoint| -> Vec<u32> {
        let moving =
            |name: &str| name.starts_with("quant.") && !name.ends_with(".statistics") && !name.ends_with(".codes");
        let state = c.tensors.iter().filter(|(name, _)| moving(name));
        state.flat_map(|(_, t)| &t.data).map(|v| v.to_bits()).collect()
    };
    assert_eq!(train(&config, &data, &gpu, &out, Some(1)).unwrap(), Outcome::Stopped);
    let after_one = ranges(&last(&out));
    assert_eq!(resume(&out, &config, &data).unwrap(), Outcome::Finished);
    after_one != ranges(&last(&out))
}

#[test]
fn ranges_stand_still_when_they_are_told_to() {
    let found = ["never", "before_last_epoch", "after_calibration", "{after_epochs: 1}"].map(moved);
    assert_eq!(found, [true, false, false, false]);
}

/// The scales in a checkpoint are those of its weights, also where the host searches for them.
#[test]
fn searched_weight_scales_belong_to_the_weights_they_are_stored_with() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(32, 4));
    for estimator in ["mse", "percentile"] {
        let out = folder.path().join(estimator);
        let weights = format!("quant.weights.estimator={estimator}");
        let config = tiny(&["train.float_epochs=0", "train.quant_epochs=2", "quant.freeze=never", &weights]);
        train(&config, &data, &gpu, &out, None).unwrap();
        let Checkpoint { tensors, meta } = last(&out);
        let lowered = lowered(&config, &data, &gpu);
        let mut session = Session::new(&lowered, gpu.load(&lowered.plan).unwrap(), &meta.normalisation);
        let trained = tensors.iter().filter(|(name, _)| !name.starts_with("quant."));
        session.set_state(&trained.map(|(name, t)| (name.clone(), t.clone())).collect()).unwrap();
        session.refresh_weight_scales(lowered.quant.as_ref().unwrap()).unwrap();
        let searched = session.state().unwrap();
        for name in ["quant.layer1.0.conv1.weight.scale", "quant.fc.weight.inv_scale"] {
            assert_eq!(tensors[name], searched[name], "{estimator}: {name}");
        }
    }
}

/// Weights and scales stay; running statistics forget where they came from.
#[test]
fn norms_are_estimated_anew_after_the_last_epoch() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(32, 16));
    let trained = |batches: u32, lr: f32| {
        let out = folder.path().join(format!("{batches}-{lr}"));
        let sets = [
            "train.float_epochs=1".to_string(),
            "train.quant_epochs=2".to_string(),
            format!("quant.reestimate_batches={batches}"),
            format!("train.quant.lr={lr}"),
        ];
        train(&tiny(&sets.each_ref().map(String::as_str)), &data, &gpu, &out, None).unwrap();
        last(&out).tensors
    };
    let (without, with) = (trained(0, 0.02), trained(100, 0.02));
    for (name, tensor) in &without {
        let estimated = name.ends_with("running_mean") || name.ends_with("running_var");
        let unused = name.starts_with("momentum.");
        assert!(unused || (with[name] == *tensor) != estimated, "{name}");
    }
    // More of the same batches change little: the estimate has arrived.
    let more = trained(140, 0.02);
    let norm = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
    let name = "layer2.0.bn1.running_mean";
    let (drift, change) = (norm(&more[name].data, &with[name].data), norm(&without[name].data, &with[name].data));
    assert!(drift < change, "{drift} {change}");
}

/// The averages follow their recurrence, leave training alone, and are what is scored and what the quantized phase starts from.
#[test]
fn averages_of_the_weights_are_the_network_that_is_kept() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(8, 4)); // one step an epoch
    let trained = |name: &str, epochs: u32, set: &str| {
        let out = folder.path().join(name);
        let sets = ["train.float_epochs=4", "train.quant_epochs=1", "train.quant.lr=1e-9", set];
        train(&tiny(&sets), &data, &gpu, &out, Some(epochs)).unwrap();
        out
    };
    let decay = "train.optimizer.ema_decay=0.2";
    let mut average: Tensors = cqat::tensors::initialise(&lowered(&tiny(&[]), &data, &gpu).layout, 0);
    for epochs in 1..=4 {
        let (live, run) = (trained(&format!("live{epochs}"), epochs, "train.seed=0"), format!("averaged{epochs}"));
        let (live, averaged) = (last(&live).tensors, last(&trained(&run, epochs, decay)).tensors);
        let d = f64::from(epochs) / (9.0 + f64::from(epochs)); // 0.1, 0.18, then above the limit
        let d = d.min(0.2);
        for (name, tensor) in &mut average {
            for (a, v) in tensor.data.iter_mut().zip(&live[name].data) {
                *a = (d * f64::from(*a) + (1.0 - d) * f64::from(*v)) as f32;
            }
            assert!(averaged[&format!("live.{name}")] == live[name], "{name} trains differently");
            let close =
                tensor.data.iter().zip(&averaged[name].data).all(|(a, b)| (a - b).abs() < 1e-5 * (1.0 + a.abs()));
            assert!(close, "{name} after {epochs}");
            assert!(averaged[name] != live[name] || name.ends_with("fc.bias"), "{name} is no average");
        }
    }
    let out = trained("averaged", 5, decay);
    let float = Checkpoint::read(&out.join("float.safetensors")).unwrap().tensors;
    let quantized = last(&out).tensors;
    for name in average.keys().filter(|name| name.ends_with("conv1.weight")) {
        let moved = float[name].data.iter().zip(&quantized[&format!("live.{name}")].data).map(|(a, b)| (a - b).abs());
        assert!(moved.fold(0.0, f32::max) < 1e-6, "{name} starts elsewhere");
    }
    let loaded = Loaded::read(&out).unwrap();
    let scored = loaded.evaluate(Kind::FakeQuant, &data.test, data.classes, Some(&gpu)).unwrap().totals.mean_loss();
    assert_eq!(lines(&out, "quant", "test")[0]["loss"].as_f64(), Some(scored));
}

/// The step of several batches is the mean of the steps of each, from the same weights.
#[test]
fn gradients_of_several_batches_are_averaged() {
    let (gpu, data) = (gpu(false), embedded(12, 4));
    let sets = ["train.batch=4", "train.optimizer={momentum: 0, nesterov: false, weight_decay: 0}"];
    let step = Step { lr: 0.1, frozen: 1, ..Step::default() };
    for form in [Form::Float, Form::Quantized] {
        let after = |accumulate: u32, batches: &[&[u32]]| {
            let set = format!("train.accumulate={accumulate}");
            let config = tiny(&[&sets[..], &["data.augment={crop_padding: 0, flip: false}", &set]].concat());
            let lowered = lowered(&config, &data, &gpu);
            let mut session = Session::new(&lowered, gpu.load(&lowered.plan).unwrap(), &Normalisation::of(&data));
            session.set_state(&cqat::tensors::initialise(&lowered.layout, 0)).unwrap();
            let order: Vec<u32> = (0..12).collect();
            session.calibrate(&data.train, &order, 3).unwrap();
            session.train_step(form, &data.train, &batches.concat(), step).unwrap();
            let mut totals = Totals::default();
            session.drain(&mut totals).unwrap();
            assert_eq!(totals.count, 4.0 * batches.len() as f64);
            session.named(lowered.layout.values()).unwrap()
        };
        let batches: [&[u32]; 3] = [&[0, 1, 2, 3], &[4, 5, 6, 7], &[8, 9, 10, 11]];
        let (all, each) = (after(3, &batches), batches.map(|batch| after(1, &[batch])));
        for (name, tensor) in all.iter().filter(|(name, _)| !name.contains("running") && !name.starts_with("quant.")) {
            for (i, v) in tensor.data.iter().enumerate() {
                let mean = each.iter().map(|t| t[name].data[i]).sum::<f32>() / 3.0;
                assert!((v - mean).abs() < 1e-5, "{form:?} {name} {i}: {v} {mean}");
            }
            assert!(each.iter().all(|t| t[name] != *tensor), "{name} is that of one batch");
        }
    }
}

/// Clipped to nothing, gradients leave the weights where they are; to much, they do not notice.
#[test]
fn gradients_are_clipped_in_both_phases() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(16, 4));
    let trained = |name: &str, norm: &str| {
        let out = folder.path().join(name);
        let norm = format!("train.optimizer.clip_norm={norm}");
        let sets = ["train.float_epochs=1", "train.quant_epochs=1", "train.optimizer.weight_decay=0", &norm];
        train(&tiny(&sets), &data, &gpu, &out, None).unwrap();
        last(&out).tensors
    };
    let (free, wide, tight) = (trained("free", "null"), trained("wide", "1e6"), trained("tight", "1e-9"));
    assert!(free == wide);
    let lowered = lowered(&tiny(&[]), &data, &gpu);
    let start = cqat::tensors::initialise(&lowered.layout, 0);
    let moved = |t: &cqat::safetensors_io::Tensors| {
        let differences = start["layer2.0.conv1.weight"].data.iter().zip(&t["layer2.0.conv1.weight"].data);
        differences.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    assert!(moved(&tight) < 1e-8 && moved(&free) > 1e-3, "{} {}", moved(&tight), moved(&free));
}

/// Whatever the tensor and its bits.
#[test]
fn a_fixed_scale_is_what_it_says() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(16, 4));
    let out = folder.path().join("run");
    let config = tiny(&[
        "train.float_epochs=0",
        "train.quant_epochs=1",
        "quant.freeze=never",
        "quant.weights={estimator: fixed_pow2, fixed_log2_scale: -6}",
        "quant.activations={estimator: fixed_pow2, fixed_log2_scale: -3}",
    ]);
    train(&config, &data, &gpu, &out, None).unwrap();
    let tensors = last(&out).tensors;
    let all = |end: &str| {
        tensors.iter().filter(move |(n, _)| n.starts_with("quant.") && n.ends_with(end)).collect::<Vec<_>>()
    };
    for (end, weights, activations) in [(".scale", 1.0 / 64.0, 0.125), (".inv_scale", 64.0, 8.0)] {
        let of_tensors = all(end).into_iter().filter(|(n, _)| !n.starts_with("quant.input."));
        let (of_weights, others): (Vec<_>, Vec<_>) = of_tensors.partition(|(n, _)| n.contains(".weight."));
        assert_eq!((of_weights.len(), others.len()), (10, 7));
        assert!(of_weights.iter().all(|(_, t)| t.data.iter().all(|v| *v == weights)), "{of_weights:?}");
        assert!(others.iter().all(|(_, t)| t.data == [activations]), "{others:?}");
    }
}

#[test]
fn without_quantized_epochs_calibration_alone_quantizes_the_network() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(32, 16));
    let out = folder.path().join("run");
    let config =
        tiny(&["train.float_epochs=1", "train.quant_epochs=0", "quant.weight_bits=8", "quant.activation_bits=8"]);
    assert_eq!(train(&config, &data, &gpu, &out, None).unwrap(), Outcome::Finished);
    let [line] = &lines(&out, "quant", "test")[..] else { panic!("one evaluation: {:#?}", metrics(&out)) };
    assert_eq!((&line["evaluation"], &line["epoch"]), (&json!("fake_quant"), &json!(0)));
    let loaded = Loaded::read(&out).unwrap();
    assert_eq!((loaded.checkpoint.meta.position.phase, loaded.quantized()), (Phase::Quant, true));
    let score = |kind| loaded.evaluate(kind, &data.test, data.classes, Some(&gpu)).unwrap().totals.mean_loss();
    assert!((score(Kind::FakeQuant) - line["loss"].as_f64().unwrap()).abs() < 1e-12);
    // Eight bits everywhere: near the float network, but not the same.
    let (float, quantized) = (score(Kind::Float), score(Kind::FakeQuant));
    assert!(float != quantized && (float - quantized).abs() < 0.1 * float, "float {float}, W8A8 {quantized}");
    let float = Checkpoint::read(&out.join("float.safetensors")).unwrap().tensors;
    let weights = |name: &&String| name.ends_with("weight") && !name.starts_with("momentum.");
    for name in float.keys().filter(weights) {
        assert_eq!(float[name], loaded.checkpoint.tensors[name], "{name}");
    }
    // And a run that is finished stays so.
    let before = std::fs::read(out.join("last.safetensors")).unwrap();
    assert_eq!(resume(&out, &config, &data).unwrap(), Outcome::Finished);
    assert!(before == std::fs::read(out.join("last.safetensors")).unwrap());
}

#[test]
fn validation_pictures_are_scored_in_place_of_the_test_pictures() {
    let (folder, gpu) = (tempfile::tempdir().unwrap(), gpu(false));
    let out = folder.path().join("run");
    let mut data = embedded(16, 8);
    data.val = Some(embedded(12, 0).train);
    let config = tiny(&["train.float_epochs=1", "train.quant_epochs=1"]);
    train(&config, &data, &gpu, &out, None).unwrap();
    assert_eq!((lines(&out, "float", "val").len(), lines(&out, "quant", "val").len()), (1, 1));
    assert_eq!(lines(&out, "float", "val")[0]["samples"], 12.0);
    assert_eq!(lines(&out, "float", "test").len() + lines(&out, "quant", "test").len(), 0);
}
