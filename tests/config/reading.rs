//! The whole text of every error of reading a configuration: files, overrides, presets.

use std::fmt::Write as _;

use cqat::config::Config;
use insta::assert_snapshot;

use super::{sets, shown, with_sets};

/// The errors of reading each text, one paragraph each.
fn file_errors(texts: &[&str]) -> String {
    let report = |text: &&str| match Config::from_yaml(text, "run.yaml", &[]) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => format!("{text}\n{}", shown(&error)),
    };
    texts.iter().map(report).collect::<Vec<_>>().join("\n\n")
}

/// The errors of applying each override to the defaults.
fn set_errors(items: &[&str]) -> String {
    let report = |item: &&str| match Config::from_yaml("", "run.yaml", &sets(&[item])) {
        Ok(_) => panic!("accepted: {item}"),
        Err(error) => shown(&error),
    };
    items.iter().map(report).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn unknown_keys_come_with_the_likely_one() {
    assert_snapshot!(file_errors(&[
        "quant:\n  weight_bit: 4",
        "trian: {}",
        "train:\n  float:\n    learning_rate: 0.1",
        "train:\n  weight_decay: 0.1",
        "quant:\n  estimator: max",
        "batch: 64",
        "quant:\n  layers:\n    layer1.0.conv1:\n      weigth_bits: 3",
        "quant:\n  freeze: {after_epoch: 3}",
        "network: {colour: red}",
    ]), @r#"
    quant:
      weight_bit: 4
    error: run.yaml:2:3: unknown key `weight_bit` in `quant`, expected method, weight_bits, activation_bits, base_bits, reduce, window_shift, weights, activations, first_last, input, pow2_norm, shortcut_bits, layers, calibration_batches, reestimate_batches, freeze, delay_epochs, learn_scales, pact_alpha, pact_decay or ewgs_delta
    hint: did you mean `weight_bits`?

    trian: {}
    error: run.yaml:1:1: unknown key `trian` at the top level, expected format_version, data, network, train, quant or device
    hint: did you mean `train`?

    train:
      float:
        learning_rate: 0.1
    error: run.yaml:3:5: unknown key `learning_rate` in `train.float`, expected lr, schedule, milestones, gamma, warmup_fraction or warmup_max_steps

    train:
      weight_decay: 0.1
    error: run.yaml:2:3: unknown key `weight_decay` in `train`, expected batch, accumulate, seed, float_epochs, quant_epochs, init_from, label_smoothing, distill, optimizer, float, quant, log_every or heartbeat_seconds
    hint: `weight_decay` goes under `train.optimizer`

    quant:
      estimator: max
    error: run.yaml:2:3: unknown key `estimator` in `quant`, expected method, weight_bits, activation_bits, base_bits, reduce, window_shift, weights, activations, first_last, input, pow2_norm, shortcut_bits, layers, calibration_batches, reestimate_batches, freeze, delay_epochs, learn_scales, pact_alpha, pact_decay or ewgs_delta
    hint: `estimator` goes under `quant.weights` or under `quant.activations`

    batch: 64
    error: run.yaml:1:1: unknown key `batch` at the top level, expected format_version, data, network, train, quant or device
    hint: `batch` goes under `train`

    quant:
      layers:
        layer1.0.conv1:
          weigth_bits: 3
    error: run.yaml:4:7: unknown key `weigth_bits` in `quant.layers.layer1.0.conv1`, expected weight_bits or activation_bits
    hint: did you mean `weight_bits`?

    quant:
      freeze: {after_epoch: 3}
    error: run.yaml:2:11: unknown key `after_epoch` in `quant.freeze`, expected after_epochs
    hint: did you mean `after_epochs`?

    network: {colour: red}
    error: run.yaml:1:11: unknown key `colour` in `network`, expected depth, width or classes
    "#);
}

#[test]
fn wrong_types_and_words_say_what_was_expected() {
    assert_snapshot!(file_errors(&[
        "train:\n  batch: many",
        "train:\n  batch: -1",
        "train:\n  batch: 1.5",
        "train:\n  batch: 5000000000",
        "train:\n  batch: null",
        "train:\n  seed: x",
        "train:\n  float: {lr: null}",
        "train:\n  float: {lr: fast}",
        "train:\n  float: {milestones: 0.5}",
        "train:\n  float: {milestones: [0.5, late]}",
        "train: 3",
        "train: [3]",
        "- train",
        "data:\n  augment: {flip: yes}",
        "data:\n  dir: 2024",
        "data:\n  dir: true",
        "data:\n  dir: [a]",
        "train:\n  init_from: 1.5",
        "train:\n  batch: 99999999999999999999",
        "quant:\n  weights: {fixed_log2_scale: 1.5}",
        "quant:\n  weights: {mask: integer}",
        "quant:\n  method: cqt",
        "quant:\n  method: {cqat: 1}",
        "quant:\n  freeze: after_calibraton",
        "quant:\n  freeze: after_epochs",
        "quant:\n  freeze: 3",
        "quant:\n  freeze: {}",
        "quant:\n  layers: {layer1.0.conv1: 4}",
    ]), @r#"
    train:
      batch: many
    error: run.yaml:2:10: `train.batch` is the text "many", expected a whole number from 0 to 4294967295

    train:
      batch: -1
    error: run.yaml:2:10: `train.batch` is -1, expected a whole number from 0 to 4294967295

    train:
      batch: 1.5
    error: run.yaml:2:10: `train.batch` is 1.5, expected a whole number from 0 to 4294967295

    train:
      batch: 5000000000
    error: run.yaml:2:10: `train.batch` is 5000000000, expected a whole number from 0 to 4294967295

    train:
      batch: null
    error: run.yaml:2:10: `train.batch` is empty, expected a whole number from 0 to 4294967295
    hint: remove the key to get its default, or give it a value

    train:
      seed: x
    error: run.yaml:2:9: `train.seed` is the text "x", expected a whole number, 0 or more

    train:
      float: {lr: null}
    error: run.yaml:2:15: `train.float.lr` is empty, expected a number
    hint: remove the key to get its default, or give it a value

    train:
      float: {lr: fast}
    error: run.yaml:2:15: `train.float.lr` is the text "fast", expected a number

    train:
      float: {milestones: 0.5}
    error: run.yaml:2:23: `train.float.milestones` is 0.5, expected a list

    train:
      float: {milestones: [0.5, late]}
    error: run.yaml:2:29: `train.float.milestones[1]` is the text "late", expected a number

    train: 3
    error: run.yaml:1:8: `train` is 3, expected a map of keys

    train: [3]
    error: run.yaml:1:8: `train` is a list, expected a map of keys

    - train
    error: run.yaml:1:1: the configuration is a list, expected a map of keys

    data:
      augment: {flip: yes}
    error: run.yaml:2:19: `data.augment.flip` is the text "yes", expected true or false
    hint: write true

    data:
      dir: 2024
    error: run.yaml:2:8: `data.dir` is 2024, expected text
    hint: put it in quotes: "2024"

    data:
      dir: true
    error: run.yaml:2:8: `data.dir` is boolean `true`, expected text
    hint: put it in quotes: "2024"

    data:
      dir: [a]
    error: run.yaml:2:8: `data.dir` is a list, expected text

    train:
      init_from: 1.5
    error: run.yaml:2:14: `train.init_from` is 1.5, expected text
    hint: put it in quotes: "2024"

    train:
      batch: 99999999999999999999
    error: run.yaml:2:10: `train.batch` is 99999999999999999999, expected a whole number from 0 to 4294967295

    quant:
      weights: {fixed_log2_scale: 1.5}
    error: run.yaml:2:31: `quant.weights.fixed_log2_scale` is 1.5, expected a whole number

    quant:
      weights: {mask: integer}
    error: run.yaml:2:19: `quant.weights.mask` is `integer`, expected int, real, base8 or pass

    quant:
      method: cqt
    error: run.yaml:2:11: `quant.method` is `cqt`, expected none, cqat, cqat-auto, minmax, dorefa, pact, lsq, lsqplus or ewgs
    hint: did you mean `cqat`?

    quant:
      method: {cqat: 1}
    error: run.yaml:2:11: `quant.method` is a map of keys, expected a single word

    quant:
      freeze: after_calibraton
    error: run.yaml:2:11: `quant.freeze` is `after_calibraton`, expected never, after_calibration, before_last_epoch or after_epochs
    hint: did you mean `after_calibration`?

    quant:
      freeze: after_epochs
    error: run.yaml:2:11: `quant.freeze`: after_epochs needs a number, as in {after_epochs: 3}

    quant:
      freeze: 3
    error: run.yaml:2:11: `quant.freeze` is 3, expected never, after_calibration, before_last_epoch or a map such as {after_epochs: 3}

    quant:
      freeze: {}
    error: run.yaml:2:11: `quant.freeze` is a map of keys, expected never, after_calibration, before_last_epoch or a map such as {after_epochs: 3}

    quant:
      layers: {layer1.0.conv1: 4}
    error: run.yaml:2:28: `quant.layers.layer1.0.conv1` is 4, expected a map of keys
    "#);
}

#[test]
fn broken_yaml_names_the_place() {
    assert_snapshot!(file_errors(&[
        "train: [1\nquant: 3",
        "train:\n\tbatch: 3",
        "train: {}\ntrain: {}",
        "train:\n  batch: 1\n  batch: 2",
        "quant:\n  layers: {fc: {}, fc: {}}",
        "train: {}\n---\ntrain: {}",
        "train: *missing",
        "format_version: 2\nnew_section: {}",
    ]), @r#"
    train: [1
    quant: 3
    error: run.yaml:2:6: did not find expected ',' or ']', while parsing a flow sequence at line 1 column 8
    hint: fix the YAML: indent with spaces, one `key: value` on a line

    train:
    	batch: 3
    error: run.yaml:2:1: found character that cannot start any token, while scanning for the next token
    hint: fix the YAML: indent with spaces, one `key: value` on a line

    train: {}
    train: {}
    error: run.yaml:1:1: the key `train` occurs twice at the top level, expected once
    hint: remove one of them

    train:
      batch: 1
      batch: 2
    error: run.yaml:2:3: the key `batch` occurs twice in `train`, expected once
    hint: remove one of them

    quant:
      layers: {fc: {}, fc: {}}
    error: run.yaml:2:11: the key `fc` occurs twice in `quant.layers`, expected once
    hint: remove one of them

    train: {}
    ---
    train: {}
    error: run.yaml: more than one YAML document, expected one
    hint: remove the `---` between them, or split the file

    train: *missing
    error: run.yaml:1:8: an alias without an anchor of its name
    hint: quote a value that starts with `*`

    format_version: 2
    new_section: {}
    error: run.yaml has format_version 2, expected at most 1: a newer program wrote it
    hint: use the program that wrote the file, or a newer one
    "#);
}

#[test]
fn aliases_and_nesting_are_bounded() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
    for i in 1..9 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        writeln!(bomb, "a{i}: &a{i} [{aliases}]").unwrap();
    }
    let deep = format!("train: {}{}", "[".repeat(1000), "]".repeat(1000));
    let deeper = format!("train: {}", "[".repeat(100_000));
    let errors = [bomb, deep, deeper].map(|text| shown(&Config::from_yaml(&text, "run.yaml", &[]).unwrap_err()));
    assert_snapshot!(errors.join("\n\n"), @r#"
    error: run.yaml:1:1: unknown key `a0` at the top level, expected format_version, data, network, train, quant or device

    error: run.yaml: brackets nested more than 64 deep
    hint: close every [ and {; a configuration needs three levels

    error: run.yaml: brackets nested more than 64 deep
    hint: close every [ and {; a configuration needs three levels
    "#);
}

#[test]
fn a_wrong_override_is_named() {
    assert_snapshot!(set_errors(&[
        "quant.weight_bit=4",
        "trian.batch=4",
        "train.batch=many",
        "train.batch.size=4",
        "train.batch",
        "=4",
        "train..batch=4",
        "train.batch=[1",
        "train.batch=[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
        "quant.weights={estimatr: max}",
        "quant.layers.layer1.0.conv1=4",
        "quant.layers.layer1.0.conv1.bits=4",
        "quant.method=cqt",
        "train=null",
    ]), @r#"
    error: --set quant.weight_bit=4: unknown key `weight_bit` in `quant`, expected method, weight_bits, activation_bits, base_bits, reduce, window_shift, weights, activations, first_last, input, pow2_norm, shortcut_bits, layers, calibration_batches, reestimate_batches, freeze, delay_epochs, learn_scales, pact_alpha, pact_decay or ewgs_delta
    hint: did you mean `weight_bits`?

    error: --set trian.batch=4: unknown key `trian` at the top level, expected format_version, data, network, train, quant or device
    hint: did you mean `train`?

    error: --set train.batch=many: `train.batch` is the text "many", expected a whole number from 0 to 4294967295

    error: --set train.batch.size=4: `train.batch` is a map of keys, expected a whole number from 0 to 4294967295

    error: --set train.batch: expected key.path=value
    hint: such as train.batch=64

    error: --set =4: the key `` has an empty part, expected key.path=value
    hint: such as train.batch=64

    error: --set train..batch=4: the key `train..batch` has an empty part, expected key.path=value
    hint: such as train.batch=64

    error: --set train.batch=[1: the value of `train.batch` is not valid YAML
      caused by: did not find expected ',' or ']' at line 2 column 1, while parsing a flow sequence
    hint: write a number, a word, a list [0.5, 0.75] or a map {weight_bits: 8}, quoted for the shell

    error: --set train.batch: brackets nested more than 64 deep
    hint: close every [ and {; a configuration needs three levels

    error: --set quant.weights={estimatr: max}: unknown key `estimatr` in `quant.weights`, expected estimator, range_factor, scale_with_bits, pow2, granularity, narrow, mask, percentile, sigmas or fixed_log2_scale
    hint: did you mean `estimator`?

    error: --set quant.layers.layer1.0.conv1=4: unknown key `conv1` in `quant.layers.layer1.0`, expected weight_bits or activation_bits
    hint: name the layer, then its bits: quant.layers.layer1.0.conv1.weight_bits=8

    error: --set quant.layers.layer1.0.conv1.bits=4: unknown key `bits` in `quant.layers.layer1.0.conv1`, expected weight_bits or activation_bits
    hint: name the layer, then its bits: quant.layers.layer1.0.conv1.weight_bits=8

    error: --set quant.method=cqt: `quant.method` is `cqt`, expected none, cqat, cqat-auto, minmax, dorefa, pact, lsq, lsqplus or ewgs
    hint: did you mean `cqat`?

    error: --set train=null: `train` is empty, expected a map of keys
    hint: remove the key to get its default, or give it a value
    "#);
}

#[test]
fn the_second_of_two_overrides_is_blamed_when_it_is_the_wrong_one() {
    let error = Config::from_yaml("", "run.yaml", &sets(&["train.batch=4", "train.bach=4"])).unwrap_err();
    assert_snapshot!(shown(&error), @r#"
    error: --set train.bach=4: unknown key `bach` in `train`, expected batch, accumulate, seed, float_epochs, quant_epochs, init_from, label_smoothing, distill, optimizer, float, quant, log_every or heartbeat_seconds
    hint: did you mean `batch`?
    "#);
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    std::fs::write(path("large.yaml"), "#".repeat((1 << 20) + 1)).unwrap();
    std::fs::write(path("binary.yaml"), b"train:\xff").unwrap();
    std::fs::write(path("wrong.yaml"), "quant:\n  weight_bit: 4\n").unwrap();
    std::fs::write(path("fits.yaml"), "#".repeat(1 << 20)).unwrap();
    assert_eq!(Config::load(&path("fits.yaml"), &[]).unwrap(), Config::default());
    let specs = [path("large.yaml"), path("binary.yaml"), path("wrong.yaml"), path("missing.yaml"), path("")];
    let names = ["cqat-litteral".to_string(), "resnet".to_string(), String::new(), "a\0b".to_string()];
    let errors: Vec<String> =
        specs.iter().chain(&names).map(|spec| shown(&Config::load(spec, &[]).unwrap_err())).collect();
    let text = errors.join("\n\n").replace(folder.path().to_str().unwrap(), "FOLDER").replace('\0', "NUL");
    assert_snapshot!(text, @r#"
    error: `FOLDER/large.yaml` is larger than 1 MiB, expected a configuration of a few KiB
    hint: check that the path names a configuration, not a data set or checkpoint

    error: `FOLDER/binary.yaml` is not UTF-8 text (byte 6)
    hint: check that the path names a configuration and save it as UTF-8

    error: FOLDER/wrong.yaml:2:3: unknown key `weight_bit` in `quant`, expected method, weight_bits, activation_bits, base_bits, reduce, window_shift, weights, activations, first_last, input, pow2_norm, shortcut_bits, layers, calibration_batches, reestimate_batches, freeze, delay_epochs, learn_scales, pact_alpha, pact_decay or ewgs_delta
    hint: did you mean `weight_bits`?

    error: `FOLDER/missing.yaml` is neither a file nor a preset
    hint: presets: demo, cqat, paper, float, cqat-calibrated, cqat-pow2, cqat-shift, cqat-auto, minmax, dorefa, pact, lsq, lsqplus, ewgs, cqat-literal

    error: `FOLDER/` is a folder, expected a YAML file or the name of a preset
    hint: name the .yaml file inside it

    error: `cqat-litteral` is neither a file nor a preset
    hint: did you mean the preset `cqat-literal`?

    error: `resnet` is neither a file nor a preset
    hint: presets: demo, cqat, paper, float, cqat-calibrated, cqat-pow2, cqat-shift, cqat-auto, minmax, dorefa, pact, lsq, lsqplus, ewgs, cqat-literal

    error: `` is neither a file nor a preset
    hint: presets: demo, cqat, paper, float, cqat-calibrated, cqat-pow2, cqat-shift, cqat-auto, minmax, dorefa, pact, lsq, lsqplus, ewgs, cqat-literal

    error: cannot read the configuration `aNULb`
      caused by: file name contained an unexpected NUL byte
    hint: check the file's permissions
    "#);
}

#[test]
fn paths_may_look_like_numbers() {
    let config = with_sets(&["data.dir=2024", "train.init_from=2025", "train.distill.teacher=2026"]);
    let paths = (config.data.dir.as_deref(), config.train.init_from, config.train.distill.teacher);
    assert_eq!(paths, (Some("2024"), Some("2025".into()), Some("2026".into())));
}
