//! The `quant` section: bit-widths, how an 8-bit code becomes a narrow one, and when ranges stop moving.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::quantizer::{ActivationQuantConfig, WeightQuantConfig};

/// Bits of weights for which `weights.range_factor` is stated.
const REFERENCE_WEIGHT_BITS: u32 = 5;
/// Bits of activations for which `activations.range_factor` is stated.
const REFERENCE_ACTIVATION_BITS: u32 = 4;

/// Which quantization the run trains with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Floating point throughout; the rest of the section is not used.
    None,
    /// Clipped quantization-aware training (Lee and Park, ISOCC 2022): quantize to `base_bits`, then clip to few bits.
    #[default]
    Cqat,
    /// `cqat` with the window found instead of assumed: of all windows of b bits inside the base grid, calibration takes for each tensor
    /// (channel of weights, with `granularity: per_channel`) the one with the least mean squared error; `learn_scales` says what
    /// becomes of it. `reduce` and the range factors are not used.
    #[serde(rename = "cqat-auto")]
    CqatAuto,
    /// Uniform quantization between the extremes (Jacob et al., CVPR 2018), without offset: every code of a tensor of b bits lies
    /// inside its range. Weights are symmetric, s = R / (2^(b-1) - 1); activations s = R / (2^b - 1). `base_bits`, `reduce` and the
    /// range factors are not used.
    Minmax,
    /// DoReFa-Net (Zhou et al., 2016): weights are squashed by tanh into [-1, 1], w_q = 2 q(tanh w / (2 max |tanh w|) + 1/2) - 1, whose
    /// codes are the odd numbers; activations are clipped to [0, 1]. Weights of 8 bits are those of `minmax`.
    Dorefa,
    /// PACT (Choi et al., 2018): activations are clipped at a learned alpha, s = alpha / (2^b - 1); weights are those of `dorefa`.
    Pact,
    /// LSQ (Esser et al., ICLR 2020): the scale of every tensor is a parameter, trained by its gradient times 1 / sqrt(N * hi), where N is
    /// the number of weights, or of values of an activation in one picture.
    Lsq,
    /// LSQ+ (Bhalgat et al., 2020): `lsq` with better first scales and an offset of activations, which is rounded to a whole code.
    #[serde(rename = "lsqplus")]
    LsqPlus,
    /// EWGS (Lee et al., CVPR 2021): the scales are learned as in `lsq`, and the gradient g of a value becomes
    /// g (1 + `ewgs_delta` sign(g) (x - x_q)), with x and x_q in [0, 1] over the codes; the codes of weights are the odd numbers. Weights
    /// of 8 bits have the codes of `lsq`.
    Ewgs,
}

/// As the configuration spells it.
impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// How a base code of B = `base_bits` bits becomes a code of b bits.
///
/// All are one bit window: code = clamp(shift(base code, k), lo, hi), value = code * s * 2^k, where s is the scale
/// of the base grid and shift drops the k lowest bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduce {
    /// k = 0: keep the low end of the base code and saturate. clamp(clamp(round(x / s), base), lo, hi) equals
    /// clamp(round(x / s), lo, hi), so one rounding is all there is.
    #[default]
    Saturate,
    /// k = B - b, shift = floor(base code / 2^k).
    DropLsbFloor,
    /// k = B - b, shift = floor((base code + 2^(k-1)) / 2^k): half up, one add and one shift in hardware.
    DropLsbRound,
    /// k = `window_shift`, rounded half up as in `drop_lsb_round`, then saturated.
    ShiftRoundSaturate,
}

/// Bits of the first convolution, the classifier and the activations that feed the classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstLast {
    /// 8 bits with range factor 1.
    #[default]
    Eight,
    /// Not quantized. Such a network cannot run on integers alone.
    Float,
    /// Quantized like every other layer.
    Same,
}

/// Quantizer of the normalised picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputQuant {
    /// The first convolution sees the float picture. Such a network cannot run on integers alone.
    None,
    /// Signed 8-bit codes with zero-point 0, so that zero padding has code 0.
    #[default]
    Signed8,
}

/// When the ranges, and with them the scales, stop following the tensors.
///
/// In YAML a word, `freeze: before_last_epoch`, or a map of one key, `freeze: {after_epochs: 3}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freeze {
    /// Ranges follow the tensors to the end.
    Never,
    /// Ranges are those of calibration on the float network.
    AfterCalibration,
    /// Ranges follow the tensors until the last epoch starts.
    #[default]
    BeforeLastEpoch,
    /// Ranges follow the tensors for this many epochs with quantizers on (`delay_epochs` not counted).
    AfterEpochs(u32),
}

impl Freeze {
    const WORDS: [&'static str; 4] = ["never", "after_calibration", "before_last_epoch", "after_epochs"];
}

impl Serialize for Freeze {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Freeze::Never => serializer.serialize_str("never"),
            Freeze::AfterCalibration => serializer.serialize_str("after_calibration"),
            Freeze::BeforeLastEpoch => serializer.serialize_str("before_last_epoch"),
            Freeze::AfterEpochs(epochs) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("after_epochs", epochs)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Freeze {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FreezeVisitor)
    }
}

struct FreezeVisitor;

impl<'de> Visitor<'de> for FreezeVisitor {
    type Value = Freeze;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("never, after_calibration, before_last_epoch or a map such as {after_epochs: 3}")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Freeze, E> {
        match word {
            "never" => Ok(Freeze::Never),
            "after_calibration" => Ok(Freeze::AfterCalibration),
            "before_last_epoch" => Ok(Freeze::BeforeLastEpoch),
            "after_epochs" => Err(E::custom("after_epochs needs a number, as in {after_epochs: 3}")),
            _ => Err(E::unknown_variant(word, &Freeze::WORDS)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Freeze, A::Error> {
        let mut freeze = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "after_epochs" => freeze = Some(Freeze::AfterEpochs(map.next_value()?)),
                _ => return Err(de::Error::unknown_field(&key, &["after_epochs"])),
            }
        }
        freeze.ok_or_else(|| de::Error::invalid_type(de::Unexpected::Map, &self))
    }
}

/// Bits of one layer, where they differ from the rest of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LayerBits {
    /// Bits of the layer's weights. Default: what the layer would have had.
    pub weight_bits: Option<u32>,
    /// Bits of the layer's output codes. Default: what the layer would have had.
    pub activation_bits: Option<u32>,
}

/// Quantizers of weights and activations.
///
/// With B = `base_bits` (b itself in methods other than `cqat` and `cqat-auto`), b the bits of a tensor, R its range and f its factor ([`QuantConfig::weight_factor`],
/// [`QuantConfig::activation_factor`]), the scale of the base grid is
/// - weights (signed): s = f * R / (2^(B-1) - 1), codes -2^(b-1) ..= 2^(b-1) - 1;
/// - activations after ReLU (unsigned): s = f * R / (2^B - 1), codes 0 ..= 2^b - 1.
///
/// Base codes are x / s rounded half to even; `reduce` makes b-bit codes of them.
/// Source: Lee and Park, "Clipped Quantization Aware Training for Hardware Friendly Implementation of Image
/// Classification Networks", ISOCC 2022; the range factors are this project's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantConfig {
    /// Quantization method. Default cqat.
    pub method: Method,
    /// Bits of weights, 2 to 8. Default 5.
    pub weight_bits: u32,
    /// Bits of activations, 2 to 8. Default 4.
    pub activation_bits: u32,
    /// Bits of the grid that values are first rounded to, 4 to 8 and no fewer than any other bits. Default 8.
    pub base_bits: u32,
    /// From base code to narrow code. Default saturate.
    pub reduce: Reduce,
    /// k of the bit window, only with `reduce: shift_round_saturate`: 0 keeps the lowest bits of the base code,
    /// `base_bits` - b the highest. Tensors of `base_bits` bits are not shifted. Default: not set.
    pub window_shift: Option<u32>,
    /// Range, scale and gradient rule of weights.
    pub weights: WeightQuantConfig,
    /// Range, scale and gradient rule of activations.
    pub activations: ActivationQuantConfig,
    /// First and last layers. Default eight.
    pub first_last: FirstLast,
    /// Quantizer of the picture. Default signed8.
    pub input: InputQuant,
    /// Round the factor gamma / sqrt(var + eps) of every batch norm to a power of two with its sign, and the picture's scale up to a
    /// power of two. With powers of two as scales of weights and activations, which it asks for, requantization only shifts. Default false.
    pub pow2_norm: bool,
    /// Bits of the weights of 1x1 projection shortcuts. Default: `weight_bits`.
    pub shortcut_bits: Option<u32>,
    /// Bits of single layers, before every other rule. Keys are layer names: `layer1.0.conv1` for weights,
    /// `layer1.0.relu1` for activations. Default none.
    pub layers: BTreeMap<String, LayerBits>,
    /// Training batches seen by calibration, which sets the first ranges before the quantizers are switched on.
    /// Default 8.
    pub calibration_batches: u32,
    /// Training batches over which batch norm's running statistics are estimated anew once the last quantized epoch is done,
    /// with the weights as they then are. Default 0: they stay as training left them.
    pub reestimate_batches: u32,
    /// When ranges stop moving. Default before_last_epoch.
    pub freeze: Freeze,
    /// Epochs at the start of the quantized phase that still run in float. Default 0.
    pub delay_epochs: u32,
    /// Only with `cqat-auto`. true: scales start as calibration found them and are learned as in `lsq`, with `pow2` rounded to a power of
    /// two times the 8-bit scale. false: those of activations stay, those of weights are searched for again every epoch until `freeze`.
    /// Default true.
    pub learn_scales: Option<bool>,
    /// For `pact`: alpha before the first step, 6 to 10 in the paper. Default 6.
    pub pact_alpha: f32,
    /// For `pact`: weight decay of alpha. Default 5e-4.
    pub pact_decay: f32,
    /// For `ewgs`: delta, 0 or more. Default 1e-3.
    pub ewgs_delta: f32,
}

impl Default for QuantConfig {
    fn default() -> Self {
        QuantConfig {
            method: Method::Cqat,
            weight_bits: 5,
            activation_bits: 4,
            base_bits: 8,
            reduce: Reduce::Saturate,
            window_shift: None,
            weights: WeightQuantConfig::default(),
            activations: ActivationQuantConfig::default(),
            first_last: FirstLast::Eight,
            input: InputQuant::Signed8,
            pow2_norm: false,
            shortcut_bits: None,
            layers: BTreeMap::new(),
            calibration_batches: 8,
            reestimate_batches: 0,
            freeze: Freeze::BeforeLastEpoch,
            delay_epochs: 0,
            learn_scales: None,
            pact_alpha: 6.0,
            pact_decay: 5e-4,
            ewgs_delta: 1e-3,
        }
    }
}

impl QuantConfig {
    /// Bits of the grid that a tensor of `bits` bits is first rounded to.
    pub fn base(&self, bits: u32) -> u32 {
        match self.method {
            Method::Cqat | Method::CqatAuto | Method::None => self.base_bits.max(bits),
            Method::Minmax | Method::Dorefa | Method::Pact | Method::Lsq | Method::LsqPlus | Method::Ewgs => bits,
        }
    }

    /// k: how many low bits of the base code a `bits`-bit tensor drops; its codes are worth s * 2^k each.
    ///
    /// 0 for `saturate`, `base_bits` - `bits` for the LSB-dropping modes, `window_shift` for a window; a tensor of
    /// `base_bits` bits drops none.
    pub fn shift(&self, bits: u32) -> u32 {
        let room = self.base(bits) - bits;
        match self.reduce {
            Reduce::Saturate => 0,
            Reduce::DropLsbFloor | Reduce::DropLsbRound => room,
            Reduce::ShiftRoundSaturate => self.window_shift.unwrap_or(0).min(room),
        }
    }

    /// Factor f on the range of a tensor of `bits`-bit weights: s = f * R / (2^(base_bits-1) - 1).
    ///
    /// With rho = `weights.range_factor`: max(1, rho * 2^(5 - bits - k)) if `weights.scale_with_bits`, else rho.
    /// k is the window's shift, 0 for `saturate`: a window that starts higher needs less of the factor to reach the
    /// same clip point. Exactly 1 for `bits` == `base_bits` and for the LSB-dropping modes, whose codes already span R.
    pub fn weight_factor(&self, bits: u32) -> f32 {
        self.factor(self.weights.range_factor, self.weights.scale_with_bits, REFERENCE_WEIGHT_BITS, bits)
    }

    /// Factor f on the range of a tensor of `bits`-bit activations: s = f * R / (2^base_bits - 1).
    ///
    /// With rho = `activations.range_factor`: max(1, rho * 2^(4 - bits - k)) if `activations.scale_with_bits`, else
    /// rho; the rest as for [`QuantConfig::weight_factor`].
    pub fn activation_factor(&self, bits: u32) -> f32 {
        let activations = &self.activations;
        self.factor(activations.range_factor, activations.scale_with_bits, REFERENCE_ACTIVATION_BITS, bits)
    }

    /// Whether `range_factor` plays a part for a tensor of `bits` bits: not where its codes span the base grid, nor where its window is found.
    pub fn takes_range_factor(&self, bits: u32) -> bool {
        let drops_lsbs = matches!(self.reduce, Reduce::DropLsbFloor | Reduce::DropLsbRound);
        bits < self.base(bits) && !drops_lsbs && self.method != Method::CqatAuto
    }

    fn factor(&self, rho: f32, scale_with_bits: bool, reference_bits: u32, bits: u32) -> f32 {
        if !self.takes_range_factor(bits) {
            return 1.0;
        }
        if !scale_with_bits {
            return rho;
        }
        let exponent = i64::from(reference_bits) - i64::from(bits) - i64::from(self.shift(bits));
        (rho * (exponent as f32).exp2()).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_follow_the_bits_and_end_at_one() {
        let q = QuantConfig::default();
        assert_eq!([2, 3, 4, 5, 6, 7, 8].map(|b| q.weight_factor(b)), [32.0, 16.0, 8.0, 4.0, 2.0, 1.0, 1.0]);
        assert_eq!([2, 3, 4, 5, 6, 7, 8].map(|b| q.activation_factor(b)), [32.0, 16.0, 8.0, 4.0, 2.0, 1.0, 1.0]);
    }

    #[test]
    fn a_literal_factor_ignores_the_bits_below_the_base() {
        let mut q = QuantConfig::default();
        (q.weights.range_factor, q.weights.scale_with_bits) = (0.5, false);
        (q.activations.range_factor, q.activations.scale_with_bits) = (3.0, false);
        assert_eq!([2, 5, 7, 8].map(|b| q.weight_factor(b)), [0.5, 0.5, 0.5, 1.0]);
        assert_eq!([2, 5, 7, 8].map(|b| q.activation_factor(b)), [3.0, 3.0, 3.0, 1.0]);
    }

    #[test]
    fn the_extremes_are_the_outermost_codes_at_every_width() {
        let q = QuantConfig { method: Method::Minmax, ..QuantConfig::default() };
        for bits in 2..=8 {
            assert_eq!(
                (q.base(bits), q.shift(bits), q.weight_factor(bits), q.activation_factor(bits)),
                (bits, 0, 1.0, 1.0)
            );
        }
    }

    #[test]
    fn dropping_low_bits_needs_no_factor_and_a_window_meets_both_ends() {
        let reduced = |reduce, window_shift| QuantConfig { reduce, window_shift, ..QuantConfig::default() };
        for reduce in [Reduce::DropLsbFloor, Reduce::DropLsbRound] {
            let q = reduced(reduce, None);
            assert_eq!((q.weight_factor(5), q.activation_factor(4), q.shift(5), q.shift(4)), (1.0, 1.0, 3, 4));
        }
        let window = |k| reduced(Reduce::ShiftRoundSaturate, Some(k));
        assert_eq!([0, 1, 2, 3].map(|k| window(k).weight_factor(5)), [4.0, 2.0, 1.0, 1.0]);
        assert_eq!([0, 1, 2, 3, 4].map(|k| window(k).activation_factor(4)), [8.0, 4.0, 2.0, 1.0, 1.0]);
        assert_eq!((window(2).shift(5), window(2).shift(8), window(2).weight_factor(8)), (2, 0, 1.0));
    }
}
