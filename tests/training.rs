//! Training as a whole: it learns, it repeats itself bit for bit, every option runs, and a run that goes wrong stops.

mod common;

use std::path::Path;

use common::{embedded, gpu, last, lowered, metrics, tiny, train};
use cqat::checkpoint::{Checkpoint, Phase};
use cqat::config::{Config, presets};
use cqat::cpu::CpuDevice;
use cqat::data::DataSet;
use cqat::evaluate::{Kind, Loaded};
use cqat::exec::Device;
use cqat::gpu::Gpu;
use cqat::run::RunFolder;
use cqat::safetensors_io::Tensors;
use cqat::session::Session;
use cqat::train::{Outcome, Trainer};
use cqat::{Error, ErrorKind};
use serde_json::{Value, json};

/// Lines of one phase and split, in order.
fn lines(run: &Path, phase: &str, split: &str) -> Vec<Value> {
    let wanted = |l: &Value| l["kind"] == "epoch" && l["phase"] == phase && l["split"] == split;
    metrics(run).into_iter().filter(wanted).collect()
}

#[track_caller]
fn says(error: &Error, kind: ErrorKind, message: &str, hint: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(message), "message: {error}\nexpected: {message}");
    assert!(error.hint_text().unwrap_or_default().contains(hint), "hint: {:?}\nexpected: {hint}", error.hint_text());
}

/// Resumes the run in `out` from a checkpoint, to its end.
fn go_on(out: &Path, from: Checkpoint, config: &Config, data: &DataSet) -> cqat::Result<Outcome> {
    let gpu = gpu(false);
    let lowered = lowered(config, data, &gpu);
    Trainer::resume(config, data, &gpu, &lowered, RunFolder::open(out)?, from, true)?.run(None)
}

/// Resumes the run in `out` from its last checkpoint, to its end.
fn resume(out: &Path, config: &Config, data: &DataSet) -> cqat::Result<Outcome> {
    go_on(out, last(out), config, data)
}

#[test]
fn a_tiny_network_learns_64_pictures_by_heart() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(64, 8));
    let out = folder.path().join("run");
    let config = tiny(&[
        "train.float_epochs=30",
        "train.quant_epochs=4",
        "train.float.lr=0.1",
        "train.quant.lr=0.02",
        "train.label_smoothing=0",
        "train.optimizer.weight_decay=0",
        "data.augment={crop_padding: 0, flip: false}",
    ]);
    assert_eq!(train(&config, &data, &gpu, &out, None).unwrap(), Outcome::Finished);
    let score = |file: &str, kind, split| {
        let loaded = Loaded::read(&out.join(file)).unwrap();
        loaded.evaluate(kind, split, data.classes, Some(&gpu)).unwrap()
    };
    let float = score("float.safetensors", Kind::Float, &data.train);
    assert_eq!(float.totals.top1_percent(), 100.0, "float: {:?}", float.totals);
    assert!(float.predictions.iter().zip(&data.train.labels).all(|(p, l)| *p == u32::from(*l)));
    let quantized = score("last.safetensors", Kind::FakeQuant, &data.train);
    assert!(quantized.totals.top1_percent() >= 95.0, "W5A4: {:?}", quantized.totals);
    // What the metrics said of the test pictures is what the checkpoints score.
    for (phase, epochs, file, kind) in
        [("float", 30, "float.safetensors", Kind::Float), ("quant", 4, "last.safetensors", Kind::FakeQuant)]
    {
        let lines = lines(&out, phase, "test");
        assert_eq!(lines.len(), epochs);
        let (line, scored) = (lines.last().unwrap(), score(file, kind, &data.test).totals);
        assert_eq!((&line["evaluation"], &line["top1"]), (&json!(kind.name()), &json!(scored.top1_percent())));
        assert_eq!(line["loss"], json!(scored.mean_loss()), "{phase}");
    }
}

/// The trainer knows devices only by their trait: the CPU reference trains the same network to the same losses.
#[test]
fn the_cpu_reference_trains_as_the_device_does() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(24, 8));
    let config = tiny(&["train.float_epochs=1", "train.quant_epochs=1"]);
    let cpu = CpuDevice::new(gpu.caps.clone());
    let devices: [(&str, &dyn Device); 2] = [("cpu", &cpu), ("gpu", &gpu)];
    let [cpu, gpu] = devices.map(|(name, device)| {
        let out = folder.path().join(name);
        assert_eq!(train(&config, &data, device, &out, None).unwrap(), Outcome::Finished);
        let of = |phase, split| lines(&out, phase, split)[0]["loss"].as_f64().unwrap();
        [of("float", "train"), of("float", "test"), of("quant", "train"), of("quant", "test")]
    });
    for (a, b) in cpu.iter().zip(&gpu) {
        // A value on a rounding edge falls either way.
        assert!((a - b).abs() < 0.02 * b, "{cpu:?} and {gpu:?}");
    }
}

#[test]
fn the_seed_decides_every_bit() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(32, 8));
    let mut split = common::gpu(false);
    split.caps.submission_flops = 1; // a submission for every dispatch that multiplies
    let run = |gpu: &Gpu, name: &str, seed: &str| {
        let out = folder.path().join(name);
        let config = tiny(&["train.float_epochs=1", "train.quant_epochs=1", &format!("train.seed={seed}")]);
        train(&config, &data, gpu, &out, None).unwrap();
        (last(&out).tensors, metrics(&out))
    };
    let (a, b, other) = (run(&gpu, "a", "5"), run(&gpu, "b", "5"), run(&gpu, "c", "6"));
    assert!(a == b, "two runs with one seed differ");
    assert!(a == run(&split, "d", "5"), "a step in many submissions differs");
    assert!(a.0["conv1.weight"] != other.0["conv1.weight"]);
    assert!(a.1 != other.1);
}

/// One epoch in float and one quantized, of two steps each, under `config`.
fn trains(name: &str, config: &Config, data: &DataSet) {
    let (folder, gpu) = (tempfile::tempdir().unwrap(), gpu(false));
    let out = folder.path().join("run");
    train(config, data, &gpu, &out, None).unwrap_or_else(|e| panic!("{name}: {e}"));
    let checkpoint = last(&out);
    assert!(checkpoint.tensors.values().all(|t| t.is_finite()), "{name}");
    let epochs = config.train.float_epochs + config.train.quant_epochs;
    let losses: Vec<f64> =
        metrics(&out).iter().filter(|l| l["kind"] == "epoch").map(|l| l["loss"].as_f64().unwrap()).collect();
    assert_eq!(losses.len(), 2 * epochs as usize, "{name}");
    assert!(losses.iter().all(|l| *l > 0.0 && *l < 20.0), "{name}: {losses:?}");
}

#[test]
fn every_preset_trains() {
    let data = embedded(8, 4);
    for (name, ..) in presets() {
        let mut config = Config::load(name, &[]).unwrap();
        (config.network.depth, config.network.width, config.network.classes) = (8, 8, Some(10));
        (config.train.batch, config.train.float_epochs) = (4, 1);
        config.train.quant_epochs = config.train.quant_epochs.min(1);
        trains(name, &config, &data);
    }
}

/// Every value of every option of the quantizers at least once.
const OPTIONS: [&[&str]; 11] = [
    &["quant.reduce=drop_lsb_floor", "quant.weights.estimator=percentile", "quant.activations.estimator=percentile"],
    &["quant.reduce=drop_lsb_round", "quant.weights.estimator=k_sigma", "quant.activations.estimator=k_sigma"],
    &[
        "quant.reduce=shift_round_saturate",
        "quant.window_shift=2",
        "quant.weights.estimator=mse",
        "quant.activations.estimator=mse",
    ],
    &["quant.weights.estimator=fixed_pow2", "quant.activations.estimator=fixed_pow2", "quant.freeze=never"],
    &[
        "quant.activations.estimator=max",
        "quant.weights.granularity=per_channel",
        "quant.weights.mask=real",
        "quant.activations.mask=real",
    ],
    &[
        "quant.activations={source: batch, estimator: max}",
        "quant.weights={granularity: per_channel, estimator: mse, mask: base8}",
        "quant.activations.mask=base8",
    ],
    &[
        "quant.weights={granularity: per_channel, estimator: k_sigma, mask: pass}",
        "quant.activations.mask=pass",
        "quant.first_last=same",
    ],
    &["quant.first_last=float", "quant.input=none", "quant.weights.narrow=true", "quant.freeze=after_calibration"],
    &[
        "quant.weights.pow2=true",
        "quant.activations.pow2=true",
        "train.quant_epochs=2",
        "quant.freeze={after_epochs: 1}",
    ],
    &[
        "train.quant_epochs=2",
        "quant.delay_epochs=1",
        "quant.input=none",
        "quant.shortcut_bits=8",
        "quant.calibration_batches=1",
    ],
    &[
        "quant.base_bits=6",
        "quant.first_last=same",
        "quant.weight_bits=2",
        "quant.activation_bits=3",
        "quant.layers.layer1.0.conv1.weight_bits=6",
        "quant.layers.layer1.0.relu1.activation_bits=2",
    ],
];

#[test]
fn every_option_of_the_quantizers_trains() {
    let data = embedded(8, 4);
    for options in OPTIONS {
        let sets = [&["train.batch=4", "train.float_epochs=0", "train.quant_epochs=1"], options].concat();
        trains(&format!("{options:?}"), &tiny(&sets), &data);
    }
}

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
fn a_loss_that_is_not_finite_stops_and_names_the_layer() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(32, 8));
    let out = folder.path().join("run");
    let config = tiny(&["train.float.lr=1e30", "train.float.warmup_fraction=0", "train.float_epochs=2"]);
    let error = train(&config, &data, &gpu, &out, None).unwrap_err();
    says(
        &error,
        ErrorKind::Training,
        "the loss is not finite: the batch statistics of layer conv1 went first, in step 2",
        "lower train.float.lr",
    );
    let kept = last(&out);
    assert_eq!(kept.meta.position.global_step, 0);
    assert!(kept.tensors.values().all(|t| t.is_finite()));
}

/// One step an epoch, with a fine loss: the update is what overflows, or leaves weights that cannot be evaluated.
#[test]
fn an_update_that_ruins_the_weights_does_not_reach_the_checkpoint() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(8, 8));
    for (decay, message, hint) in [
        ("1000", "is not finite: it went first, in the update of step 1", "the last checkpoint is intact"),
        ("0", "the loss of the evaluation is not finite", "a lower learning rate"),
    ] {
        let out = folder.path().join(decay);
        let decay = format!("train.optimizer.weight_decay={decay}");
        let sets = ["train.float.lr=3e38", "train.float.warmup_fraction=0", "train.float_epochs=2", &decay];
        let error = train(&tiny(&sets), &data, &gpu, &out, None).unwrap_err();
        says(&error, ErrorKind::Training, message, hint);
        let kept = last(&out);
        assert_eq!((kept.meta.position.epoch, kept.meta.position.global_step), (0, 0));
        assert_eq!(lines(&out, "float", "test").len(), 0, "no accuracy is reported for such weights");
    }
}

#[test]
fn poisoned_weights_are_found_in_the_layer_that_has_them() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(16, 8));
    let out = folder.path().join("run");
    let config = tiny(&["train.float_epochs=2", "train.quant_epochs=0", "quant.method=none"]);
    train(&config, &data, &gpu, &out, Some(1)).unwrap();
    let good = last(&out);
    let poisoned = || {
        let mut bad = good.clone();
        bad.tensors.get_mut("layer2.0.conv1.weight").unwrap().data[7] = f32::NAN;
        bad
    };
    let error = go_on(&out, poisoned(), &config, &data).unwrap_err();
    says(
        &error,
        ErrorKind::Training,
        "the loss is not finite: the batch statistics of layer layer2.0.conv1 went first, in step 3",
        "lower train.float.lr",
    );
    assert_eq!(last(&out).tensors, good.tensors);
    let file = folder.path().join("poisoned.safetensors");
    poisoned().write(&file).unwrap();
    let message = "poisoned.safetensors: layer2.0.conv1.weight holds values that are not finite";
    says(&Loaded::read(&file).err().unwrap(), ErrorKind::Training, message, "use another checkpoint");
    let start = tiny(&[&format!("train.init_from={}", file.display())]);
    let error = train(&start, &data, &gpu, &folder.path().join("new"), None).unwrap_err();
    says(&error, ErrorKind::Training, message, "use another checkpoint");
    assert!(!folder.path().join("new").exists());
    // The last good checkpoint still works.
    assert_eq!(resume(&out, &config, &data).unwrap(), Outcome::Finished);
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
