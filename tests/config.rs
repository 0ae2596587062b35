//! The configuration as a user meets it: presets, overrides, round trips, and the whole text of every error.

use std::fmt::Write as _;
use std::path::Path;

use cqat::config::{
    CONDUCT_KEYS, Config, Estimator, FORMAT_VERSION, Freeze, Kernels, LayerBits, Mask, Method, Reduce, Schedule,
    presets,
};
use cqat::error::{Error, ErrorKind};
use cqat::integer::IntegerNet;
use cqat::setup::network;

#[path = "config/invalid.rs"]
mod invalid;
#[path = "config/reading.rs"]
mod reading;

fn sets(items: &[&str]) -> Vec<String> {
    items.iter().map(|s| s.to_string()).collect()
}

fn parse(yaml: &str) -> Config {
    Config::from_yaml(yaml, "run.yaml", &[]).unwrap_or_else(|e| panic!("{}", shown(&e)))
}

fn with_sets(items: &[&str]) -> Config {
    Config::from_yaml("", "run.yaml", &sets(items)).unwrap_or_else(|e| panic!("{}", shown(&e)))
}

/// An error as the program prints it.
fn shown(error: &Error) -> String {
    assert_eq!(error.kind(), ErrorKind::Config);
    let mut text = format!("error: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        write!(text, "\n  caused by: {cause}").unwrap();
        source = cause.source();
    }
    if let Some(hint) = error.hint_text() {
        write!(text, "\nhint: {hint}").unwrap();
    }
    text
}

#[test]
fn defaults_are_valid_and_an_empty_file_is_the_defaults() {
    Config::default().validate().unwrap();
    assert_eq!(parse(""), Config::default());
    assert_eq!(parse("# nothing yet\n"), Config::default());
    assert_eq!(parse("{}"), Config::default());
}

#[test]
fn presets_load_validate_and_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    for (name, description, yaml) in presets() {
        let config = Config::load(name, &[]).unwrap_or_else(|e| panic!("{name}: {}", shown(&e)));
        config.validate().unwrap_or_else(|e| panic!("{name}: {}", shown(&e)));
        assert_eq!(config.format_version, FORMAT_VERSION);
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, config.to_yaml().unwrap()).unwrap();
        assert_eq!(Config::load(path.to_str().unwrap(), &[]).unwrap(), config, "{name}");
        assert!(yaml.starts_with(&format!("# {name}: ")), "{name} opens with a comment");
        assert!(!description.is_empty() && !description.contains('\n'), "{name}");
    }
}

#[test]
fn every_file_in_configs_is_a_preset() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut on_disk: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_string())
        .collect();
    let mut embedded: Vec<String> = presets().iter().map(|(name, ..)| name.to_string()).collect();
    on_disk.sort();
    embedded.sort();
    assert_eq!(on_disk, embedded);
}

#[test]
fn every_quantized_preset_but_the_literal_one_can_become_integers() {
    for (name, ..) in presets() {
        let config = Config::load(name, &[]).unwrap();
        let (net, spec) = network(&config, 100).unwrap();
        let Some(spec) = spec else {
            assert_eq!(*name, "float");
            continue;
        };
        assert_eq!(IntegerNet::check(&net, &spec).is_ok(), *name != "cqat-literal", "{name}");
    }
}

#[test]
fn presets_say_what_their_names_promise() {
    let load = |name: &str| Config::load(name, &[]).unwrap();
    let cqat = load("cqat").quant;
    assert_eq!((cqat.weight_factor(5), cqat.activation_factor(4), cqat.weight_factor(8)), (4.0, 8.0, 1.0));
    assert_eq!((cqat.weight_mask(), cqat.activation_mask()), (Mask::Pass, Mask::Int));
    assert_eq!(load("paper").quant, cqat);
    assert_eq!(load("demo").quant, cqat);
    for name in ["cqat-literal", "cqat-calibrated"] {
        let quant = load(name).quant;
        assert_eq!((quant.weight_factor(2), quant.activation_factor(2)), (1.0, 1.0), "{name}");
    }
    assert_eq!(load("cqat-calibrated").quant.freeze, Freeze::AfterCalibration);
    let pow2 = load("cqat-pow2").quant;
    assert_eq!((pow2.weight_estimator(), pow2.weights.fixed_log2_scale), (Estimator::FixedPow2, -7));
    assert!(pow2.activations.pow2);
    let shift = load("cqat-shift");
    assert_eq!((shift.quant.weights.pow2, shift.quant.activations.pow2, shift.quant.pow2_norm), (true, true, true));
    assert_eq!((shift.quant.weight_factor(5), &shift.train), (4.0, &load("cqat").train));
    let minmax = load("minmax");
    assert_eq!((minmax.quant.method, minmax.quant.base(4)), (Method::Minmax, 4));
    assert_eq!(minmax.train, load("cqat").train, "the same recipe");
    assert_eq!((load("float").quant.method, load("float").train.quant_epochs), (Method::None, 0));
    let paper = load("paper");
    assert_eq!((paper.network.depth, paper.network.width, paper.network.classes), (18, 64, Some(100)));
    assert_eq!((paper.train.float_epochs, paper.train.quant_epochs), (200, 60));
}

#[test]
fn an_unusual_configuration_round_trips() {
    let config = parse(
        "
data: {dir: embedded, validation: 5000, augment: {cutout: 8}}
network: {depth: 20, width: 24, classes: 10}
train:
  seed: 18446744073709551615
  init_from: runs/float
  optimizer: {weight_decay: 1e-4, momentum: 0.87}
  float: {schedule: step, milestones: [0.3, 0.6, 0.8], gamma: 0.2}
quant:
  reduce: shift_round_saturate
  window_shift: 2
  first_last: same
  shortcut_bits: 6
  freeze: {after_epochs: 3}
  layers:
    layer1.0.conv1: {weight_bits: 4}
    layer1.0.relu1: {activation_bits: 3}
device: {memory_mib: 512, kernels: tiled}
",
    );
    config.validate().unwrap();
    assert_eq!(parse(&config.to_yaml().unwrap()), config);
    assert_eq!(config.quant.freeze, Freeze::AfterEpochs(3));
    assert_eq!(config.train.seed, u64::MAX);
    for freeze in [Freeze::Never, Freeze::AfterCalibration, Freeze::BeforeLastEpoch, Freeze::AfterEpochs(7)] {
        let mut config = config.clone();
        config.quant.freeze = freeze;
        assert_eq!(parse(&config.to_yaml().unwrap()), config);
    }
}

#[test]
fn a_missing_rate_takes_the_default_of_its_phase() {
    let config = parse("train: {float: {schedule: constant}, quant: {schedule: constant}}");
    assert_eq!((config.train.float.lr, config.train.quant.lr), (0.2, 0.02));
    assert_eq!((config.train.float.schedule, config.train.quant.schedule), (Schedule::Constant, Schedule::Constant));
    let only = with_sets(&["train.quant.gamma=0.5", "train.float.gamma=0.25"]).train;
    assert_eq!((only.quant.lr, only.quant.gamma, only.float.lr, only.float.gamma), (0.02, 0.5, 0.2, 0.25));
}

#[test]
fn overrides_apply_in_order_over_the_file() {
    let items = [
        "train.batch=64",
        "train.batch=32",
        "quant.freeze.after_epochs=2",
        "quant.layers.layer1.0.conv1.weight_bits=8",
        "quant.layers.layer2.0.downsample.0={weight_bits: 6}",
        "quant.layers.layer1.0.relu1.activation_bits=5",
        "device.kernels=lane",
        "train.float.milestones=[0.5, 0.75]",
        "train.init_from=runs/a=b",
        "quant.weights={estimator: mse}",
        "network.classes=null",
        "data.dir=123",
    ];
    let config = Config::load("paper", &sets(&items)).unwrap();
    config.validate().unwrap();
    assert_eq!((config.train.batch, config.quant.freeze), (32, Freeze::AfterEpochs(2)));
    let weights = |bits| LayerBits { weight_bits: Some(bits), activation_bits: None };
    assert_eq!(config.quant.layers["layer1.0.conv1"], weights(8));
    assert_eq!(config.quant.layers["layer2.0.downsample.0"], weights(6));
    assert_eq!(config.quant.layers["layer1.0.relu1"].activation_bits, Some(5));
    assert_eq!(config.device.kernels, Kernels::Lane);
    assert_eq!(config.train.float.milestones, [0.5, 0.75]);
    assert_eq!(config.train.init_from.as_deref(), Some(Path::new("runs/a=b")));
    assert_eq!((config.quant.weight_estimator(), config.quant.weight_mask()), (Estimator::Mse, Mask::Pass));
    assert_eq!((config.network.classes, config.data.dir.as_deref()), (None, Some("123")));
}

#[test]
fn a_map_for_a_section_changes_the_keys_that_it_has() {
    let config = with_sets(&["train.batch=40", "train.float.lr=0.3", "train={seed: 7, float: {schedule: constant}}"]);
    let t = &config.train;
    assert_eq!((t.seed, t.batch, t.float.lr, t.float.schedule), (7, 40, 0.3, Schedule::Constant));
    let freeze = with_sets(&["quant.freeze={after_epochs: 2}", "quant.freeze=never"]).quant.freeze;
    assert_eq!(freeze, Freeze::Never);
}

#[test]
fn post_training_quantization_and_training_from_scratch_are_allowed() {
    for group in [
        ["train.quant_epochs=0", "train.float_epochs=30"].as_slice(),
        &["train.quant_epochs=0", "train.float_epochs=0", "train.init_from=runs/float"],
        &["train.quant_epochs=3", "train.float_epochs=0"],
        &["quant.method=none", "train.quant_epochs=0"],
        &["quant.first_last=float", "quant.input=none"],
        &["quant.base_bits=6", "quant.first_last=same"],
        &["quant.reduce=shift_round_saturate", "quant.window_shift=3"],
    ] {
        with_sets(group).validate().unwrap_or_else(|e| panic!("{group:?}: {}", shown(&e)));
    }
    assert_eq!(with_sets(&["quant.reduce=drop_lsb_floor"]).quant.reduce, Reduce::DropLsbFloor);
}

/// The block in docs/configuration.md has every key, and each with its default.
#[test]
fn the_documented_configuration_is_the_default_one() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    let block = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the file has a block");
    let documented: serde_yaml::Value = serde_yaml::from_str(block).unwrap();
    let default: serde_yaml::Value = serde_yaml::from_str(&Config::default().to_yaml().unwrap()).unwrap();
    assert_eq!(documented, default);
}

/// A section with all its keys commented out is an empty one, with and without overrides.
#[test]
fn an_empty_section_is_the_default_one() {
    for text in ["quant:\n", "quant:\n  weights:\n", "train: {}\ndata:\n"] {
        for items in [&[][..], &["train.batch=32"]] {
            let config =
                Config::from_yaml(text, "test", &sets(items)).unwrap_or_else(|e| panic!("{text}{}", shown(&e)));
            assert_eq!(config.quant, Config::default().quant);
        }
    }
    let bits = "quant.layers.layer1.0.conv1.weight_bits=null";
    let config = Config::from_yaml("", "test", &sets(&[bits])).unwrap();
    assert_eq!(config.quant.layers["layer1.0.conv1"], LayerBits::default());
}

#[test]
fn how_a_run_is_carried_out_is_not_its_outcome() {
    for (key, value) in CONDUCT_KEYS.iter().zip(["99", "host", "7", "3"]) {
        let config = with_sets(&[&format!("{key}={value}")]);
        assert!(config != Config::default() && config.outcome() == Config::default(), "{key}");
    }
    assert_ne!(with_sets(&["train.seed=1"]).outcome(), Config::default());
}
