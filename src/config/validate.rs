//! What a configuration must satisfy to be able to run. Every message names the key, its value and what was expected.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::{
    ActivationQuantConfig, Config, DataConfig, DeviceConfig, Estimator, FORMAT_VERSION, FirstLast, Freeze, Granularity,
    InputQuant, MOST_SECONDS, Method, NetworkConfig, OptimizerConfig, PhaseConfig, QuantConfig, RING_ROWS, RangeSource,
    Reduce, Schedule, TrainConfig, WeightQuantConfig,
};
use crate::data::{SIZES, is_size};
use crate::error::{Error, Result};
use crate::net::{DEPTHS, depths_in_words};

impl Config {
    /// Refuses, with a hint, what cannot run: values out of range and settings that contradict each other.
    /// [`crate::setup::check`] knows the network as well.
    ///
    /// # Errors
    /// The first such key.
    pub fn validate(&self) -> Result<()> {
        if self.format_version != FORMAT_VERSION {
            let error = wrong("format_version", self.format_version, FORMAT_VERSION);
            return Err(error.hint("use the program that wrote the file, or remove the key"));
        }
        data(&self.data)?;
        network(&self.network)?;
        train(&self.train)?;
        phase("train.float", &self.train.float)?;
        phase("train.quant", &self.train.quant)?;
        quant(&self.quant)?;
        epochs(&self.train, &self.quant)?;
        device(&self.device)
    }
}

fn wrong(key: &str, value: impl Display, expected: impl Display) -> Error {
    Error::config(format!("`{key}` is {value}, expected {expected}"))
}

fn ensure(holds: bool, error: impl FnOnce() -> Error) -> Result<()> {
    if holds { Ok(()) } else { Err(error()) }
}

/// `value` is finite and in the half-open interval [0, 1).
fn below_one(key: &str, value: f32, hint: &str) -> Result<()> {
    ensure((0.0..1.0).contains(&value), || wrong(key, value, "at least 0 and below 1").hint(hint))
}

fn positive(key: &str, value: f32, hint: &str) -> Result<()> {
    ensure(value.is_finite() && value > 0.0, || wrong(key, value, "a finite number above 0").hint(hint))
}

fn at_least_one(key: &str, value: u32, hint: &str) -> Result<()> {
    ensure(value >= 1, || wrong(key, value, "at least 1").hint(hint))
}

fn data(c: &DataConfig) -> Result<()> {
    ensure(c.dir.as_ref().is_none_or(|dir| !dir.is_empty()), || {
        wrong("data.dir", "empty", "a folder or `embedded`").hint("remove the key, or name the folder of the data set")
    })?;
    ensure(is_size(c.size as usize), || {
        wrong("data.size", c.size, format!("{SIZES} pixels")).hint("32 is the size of CIFAR's pictures")
    })?;
    ensure(c.test_fraction > 0.0 && c.test_fraction < 1.0, || {
        wrong("data.test_fraction", c.test_fraction, "above 0 and below 1").hint("0.2 is the default")
    })?;
    ensure(c.subset != Some(0), || {
        wrong("data.subset", 0, "at least 1 training picture").hint("remove the key to train on all of them")
    })?;
    let pixels = |key, value, most: u32| {
        let hint = format!("pictures are {} pixels wide: data.size", c.size);
        ensure(value <= most, || wrong(key, value, format!("0 to {most} pixels")).hint(hint))
    };
    pixels("data.augment.crop_padding", c.augment.crop_padding, c.size / 2)?;
    pixels("data.augment.cutout", c.augment.cutout, c.size - 1)
}

fn network(c: &NetworkConfig) -> Result<()> {
    ensure(DEPTHS.iter().any(|(depth, _)| *depth == c.depth as usize), || {
        wrong("network.depth", c.depth, depths_in_words()).hint("18 is the paper's network, 8 the quickest")
    })?;
    ensure(c.width.is_multiple_of(8) && (8..=1024).contains(&c.width), || {
        let near = (c.width / 8).clamp(1, 128) * 8;
        wrong("network.width", c.width, "a multiple of 8 from 8 to 1024").hint(format!("{near} would do"))
    })?;
    ensure(c.classes.is_none_or(|n| (2..=1 << 20).contains(&n)), || {
        let error = wrong("network.classes", c.classes.unwrap_or_default(), "2 to 1048576");
        error.hint("remove the key to take the number of classes from the data set")
    })
}

fn train(c: &TrainConfig) -> Result<()> {
    ensure((1..=65_536).contains(&c.batch), || {
        wrong("train.batch", c.batch, "1 to 65536").hint("128 is the recipe's batch; lower it where memory is short")
    })?;
    ensure((1..=RING_ROWS).contains(&c.accumulate), || {
        wrong("train.accumulate", c.accumulate, format!("1 to {RING_ROWS} batches"))
            .hint("1, the default, moves the parameters after every batch")
    })?;
    ensure((1..=RING_ROWS).contains(&c.log_every), || {
        wrong("train.log_every", c.log_every, format!("1 to {RING_ROWS} steps")).hint("20 is the default")
    })?;
    below_one("train.label_smoothing", c.label_smoothing, "0 switches it off, 0.1 is the default")?;
    ensure(c.init_from.as_ref().is_none_or(|path| !path.as_os_str().is_empty()), || {
        let error = wrong("train.init_from", "empty", "a run folder or a .safetensors file");
        error.hint("remove the key to start from random weights")
    })?;
    let OptimizerConfig { momentum, nesterov, weight_decay, .. } = c.optimizer;
    below_one("train.optimizer.momentum", momentum, "0 switches it off, 0.9 is the default")?;
    ensure(!nesterov || momentum > 0.0, || {
        Error::config("`train.optimizer.nesterov` is true with momentum 0, expected a momentum above 0")
            .hint("set train.optimizer.nesterov=false or raise train.optimizer.momentum")
    })?;
    ensure((0.0..=MOST_SECONDS).contains(&c.heartbeat_seconds), || {
        wrong("train.heartbeat_seconds", c.heartbeat_seconds, format!("0 to {MOST_SECONDS}")).hint("30 is the default")
    })?;
    if let Some(decay) = c.optimizer.ema_decay {
        ensure(decay > 0.0 && decay < 1.0, || {
            wrong("train.optimizer.ema_decay", decay, "above 0 and below 1")
                .hint("remove the key to keep no averages; 0.99 to 0.9999 is usual")
        })?;
    }
    if let Some(norm) = c.optimizer.clip_norm {
        positive("train.optimizer.clip_norm", norm, "remove the key to leave gradients as they are; 1 to 5 is usual")?;
    }
    ensure(weight_decay.is_finite() && weight_decay >= 0.0, || {
        let error = wrong("train.optimizer.weight_decay", weight_decay, "a finite number, 0 or more");
        error.hint("0 switches it off, 0.0005 is the default")
    })
}

fn phase(at: &str, c: &PhaseConfig) -> Result<()> {
    let key = |name: &str| format!("{at}.{name}");
    positive(&key("lr"), c.lr, "0.2 (float) and 0.02 (quantized) suit batches of 128")?;
    ensure(c.gamma > 0.0 && c.gamma <= 1.0, || {
        wrong(&key("gamma"), c.gamma, "above 0 and at most 1").hint("the rate is multiplied by it at every milestone")
    })?;
    ensure((0.0..=1.0).contains(&c.warmup_fraction), || {
        let error = wrong(&key("warmup_fraction"), c.warmup_fraction, "a fraction from 0 to 1");
        error.hint("0 switches warm-up off, 0.1 is the default")
    })?;
    let inside = c.milestones.iter().all(|&m| m > 0.0 && m < 1.0);
    ensure(inside && c.milestones.is_sorted_by(|a, b| a < b), || {
        wrong(&key("milestones"), format!("{:?}", c.milestones), "ascending fractions between 0 and 1")
            .hint("fractions of the phase, not epochs: [0.3, 0.6, 0.8]")
    })?;
    ensure(c.schedule != Schedule::Step || !c.milestones.is_empty(), || {
        Error::config(format!("`{at}.schedule` is step without milestones, expected at least one"))
            .hint(format!("add {at}.milestones, such as [0.3, 0.6, 0.8], or use the schedule constant"))
    })
}

fn quant(c: &QuantConfig) -> Result<()> {
    ensure((4..=8).contains(&c.base_bits), || {
        wrong("quant.base_bits", c.base_bits, "4 to 8 bits").hint("8 is the default and the paper's")
    })?;
    for (key, value) in tensor_bits(c) {
        bits(c, &key, value)?;
    }
    window(c)?;
    ensure(c.first_last != FirstLast::Eight || c.base_bits == 8, || {
        Error::config(format!("`quant.first_last` is eight with quant.base_bits {}, expected 8 base bits", c.base_bits))
            .hint("set quant.first_last=same, or quant.base_bits=8")
    })?;
    ensure(c.first_last != FirstLast::Float || c.input == InputQuant::None, || {
        Error::config(
            "`quant.input` is signed8 with quant.first_last float, expected input none: \
             a float first layer takes a float picture",
        )
        .hint("set quant.input=none as well, or quant.first_last=eight")
    })?;
    weights(&c.weights)?;
    activations(&c.activations)
}

/// Every bit-width the section names, with its key.
fn tensor_bits(c: &QuantConfig) -> Vec<(String, u32)> {
    let mut all = vec![
        ("quant.weight_bits".to_string(), c.weight_bits),
        ("quant.activation_bits".to_string(), c.activation_bits),
    ];
    all.extend(c.shortcut_bits.map(|b| ("quant.shortcut_bits".to_string(), b)));
    for (layer, b) in &c.layers {
        all.extend(b.weight_bits.map(|b| (format!("quant.layers.{layer}.weight_bits"), b)));
        all.extend(b.activation_bits.map(|b| (format!("quant.layers.{layer}.activation_bits"), b)));
    }
    all
}

fn bits(c: &QuantConfig, key: &str, value: u32) -> Result<()> {
    ensure((2..=8).contains(&value), || {
        wrong(key, value, "2 to 8 bits").hint("for floating point use quant.method=none")
    })?;
    ensure(value <= c.base_bits, || {
        wrong(key, value, format!("at most quant.base_bits, {}", c.base_bits))
            .hint("raise quant.base_bits or lower the bits")
    })
}

fn window(c: &QuantConfig) -> Result<()> {
    ensure(c.method != Method::Minmax || c.reduce == Reduce::Saturate, || {
        Error::config("`quant.reduce` says how base codes become narrow ones, which quant.method minmax does not have")
            .hint("remove quant.reduce, or set quant.method=cqat")
    })?;
    let shift = match (c.reduce, c.window_shift) {
        (Reduce::ShiftRoundSaturate, Some(shift)) => shift,
        (Reduce::ShiftRoundSaturate, None) => {
            return Err(Error::config("`quant.reduce` is shift_round_saturate, expected quant.window_shift beside it")
                .hint("set quant.window_shift to the number of low bits to drop, such as 2"));
        }
        (_, Some(shift)) => {
            return Err(wrong("quant.window_shift", shift, "no value without quant.reduce shift_round_saturate")
                .hint("set quant.reduce=shift_round_saturate, or remove quant.window_shift"));
        }
        (_, None) => return Ok(()),
    };
    for (key, value) in tensor_bits(c) {
        let room = c.base_bits - value;
        ensure(value == c.base_bits || shift <= room, || {
            wrong("quant.window_shift", shift, format!("0 to {room}, which is quant.base_bits - {key}"))
                .hint(format!("set quant.window_shift={room} or less, or lower {key}"))
        })?;
    }
    Ok(())
}

fn weights(c: &WeightQuantConfig) -> Result<()> {
    ensure(c.estimator != Estimator::EmaMax, || {
        Error::config("`quant.weights.estimator` is ema_max, expected max, percentile, k_sigma, mse or fixed_pow2")
            .hint("weights are known exactly at every step: use max")
    })?;
    ensure(c.estimator != Estimator::FixedPow2 || c.granularity == Granularity::PerTensor, || {
        Error::config("`quant.weights.granularity` is per_channel with estimator fixed_pow2, expected per_tensor")
            .hint("a fixed scale is the same for every channel: set quant.weights.granularity=per_tensor")
    })?;
    range_factor("quant.weights", c.range_factor, c.scale_with_bits)?;
    estimator_values("quant.weights", c.percentile, c.sigmas, c.fixed_log2_scale)
}

fn activations(c: &ActivationQuantConfig) -> Result<()> {
    let held = matches!(c.estimator, Estimator::Percentile | Estimator::Mse | Estimator::FixedPow2);
    ensure(!held || c.source == RangeSource::Previous, || {
        Error::config(
            "`quant.activations.source` is batch with estimator percentile, mse or fixed_pow2, expected previous: \
             their ranges stay as calibration found them",
        )
        .hint("set quant.activations.source=previous, or an estimator that follows each batch: max, k_sigma")
    })?;
    ensure(c.estimator != Estimator::EmaMax || c.source == RangeSource::Previous, || {
        Error::config(
            "`quant.activations.source` is batch with estimator ema_max, expected max or k_sigma: \
             a batch's own range has no average",
        )
        .hint("set quant.activations.estimator=max, or quant.activations.source=previous")
    })?;
    range_factor("quant.activations", c.range_factor, c.scale_with_bits)?;
    below_one("quant.activations.ema_momentum", c.ema_momentum, "0.99 is the default; 0 follows each step")?;
    estimator_values("quant.activations", c.percentile, c.sigmas, c.fixed_log2_scale)
}

fn range_factor(at: &str, rho: f32, scale_with_bits: bool) -> Result<()> {
    positive(
        &format!("{at}.range_factor"),
        rho,
        "1 takes the range literally; 4 (weights) and 8 (activations) are tuned",
    )?;
    ensure(rho >= 1.0 || !scale_with_bits, || {
        wrong(&format!("{at}.range_factor"), rho, format!("at least 1 with {at}.scale_with_bits true"))
            .hint(format!("set {at}.scale_with_bits=false to clip below the range itself"))
    })
}

fn estimator_values(at: &str, percentile: f32, sigmas: f32, log2_scale: i32) -> Result<()> {
    const LOG2_SCALES: RangeInclusive<i32> = -30..=30;
    ensure(percentile > 0.0 && percentile <= 1.0, || {
        wrong(&format!("{at}.percentile"), percentile, "above 0 and at most 1").hint("a fraction: 0.9999, not 99.99")
    })?;
    positive(&format!("{at}.sigmas"), sigmas, "3 is the default")?;
    ensure(LOG2_SCALES.contains(&log2_scale), || {
        wrong(&format!("{at}.fixed_log2_scale"), log2_scale, "-30 to 30")
            .hint("the exponent alone: -7 for a scale of 2^-7")
    })
}

/// The method, the epochs and the freezing of ranges fit together.
fn epochs(t: &TrainConfig, q: &QuantConfig) -> Result<()> {
    if q.method == Method::None {
        ensure(t.quant_epochs == 0, || {
            wrong("train.quant_epochs", t.quant_epochs, "0 with quant.method none")
                .hint("set train.quant_epochs=0 to train in float, or quant.method=cqat to quantize")
        })?;
        return ensure(t.float_epochs >= 1, || {
            Error::config("`train.float_epochs` is 0 with quant.method none, expected at least 1: nothing to train")
                .hint("set train.float_epochs, such as 30")
        });
    }
    ensure(t.float_epochs > 0 || t.quant_epochs > 0 || t.init_from.is_some(), || {
        Error::config(
            "`train.float_epochs` and `train.quant_epochs` are 0 without train.init_from, \
             expected something to train or to quantize",
        )
        .hint("set train.float_epochs, such as 30, or train.init_from to a trained run")
    })?;
    at_least_one(
        "quant.calibration_batches",
        q.calibration_batches,
        "the first ranges come from these batches; 8 is the default",
    )?;
    ensure(q.delay_epochs == 0 || q.delay_epochs < t.quant_epochs, || {
        wrong("quant.delay_epochs", q.delay_epochs, format!("fewer than train.quant_epochs, {}", t.quant_epochs))
            .hint("leave at least one epoch with quantizers on")
    })?;
    let Freeze::AfterEpochs(after) = q.freeze else { return Ok(()) };
    ensure(after >= 1, || {
        wrong("quant.freeze", "after_epochs: 0", "at least 1 epoch").hint("set quant.freeze=after_calibration")
    })?;
    let quantized = t.quant_epochs.saturating_sub(q.delay_epochs);
    ensure(after < quantized, || {
        let expected = format!("fewer than the {quantized} epochs with quantizers on");
        wrong("quant.freeze", format!("after_epochs: {after}"), expected)
            .hint("set quant.freeze=before_last_epoch, or never to let ranges move to the end")
    })
}

fn device(c: &DeviceConfig) -> Result<()> {
    ensure(c.memory_mib != Some(0), || {
        wrong("device.memory_mib", 0, "at least 1 MiB").hint("remove the key to use what the device reports")
    })
}
