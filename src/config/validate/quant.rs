//! The `quant` section: bits, windows, what the methods have no use for.

use std::ops::RangeInclusive;

use super::{below_one, ensure, positive, wrong};
use crate::config::{Estimator, FirstLast, Granularity, InputQuant, Method, QuantConfig, RangeSource, Reduce};
use crate::{Error, Result};

pub(super) fn quant(c: &QuantConfig) -> Result<()> {
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
    method(c)?;
    weights(c)?;
    activations(c)?;
    powers_of_two(c)
}

/// What batch norms of powers of two ask for.
fn powers_of_two(c: &QuantConfig) -> Result<()> {
    let (w, a) = (&c.weights, &c.activations);
    let fixed = |estimator: Estimator, learned: bool| estimator == Estimator::FixedPow2 && !learned;
    let has = [
        (w.pow2 || fixed(c.weight_estimator(), c.learns_weight_scales()), "weights"),
        (a.pow2 || fixed(c.activation_estimator(), c.learns_activation_scales()), "activations"),
    ];
    for (is_pow2, section) in has {
        ensure(!c.pow2_norm || is_pow2, || {
            Error::config(format!(
                "`quant.pow2_norm` is true without quant.{section}.pow2, expected powers of two there too"
            ))
            .hint(format!("set quant.{section}.pow2=true: a factor is a power of two if all that make it are"))
        })?;
    }
    ensure(!c.pow2_norm || c.method != Method::CqatAuto, || {
        Error::config(
            "`quant.pow2_norm` is true with quant.method cqat-auto, whose scales are multiples of the 8-bit scale",
        )
        .hint("choose another method, such as cqat: cqat presets cqat-shift")
    })
}

/// Keys that the method does not have.
fn method(c: &QuantConfig) -> Result<()> {
    let name = c.method.to_string();
    let refuse = |given: bool, key: &str| {
        ensure(!given, || {
            Error::config(format!("`quant.{key}` has no meaning with quant.method {name}"))
                .hint(format!("remove quant.{key}, or choose another quant.method"))
        })
    };
    let (w, a) = (&c.weights, &c.activations);
    refuse(c.learn_scales.is_some() && c.method != Method::CqatAuto, "learn_scales")?;
    if c.squashes_weights() {
        refuse(w.estimator.is_some(), "weights.estimator")?;
        refuse(w.pow2, "weights.pow2")?;
        refuse(w.mask.is_some(), "weights.mask")?;
        refuse(w.granularity == Granularity::PerChannel, "weights.granularity")?;
        refuse(a.estimator.is_some(), "activations.estimator")?;
        refuse(a.pow2, "activations.pow2")?;
    }
    if c.method == Method::CqatAuto {
        searches(c.weight_estimator(), "weights")?;
        searches(c.activation_estimator(), "activations")?;
    }
    let fixed = c.learns_activation_scales() || c.method == Method::Dorefa;
    refuse(fixed && a.source == RangeSource::Batch, "activations.source")?;
    starts(w.estimator, c.learns_weight_scales(), "weights", &name)?;
    starts(a.estimator, c.learns_activation_scales(), "activations", &name)?;
    positive("quant.pact_alpha", c.pact_alpha, "6 is the default; 6 to 10 is usual")?;
    not_negative("quant.pact_decay", c.pact_decay, "0 switches it off, 0.0005 is the default")?;
    not_negative("quant.ewgs_delta", c.ewgs_delta, "0 leaves gradients as they are, 0.001 is the default")
}

/// The only estimator of `cqat-auto`.
fn searches(estimator: Estimator, section: &str) -> Result<()> {
    ensure(estimator == Estimator::Mse, || {
        Error::config(format!(
            "`quant.{section}.estimator` is another than mse with quant.method cqat-auto, expected mse: \
             windows are chosen by their squared error"
        ))
        .hint(format!("remove quant.{section}.estimator"))
    })
}

/// An estimator that only learned scales have.
fn starts(estimator: Option<Estimator>, learned: bool, section: &str, method: &str) -> Result<()> {
    ensure(estimator != Some(Estimator::MeanAbs) || learned, || {
        Error::config(format!(
            "`quant.{section}.estimator` is mean_abs, the start of a learned scale, which quant.method {method} does not have"
        ))
        .hint("choose another estimator, or quant.method=lsq")
    })
}

fn not_negative(key: &str, value: f32, hint: &str) -> Result<()> {
    ensure(value.is_finite() && value >= 0.0, || wrong(key, value, "a finite number, 0 or more").hint(hint))
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
    ensure(matches!(c.method, Method::Cqat | Method::None) || c.reduce == Reduce::Saturate, || {
        Error::config(format!(
            "`quant.reduce` says how base codes become narrow ones, which quant.method {} does not have",
            c.method
        ))
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
    // Tensors of more bits have fewer positions, and take their last one.
    let narrowest = tensor_bits(c).into_iter().min_by_key(|(_, bits)| *bits);
    narrowest.map_or(Ok(()), |(key, bits)| {
        let room = c.base_bits - bits;
        ensure(shift <= room, || {
            wrong("quant.window_shift", shift, format!("0 to {room}, which is quant.base_bits - {key}"))
                .hint(format!("set quant.window_shift={room} or less, or lower {key}"))
        })
    })
}

fn weights(config: &QuantConfig) -> Result<()> {
    let (c, estimator) = (&config.weights, config.weight_estimator());
    ensure(estimator != Estimator::EmaMax, || {
        Error::config("`quant.weights.estimator` is ema_max, expected max, percentile, k_sigma, mse or fixed_pow2")
            .hint("weights are known exactly at every step: use max")
    })?;
    ensure(estimator != Estimator::FixedPow2 || c.granularity == Granularity::PerTensor, || {
        Error::config("`quant.weights.granularity` is per_channel with estimator fixed_pow2, expected per_tensor")
            .hint("a fixed scale is the same for every channel: set quant.weights.granularity=per_tensor")
    })?;
    range_factor("quant.weights", c.range_factor, c.scale_with_bits)?;
    estimator_values("quant.weights", c.percentile, c.sigmas, c.fixed_log2_scale)
}

fn activations(config: &QuantConfig) -> Result<()> {
    let (c, estimator) = (&config.activations, config.activation_estimator());
    let held = matches!(estimator, Estimator::Percentile | Estimator::Mse | Estimator::FixedPow2);
    ensure(!held || c.source == RangeSource::Previous, || {
        Error::config(
            "`quant.activations.source` is batch with estimator percentile, mse or fixed_pow2, expected previous: \
             their ranges stay as calibration found them",
        )
        .hint("set quant.activations.source=previous, or an estimator that follows each batch: max, k_sigma")
    })?;
    ensure(
        config.learns_activation_scales() || estimator != Estimator::EmaMax || c.source == RangeSource::Previous,
        || {
            Error::config(
                "`quant.activations.source` is batch with estimator ema_max, expected max or k_sigma: \
             a batch's own range has no average",
            )
            .hint("set quant.activations.estimator=max, or quant.activations.source=previous")
        },
    )?;
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
