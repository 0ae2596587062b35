//! The whole text of every error of validation.

use cqat::setup;
use insta::assert_snapshot;

use super::{shown, with_sets};

/// The errors of validating the defaults with each group of overrides.
fn invalid(groups: &[&[&str]]) -> String {
    let report = |group: &&[&str]| match setup::check(&with_sets(group)) {
        Ok(()) => panic!("valid: {group:?}"),
        Err(error) => format!("{}\n{}", group.join(" "), shown(&error)),
    };
    groups.iter().map(report).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn impossible_data_and_networks_are_refused() {
    assert_snapshot!(invalid(&[
        &["format_version=0"],
        &["data.dir=''"],
        &["data.augment.crop_padding=17"],
        &["data.augment.cutout=32"],
        &["data.size=20"],
        &["data.size=16", "data.augment.cutout=16"],
        &["data.test_fraction=1"],
        &["data.subset=0"],
        &["network.depth=50"],
        &["network.width=0"],
        &["network.width=20"],
        &["network.width=4000000000"],
        &["network.classes=1"],
        &["device.memory_mib=0"],
    ]), @r#"
    format_version=0
    error: `format_version` is 0, expected 1
    hint: use the program that wrote the file, or remove the key

    data.dir=''
    error: `data.dir` is empty, expected a folder or `embedded`
    hint: remove the key, or name the folder of the data set

    data.augment.crop_padding=17
    error: `data.augment.crop_padding` is 17, expected 0 to 16 pixels
    hint: pictures are 32 pixels wide: data.size

    data.augment.cutout=32
    error: `data.augment.cutout` is 32, expected 0 to 31 pixels
    hint: pictures are 32 pixels wide: data.size

    data.size=20
    error: `data.size` is 20, expected a multiple of 8 from 16 to 256 pixels
    hint: 32 is the size of CIFAR's pictures

    data.size=16 data.augment.cutout=16
    error: `data.augment.cutout` is 16, expected 0 to 15 pixels
    hint: pictures are 16 pixels wide: data.size

    data.test_fraction=1
    error: `data.test_fraction` is 1, expected above 0 and below 1
    hint: 0.2 is the default

    data.subset=0
    error: `data.subset` is 0, expected at least 1 training picture
    hint: remove the key to train on all of them

    network.depth=50
    error: `network.depth` is 50, expected 8, 10, 18, 20, 32, 34, 44 or 56
    hint: 18 is the paper's network, 8 the quickest

    network.width=0
    error: `network.width` is 0, expected a multiple of 8 from 8 to 1024
    hint: 8 would do

    network.width=20
    error: `network.width` is 20, expected a multiple of 8 from 8 to 1024
    hint: 16 would do

    network.width=4000000000
    error: `network.width` is 4000000000, expected a multiple of 8 from 8 to 1024
    hint: 1024 would do

    network.classes=1
    error: `network.classes` is 1, expected 2 to 1048576
    hint: remove the key to take the number of classes from the data set

    device.memory_mib=0
    error: `device.memory_mib` is 0, expected at least 1 MiB
    hint: remove the key to use what the device reports
    "#);
}

#[test]
fn impossible_training_is_refused() {
    assert_snapshot!(invalid(&[
        &["train.batch=0"],
        &["train.batch=65537"],
        &["train.accumulate=0"],
        &["train.accumulate=257"],
        &["train.optimizer.ema_decay=1"],
        &["train.log_every=0"],
        &["train.heartbeat_seconds=1e20"],
        &["train.label_smoothing=1"],
        &["train.init_from=''"],
        &["train.optimizer.momentum=1"],
        &["train.optimizer.momentum=0"],
        &["train.optimizer.weight_decay=-1"],
        &["train.optimizer.weight_decay=.inf"],
        &["train.float.lr=0"],
        &["train.quant.lr=.nan"],
        &["train.float.lr=1e60"],
        &["train.float.gamma=0"],
        &["train.quant.warmup_fraction=1.5"],
        &["train.float.milestones=[0.5, 0.5]"],
        &["train.float.milestones=[30, 60]"],
        &["train.float.schedule=step"],
    ]), @r#"
    train.batch=0
    error: `train.batch` is 0, expected 1 to 65536
    hint: 128 is the recipe's batch; lower it where memory is short

    train.batch=65537
    error: `train.batch` is 65537, expected 1 to 65536
    hint: 128 is the recipe's batch; lower it where memory is short

    train.accumulate=0
    error: `train.accumulate` is 0, expected 1 to 256 batches
    hint: 1, the default, moves the parameters after every batch

    train.accumulate=257
    error: `train.accumulate` is 257, expected 1 to 256 batches
    hint: 1, the default, moves the parameters after every batch

    train.optimizer.ema_decay=1
    error: `train.optimizer.ema_decay` is 1, expected above 0 and below 1
    hint: remove the key to keep no averages; 0.99 to 0.9999 is usual

    train.log_every=0
    error: `train.log_every` is 0, expected 1 to 256 steps
    hint: 20 is the default

    train.heartbeat_seconds=1e20
    error: `train.heartbeat_seconds` is 100000000000000000000, expected 0 to 86400
    hint: 30 is the default

    train.label_smoothing=1
    error: `train.label_smoothing` is 1, expected at least 0 and below 1
    hint: 0 switches it off, 0.1 is the default

    train.init_from=''
    error: `train.init_from` is empty, expected a run folder or a .safetensors file
    hint: remove the key to start from random weights

    train.optimizer.momentum=1
    error: `train.optimizer.momentum` is 1, expected at least 0 and below 1
    hint: 0 switches it off, 0.9 is the default

    train.optimizer.momentum=0
    error: `train.optimizer.nesterov` is true with momentum 0, expected a momentum above 0
    hint: set train.optimizer.nesterov=false or raise train.optimizer.momentum

    train.optimizer.weight_decay=-1
    error: `train.optimizer.weight_decay` is -1, expected a finite number, 0 or more
    hint: 0 switches it off, 0.0005 is the default

    train.optimizer.weight_decay=.inf
    error: `train.optimizer.weight_decay` is inf, expected a finite number, 0 or more
    hint: 0 switches it off, 0.0005 is the default

    train.float.lr=0
    error: `train.float.lr` is 0, expected a finite number above 0
    hint: 0.2 (float) and 0.02 (quantized) suit batches of 128

    train.quant.lr=.nan
    error: `train.quant.lr` is NaN, expected a finite number above 0
    hint: 0.2 (float) and 0.02 (quantized) suit batches of 128

    train.float.lr=1e60
    error: `train.float.lr` is inf, expected a finite number above 0
    hint: 0.2 (float) and 0.02 (quantized) suit batches of 128

    train.float.gamma=0
    error: `train.float.gamma` is 0, expected above 0 and at most 1
    hint: the rate is multiplied by it at every milestone

    train.quant.warmup_fraction=1.5
    error: `train.quant.warmup_fraction` is 1.5, expected a fraction from 0 to 1
    hint: 0 switches warm-up off, 0.1 is the default

    train.float.milestones=[0.5, 0.5]
    error: `train.float.milestones` is [0.5, 0.5], expected ascending fractions between 0 and 1
    hint: fractions of the phase, not epochs: [0.3, 0.6, 0.8]

    train.float.milestones=[30, 60]
    error: `train.float.milestones` is [30.0, 60.0], expected ascending fractions between 0 and 1
    hint: fractions of the phase, not epochs: [0.3, 0.6, 0.8]

    train.float.schedule=step
    error: `train.float.schedule` is step without milestones, expected at least one
    hint: add train.float.milestones, such as [0.3, 0.6, 0.8], or use the schedule constant
    "#);
}

#[test]
fn impossible_quantizers_are_refused() {
    assert_snapshot!(invalid(&[
        &["quant.base_bits=9"],
        &["quant.base_bits=6"],
        &["quant.weight_bits=1"],
        &["quant.activation_bits=9"],
        &["quant.base_bits=4", "quant.first_last=same"],
        &["quant.shortcut_bits=16"],
        &["quant.layers.fc.weight_bits=0"],
        &["quant.layers.layer1.0.relu1.weight_bits=4"],
        &["quant.layers.layer1.0.conv1.activation_bits=4"],
        &["quant.layers.layer2.0.downsample.0.activation_bits=4"],
        &["quant.layers.stem.weight_bits=4"],
        &["quant.layers.pool.activation_bits=4"],
        &["network.depth=8", "quant.layers.layer1.1.conv1.weight_bits=4"],
        &["quant.reduce=shift_round_saturate"],
        &["quant.window_shift=2"],
        &["quant.reduce=shift_round_saturate", "quant.window_shift=5"],
        &["quant.reduce=shift_round_saturate", "quant.window_shift=6", "quant.layers.fc.weight_bits=3"],
        &["quant.method=minmax", "quant.reduce=drop_lsb_round"],
        &["quant.method=lsq", "quant.window_shift=2", "quant.reduce=shift_round_saturate"],
        &["quant.learn_scales=true"],
        &["quant.method=dorefa", "quant.weights.estimator=max"],
        &["quant.method=pact", "quant.activations.pow2=true"],
        &["quant.method=cqat-auto", "quant.activations.estimator=percentile"],
        &["quant.method=lsq", "quant.activations={source: batch, estimator: max}"],
        &["quant.weights.estimator=mean_abs"],
        &["quant.method=pact", "quant.pact_alpha=0"],
        &["quant.method=ewgs", "quant.ewgs_delta=-1"],
        &["train.distill.weight=2"],
        &["train.distill={weight: 0.5, temperature: 0}"],
        &["train.distill={weight: 0.5, teacher: ''}"],
        &["quant.method=none", "train.quant_epochs=0", "train.distill.weight=0.5"],
        &["quant.first_last=float"],
        &["quant.weights.estimator=ema_max"],
        &["quant.weights.estimator=fixed_pow2", "quant.weights.granularity=per_channel"],
        &["quant.weights.range_factor=0"],
        &["quant.activations.range_factor=0.5"],
        &["quant.activations.source=batch"],
        &["quant.activations.ema_momentum=1"],
        &["quant.activations.percentile=99.99"],
        &["quant.weights.sigmas=0"],
        &["quant.activations.fixed_log2_scale=31"],
    ]), @r#"
    quant.base_bits=9
    error: `quant.base_bits` is 9, expected 4 to 8 bits
    hint: 8 is the default and the paper's

    quant.base_bits=6
    error: `quant.first_last` is eight with quant.base_bits 6, expected 8 base bits
    hint: set quant.first_last=same, or quant.base_bits=8

    quant.weight_bits=1
    error: `quant.weight_bits` is 1, expected 2 to 8 bits
    hint: for floating point use quant.method=none

    quant.activation_bits=9
    error: `quant.activation_bits` is 9, expected 2 to 8 bits
    hint: for floating point use quant.method=none

    quant.base_bits=4 quant.first_last=same
    error: `quant.weight_bits` is 5, expected at most quant.base_bits, 4
    hint: raise quant.base_bits or lower the bits

    quant.shortcut_bits=16
    error: `quant.shortcut_bits` is 16, expected 2 to 8 bits
    hint: for floating point use quant.method=none

    quant.layers.fc.weight_bits=0
    error: `quant.layers.fc.weight_bits` is 0, expected 2 to 8 bits
    hint: for floating point use quant.method=none

    quant.layers.layer1.0.relu1.weight_bits=4
    error: `quant.layers.layer1.0.relu1` has weight_bits, expected activation_bits: a ReLU has no weights
    hint: name the convolution, such as layer1.0.conv1, or set activation_bits

    quant.layers.layer1.0.conv1.activation_bits=4
    error: `quant.layers.layer1.0.conv1` has activation_bits, expected weight_bits: activations belong to a ReLU
    hint: name the ReLU, such as layer1.0.relu1, or set weight_bits

    quant.layers.layer2.0.downsample.0.activation_bits=4
    error: `quant.layers.layer2.0.downsample.0` has activation_bits, expected weight_bits: activations belong to a ReLU
    hint: name the ReLU, such as layer1.0.relu1, or set weight_bits

    quant.layers.stem.weight_bits=4
    error: `quant.layers.stem` has weight_bits, expected activation_bits: a ReLU has no weights
    hint: name the convolution, such as layer1.0.conv1, or set activation_bits

    quant.layers.pool.activation_bits=4
    error: `quant.layers.pool` has bits, but that layer has no quantizer of its own
    hint: quant.input chooses the picture's; the pooled vector takes the codes of the last ReLU

    network.depth=8 quant.layers.layer1.1.conv1.weight_bits=4
    error: `quant.layers.layer1.1.conv1` names no layer of this network
    hint: the layers are input, conv1, stem, layer1.0.conv1, layer1.0.relu1, layer1.0.conv2, layer1.0.relu2, layer2.0.conv1, layer2.0.relu1, layer2.0.conv2, layer2.0.downsample.0, layer2.0.relu2, layer3.0.conv1, layer3.0.relu1, layer3.0.conv2, layer3.0.downsample.0, layer3.0.relu2, pool, fc

    quant.reduce=shift_round_saturate
    error: `quant.reduce` is shift_round_saturate, expected quant.window_shift beside it
    hint: set quant.window_shift to the number of low bits to drop, such as 2

    quant.window_shift=2
    error: `quant.window_shift` is 2, expected no value without quant.reduce shift_round_saturate
    hint: set quant.reduce=shift_round_saturate, or remove quant.window_shift

    quant.reduce=shift_round_saturate quant.window_shift=5
    error: `quant.window_shift` is 5, expected 0 to 4, which is quant.base_bits - quant.activation_bits
    hint: set quant.window_shift=4 or less, or lower quant.activation_bits

    quant.reduce=shift_round_saturate quant.window_shift=6 quant.layers.fc.weight_bits=3
    error: `quant.window_shift` is 6, expected 0 to 5, which is quant.base_bits - quant.layers.fc.weight_bits
    hint: set quant.window_shift=5 or less, or lower quant.layers.fc.weight_bits

    quant.method=minmax quant.reduce=drop_lsb_round
    error: `quant.reduce` says how base codes become narrow ones, which quant.method minmax does not have
    hint: remove quant.reduce, or set quant.method=cqat

    quant.method=lsq quant.window_shift=2 quant.reduce=shift_round_saturate
    error: `quant.reduce` says how base codes become narrow ones, which quant.method lsq does not have
    hint: remove quant.reduce, or set quant.method=cqat

    quant.learn_scales=true
    error: `quant.learn_scales` has no meaning with quant.method cqat
    hint: remove quant.learn_scales, or choose another quant.method

    quant.method=dorefa quant.weights.estimator=max
    error: `quant.weights.estimator` has no meaning with quant.method dorefa
    hint: remove quant.weights.estimator, or choose another quant.method

    quant.method=pact quant.activations.pow2=true
    error: `quant.activations.pow2` has no meaning with quant.method pact
    hint: remove quant.activations.pow2, or choose another quant.method

    quant.method=cqat-auto quant.activations.estimator=percentile
    error: `quant.activations.estimator` is another than mse with quant.method cqat-auto, expected mse: windows are chosen by their squared error
    hint: remove quant.activations.estimator

    quant.method=lsq quant.activations={source: batch, estimator: max}
    error: `quant.activations.source` has no meaning with quant.method lsq
    hint: remove quant.activations.source, or choose another quant.method

    quant.weights.estimator=mean_abs
    error: `quant.weights.estimator` is mean_abs, the start of a learned scale, which quant.method cqat does not have
    hint: choose another estimator, or quant.method=lsq

    quant.method=pact quant.pact_alpha=0
    error: `quant.pact_alpha` is 0, expected a finite number above 0
    hint: 6 is the default; 6 to 10 is usual

    quant.method=ewgs quant.ewgs_delta=-1
    error: `quant.ewgs_delta` is -1, expected a finite number, 0 or more
    hint: 0 leaves gradients as they are, 0.001 is the default

    train.distill.weight=2
    error: `train.distill.weight` is 2, expected 0 to 1
    hint: 0 switches distillation off, 0.5 is usual

    train.distill={weight: 0.5, temperature: 0}
    error: `train.distill.temperature` is 0, expected a finite number above 0
    hint: 4 is the default; 1 to 10 is usual

    train.distill={weight: 0.5, teacher: ''}
    error: `train.distill.teacher` is empty, expected a run folder or a .safetensors file
    hint: remove the key to learn from the run's own float network

    quant.method=none train.quant_epochs=0 train.distill.weight=0.5
    error: `train.distill.weight` is 0.5, expected 0 with quant.method none
    hint: only a quantized network has a teacher: set quant.method, or train.distill.weight=0

    quant.first_last=float
    error: `quant.input` is signed8 with quant.first_last float, expected input none: a float first layer takes a float picture
    hint: set quant.input=none as well, or quant.first_last=eight

    quant.weights.estimator=ema_max
    error: `quant.weights.estimator` is ema_max, expected max, percentile, k_sigma, mse or fixed_pow2
    hint: weights are known exactly at every step: use max

    quant.weights.estimator=fixed_pow2 quant.weights.granularity=per_channel
    error: `quant.weights.granularity` is per_channel with estimator fixed_pow2, expected per_tensor
    hint: a fixed scale is the same for every channel: set quant.weights.granularity=per_tensor

    quant.weights.range_factor=0
    error: `quant.weights.range_factor` is 0, expected a finite number above 0
    hint: 1 takes the range literally; 4 (weights) and 8 (activations) are tuned

    quant.activations.range_factor=0.5
    error: `quant.activations.range_factor` is 0.5, expected at least 1 with quant.activations.scale_with_bits true
    hint: set quant.activations.scale_with_bits=false to clip below the range itself

    quant.activations.source=batch
    error: `quant.activations.source` is batch with estimator ema_max, expected max or k_sigma: a batch's own range has no average
    hint: set quant.activations.estimator=max, or quant.activations.source=previous

    quant.activations.ema_momentum=1
    error: `quant.activations.ema_momentum` is 1, expected at least 0 and below 1
    hint: 0.99 is the default; 0 follows each step

    quant.activations.percentile=99.99
    error: `quant.activations.percentile` is 99.99, expected above 0 and at most 1
    hint: a fraction: 0.9999, not 99.99

    quant.weights.sigmas=0
    error: `quant.weights.sigmas` is 0, expected a finite number above 0
    hint: 3 is the default

    quant.activations.fixed_log2_scale=31
    error: `quant.activations.fixed_log2_scale` is 31, expected -30 to 30
    hint: the exponent alone: -7 for a scale of 2^-7
    "#);
}

#[test]
fn epochs_that_do_not_fit_the_method_are_refused() {
    assert_snapshot!(invalid(&[
        &["quant.method=none"],
        &["quant.method=none", "train.float_epochs=0", "train.quant_epochs=0"],
        &["train.float_epochs=0", "train.quant_epochs=0"],
        &["quant.calibration_batches=0"],
        &["quant.delay_epochs=15"],
        &["quant.freeze={after_epochs: 0}"],
        &["quant.freeze={after_epochs: 5}", "train.quant_epochs=8", "quant.delay_epochs=3"],
    ]), @r#"
    quant.method=none
    error: `train.quant_epochs` is 15, expected 0 with quant.method none
    hint: set train.quant_epochs=0 to train in float, or quant.method=cqat to quantize

    quant.method=none train.float_epochs=0 train.quant_epochs=0
    error: `train.float_epochs` is 0 with quant.method none, expected at least 1: nothing to train
    hint: set train.float_epochs, such as 30

    train.float_epochs=0 train.quant_epochs=0
    error: `train.float_epochs` and `train.quant_epochs` are 0 without train.init_from, expected something to train or to quantize
    hint: set train.float_epochs, such as 30, or train.init_from to a trained run

    quant.calibration_batches=0
    error: `quant.calibration_batches` is 0, expected at least 1
    hint: the first ranges come from these batches; 8 is the default

    quant.delay_epochs=15
    error: `quant.delay_epochs` is 15, expected fewer than train.quant_epochs, 15
    hint: leave at least one epoch with quantizers on

    quant.freeze={after_epochs: 0}
    error: `quant.freeze` is after_epochs: 0, expected at least 1 epoch
    hint: set quant.freeze=after_calibration

    quant.freeze={after_epochs: 5} train.quant_epochs=8 quant.delay_epochs=3
    error: `quant.freeze` is after_epochs: 5, expected fewer than the 5 epochs with quantizers on
    hint: set quant.freeze=before_last_epoch, or never to let ranges move to the end
    "#);
}

#[test]
fn what_plays_no_part_is_refused() {
    assert_snapshot!(invalid(&[
        &["train.distill.weight=0.5", "train.float_epochs=0"],
        &["train.distill.weight=0.5", "train.quant_epochs=0"],
        &["quant.reestimate_batches=10", "train.quant_epochs=0"],
        &["quant.pow2_norm=true"],
        &["quant.pow2_norm=true", "quant.weights.estimator=fixed_pow2"],
        &["quant.pow2_norm=true", "quant.method=cqat-auto", "quant.weights.pow2=true", "quant.activations.pow2=true"],
    ]), @r"
    train.distill.weight=0.5 train.float_epochs=0
    error: `train.distill.weight` is 0.5, expected 0 without a float network that has learned something
    hint: set train.float_epochs, train.init_from or train.distill.teacher

    train.distill.weight=0.5 train.quant_epochs=0
    error: `train.distill.weight` is 0.5, expected 0 with train.quant_epochs 0: nothing learns from the teacher
    hint: set train.quant_epochs, or train.distill.weight=0

    quant.reestimate_batches=10 train.quant_epochs=0
    error: `quant.reestimate_batches` is 10, expected 0 with train.quant_epochs 0: statistics are made anew after an epoch
    hint: set train.quant_epochs, or quant.reestimate_batches=0

    quant.pow2_norm=true
    error: `quant.pow2_norm` is true without quant.weights.pow2, expected powers of two there too
    hint: set quant.weights.pow2=true: a factor is a power of two if all that make it are

    quant.pow2_norm=true quant.weights.estimator=fixed_pow2
    error: `quant.pow2_norm` is true without quant.activations.pow2, expected powers of two there too
    hint: set quant.activations.pow2=true: a factor is a power of two if all that make it are

    quant.pow2_norm=true quant.method=cqat-auto quant.weights.pow2=true quant.activations.pow2=true
    error: `quant.pow2_norm` is true with quant.method cqat-auto, whose scales are multiples of the 8-bit scale
    hint: choose another method, such as cqat: cqat presets cqat-shift
    ");
}
