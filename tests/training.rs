//! Training as a whole: it learns, it repeats itself bit for bit, every option runs, and a run that goes wrong stops.

mod common;

use common::{embedded, go_on, gpu, last, lines, metrics, resume, tiny, train};
use cqat::config::{Config, presets};
use cqat::cpu::CpuDevice;
use cqat::data::DataSet;
use cqat::evaluate::{Kind, Loaded};
use cqat::exec::Device;
use cqat::gpu::Gpu;
use cqat::train::Outcome;
use cqat::{Error, ErrorKind};
use serde_json::json;

#[track_caller]
fn says(error: &Error, kind: ErrorKind, message: &str, hint: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(message), "message: {error}\nexpected: {message}");
    assert!(error.hint_text().unwrap_or_default().contains(hint), "hint: {:?}\nexpected: {hint}", error.hint_text());
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

#[test]
fn where_the_pictures_lie_changes_nothing() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(41, 8));
    let trained = |place: &str| {
        let out = folder.path().join(place);
        let config = tiny(&[&format!("device.pictures={place}"), "train.float_epochs=2", "train.quant_epochs=1"]);
        assert_eq!(common::lowered(&config, &data, &gpu).layout.resident.is_some(), place == "device");
        train(&config, &data, &gpu, &out, None).unwrap();
        last(&out).tensors
    };
    assert!(trained("host") == trained("device"));
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
const OPTIONS: [&[&str]; 16] = [
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
    &["quant.method=lsq", "quant.weights.granularity=per_channel", "train.accumulate=2", "quant.weights.pow2=true"],
    &[
        "quant.method=lsqplus",
        "train.optimizer={ema_decay: 0.9, clip_norm: 1, decay_norms_and_biases: true}",
        "quant.first_last=same",
        "quant.layers={layer1.0.conv1: {weight_bits: 2}, layer2.0.relu1: {activation_bits: 8}}",
    ],
    &[
        "quant.method=cqat-auto",
        "quant.weights={pow2: true, granularity: per_channel}",
        "quant.activations.pow2=true",
        "quant.layers={layer1.0.conv1: {weight_bits: 8}, layer2.0.relu1: {activation_bits: 2}}",
    ],
    &["quant.method=cqat-auto", "quant.learn_scales=false", "quant.freeze=never", "train.distill.weight=0.5"],
    &[
        "quant.method=ewgs",
        "quant.ewgs_delta=0.2",
        "quant.layers={layer1.0.conv1: {weight_bits: 3}, layer1.0.conv2: {weight_bits: 8}}",
        "train.distill={weight: 1, temperature: 2}",
    ],
];

#[test]
fn every_option_of_the_quantizers_trains() {
    let data = embedded(8, 4);
    for options in OPTIONS {
        let sets = [&["train.batch=4", "train.float_epochs=1", "train.quant_epochs=1"], options].concat();
        trains(&format!("{options:?}"), &tiny(&sets), &data);
    }
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
