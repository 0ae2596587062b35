//! Range estimator, scale and gradient rule of one kind of quantizer: weights, or activations after ReLU.

use serde::{Deserialize, Serialize};

/// How the range R of a tensor is found; the scale follows from it as [`super::QuantConfig`] states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// R = max |x|; of activations with `source: previous` the largest value since calibration.
    Max,
    /// Activations only: exponential moving average of the steps' maxima,
    /// R = ema_momentum * R + (1 - ema_momentum) * max x, started by calibration.
    EmaMax,
    /// R = the `percentile` quantile of |x|.
    Percentile,
    /// R = |mean| + `sigmas` * standard deviation; of activations with `source: previous` its moving average, as for
    /// `ema_max`.
    KSigma,
    /// The scale s with the least mean squared error between the tensor and its quantized values, found by a search;
    /// the range factor plays no part.
    Mse,
    /// s = 2^`fixed_log2_scale`, whatever the tensor; range and range factor play no part.
    FixedPow2,
    /// s = 2 mean |x| / sqrt(hi), the start of LSQ: only where scales are learned.
    MeanAbs,
}

/// Where the straight-through estimator passes a gradient on: dx = dy inside, 0 outside.
///
/// lo and hi are the codes' limits, s the scale, and x / s stands for x * inv_scale as computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// Inside: lo <= round(x / s) <= hi, the rounded code did not clip.
    #[default]
    Int,
    /// Inside: lo <= x / s <= hi, give or take 2^-20: a value that sits on an edge is inside.
    Real,
    /// Inside: the code of `base_bits` bits did not saturate, even if the narrow one did.
    Base8,
    /// Everywhere.
    Pass,
}

/// How many scales a weight tensor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// One.
    #[default]
    PerTensor,
    /// One per output channel.
    PerChannel,
}

/// Which range a training step quantizes its activations with. Evaluation always uses the stored range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RangeSource {
    /// The range of the current batch, which costs a second pass over the tensor.
    Batch,
    /// The range stored before the step; the step's own range updates it for the next.
    #[default]
    Previous,
}

/// Quantizer of weights: signed codes lo ..= 2^(b-1) - 1, zero-point 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WeightQuantConfig {
    /// Range estimator; of learned scales their start. Default: max; k_sigma of `lsqplus` and `ewgs`, mean_abs of `lsq`, mse of `cqat-auto`.
    pub estimator: Option<Estimator>,
    /// rho, the factor on the range at 5 bits. Default 4.
    pub range_factor: f32,
    /// Use rho * 2^(5-b), not below 1, at b bits; false: rho at every b below `base_bits`. Default true.
    pub scale_with_bits: bool,
    /// Round the scale to a power of two: s = 2^round(log2 s); of `cqat-auto` to a power of two times the 8-bit scale. Default false.
    pub pow2: bool,
    /// One scale per tensor or per output channel. Default per_tensor.
    pub granularity: Granularity,
    /// false: lo = -2^(b-1). true: lo = -(2^(b-1) - 1), codes symmetric about 0. Default false.
    pub narrow: bool,
    /// Gradient rule. Default: pass; int of `minmax`, real of `lsq`, `lsqplus`, `ewgs` and `cqat-auto`.
    pub mask: Option<Mask>,
    /// For `percentile`: the fraction of |w| inside the range, in (0, 1]. Default 0.9999.
    pub percentile: f32,
    /// For `k_sigma`: standard deviations inside the range. Default 3.
    pub sigmas: f32,
    /// For `fixed_pow2`: log2 of the scale. Default -7: 5-bit weights clip at -0.125 and 0.1171875.
    pub fixed_log2_scale: i32,
}

impl Default for WeightQuantConfig {
    fn default() -> Self {
        WeightQuantConfig {
            estimator: None,
            range_factor: 4.0,
            scale_with_bits: true,
            pow2: false,
            granularity: Granularity::PerTensor,
            narrow: false,
            mask: None,
            percentile: 0.9999,
            sigmas: 3.0,
            fixed_log2_scale: -7,
        }
    }
}

/// Quantizer of activations after ReLU: unsigned codes 0 ..= 2^b - 1, zero-point 0, one scale per tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActivationQuantConfig {
    /// Range estimator; of learned scales their start. Default: ema_max; mean_abs of `lsq`, mse of `lsqplus`, `ewgs` and `cqat-auto`.
    pub estimator: Option<Estimator>,
    /// rho, the factor on the range at 4 bits. Default 8.
    pub range_factor: f32,
    /// Use rho * 2^(4-b), not below 1, at b bits; false: rho at every b below `base_bits`. Default true.
    pub scale_with_bits: bool,
    /// Round the scale to a power of two: s = 2^round(log2 s); of `cqat-auto` to a power of two times the 8-bit scale. Default false.
    pub pow2: bool,
    /// For `ema_max` and `k_sigma`: weight of the old range in each step's update, in [0, 1). Default 0.99.
    pub ema_momentum: f32,
    /// Which range a training step uses. Default previous.
    pub source: RangeSource,
    /// Gradient rule. Default: int; real of `dorefa`, `pact`, `lsq`, `lsqplus`, `ewgs` and `cqat-auto`.
    pub mask: Option<Mask>,
    /// For `percentile`: the fraction of values inside the range, in (0, 1]. Default 0.9999.
    pub percentile: f32,
    /// For `k_sigma`: standard deviations inside the range. Default 3.
    pub sigmas: f32,
    /// For `fixed_pow2`: log2 of the scale. Default -4: 4-bit activations clip at 0.9375.
    pub fixed_log2_scale: i32,
}

impl Default for ActivationQuantConfig {
    fn default() -> Self {
        ActivationQuantConfig {
            estimator: None,
            range_factor: 8.0,
            scale_with_bits: true,
            pow2: false,
            ema_momentum: 0.99,
            source: RangeSource::Previous,
            mask: None,
            percentile: 0.9999,
            sigmas: 3.0,
            fixed_log2_scale: -4,
        }
    }
}
