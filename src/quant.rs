//! The quantizer: how a real value becomes an integer code, which gradients pass, and where the scale comes from.
//!
//! One definition serves training, evaluation, the CPU twins, calibration and the integer engine; the shader form of the
//! same functions is `shaders/shared/quant.wgsl`. Codes are made without division: everyone multiplies by the stored
//! `inv_scale`, so they are equal bit for bit; codes of tanh as far as the device's tanh goes.

mod spec;

use bytemuck::{Pod, Zeroable};

pub use spec::{QuantSpec, Quantizer};

/// The smallest range a scale is made from; a tensor of zeros would otherwise divide by zero.
pub const MIN_RANGE: f32 = 1e-8;

/// Integer side of a quantizer, as the shaders see it (48 bytes, `Quant` in `shared/quant.wgsl`).
///
/// `c8 = clamp(round_half_even(x * inv_scale), base_lo, base_hi)`, then the bit window
/// `c = clamp(c8 >> shift, lo, hi)` (floor, or half up with `round_shift`). The value of a code is
/// `c * scale`, where `scale` already contains `2^shift`. Of the odd forms `c8 = clamp(round_half_even(x * inv_scale - 1/2), ..)`,
/// and the code that is multiplied is `2 c + 1`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct Quant {
    /// Lowest code of the base grid (-128, or 0 for activations).
    pub base_lo: i32,
    /// Highest code of the base grid (127, or 255 for activations).
    pub base_hi: i32,
    /// Right shift from the base code to the stored code.
    pub shift: u32,
    /// 1: the shift rounds half up; 0: it floors.
    pub round_shift: u32,
    /// Lowest stored code.
    pub lo: i32,
    /// Highest stored code.
    pub hi: i32,
    /// Straight-through mask, one of [`mask`].
    pub mask: u32,
    /// 0 turns the quantizer off: codes are the values themselves.
    pub enabled: u32,
    /// Which codes there are, one of [`form`].
    pub form: u32,
    /// What of its scale is a parameter, one of [`learn`].
    pub learn: u32,
    /// Delta of EWGS; 0: gradients pass as they are.
    pub delta: f32,
    /// The code of the offset of LSQ+, which `lo`, `hi` and the limits of the base grid contain.
    pub zero: i32,
}

/// 1 + 2^-20, for [`mask::REAL`]: the largest value of a tensor lies on its limit, and devices that round its reciprocal differently
/// put it on either side.
const ON_LIMIT: f32 = 1.0 + 1.0 / (1 << 20) as f32;

/// Numbers of [`Quant::form`].
pub mod form {
    /// Whole numbers.
    pub const PLAIN: u32 = 0;
    /// Odd numbers.
    pub const ODD: u32 = 1;
    /// Odd numbers, of tanh of the value.
    pub const ODD_TANH: u32 = 2;
}

/// Numbers of [`Quant::learn`].
pub mod learn {
    /// Nothing.
    pub const NOTHING: u32 = 0;
    /// The step between two values (LSQ).
    pub const STEP: u32 = 1;
    /// The step, and an offset in value units (LSQ+).
    pub const STEP_AND_OFFSET: u32 = 2;
    /// The largest value, `hi` steps (PACT).
    pub const RANGE: u32 = 3;
}

/// Numbers of [`Quant::mask`].
pub mod mask {
    /// Pass where the unclipped code lies inside the stored range.
    pub const INT: u32 = 0;
    /// Pass where the real `x * inv_scale` lies inside the range, or on its limit but for rounding.
    pub const REAL: u32 = 1;
    /// Pass where the base code did not saturate.
    pub const BASE8: u32 = 2;
    /// Always pass.
    pub const PASS: u32 = 3;
}

impl Quant {
    /// A quantizer that is off.
    pub const OFF: Quant = Quant {
        base_lo: 0,
        base_hi: 0,
        shift: 0,
        round_shift: 0,
        lo: 0,
        hi: 0,
        mask: mask::PASS,
        enabled: 0,
        form: form::PLAIN,
        learn: learn::NOTHING,
        delta: 0.0,
        zero: 0,
    };

    /// The code of `x`; twin of `quantize` in `shared/quant.wgsl`.
    pub fn code(&self, x: f32, inv_scale: f32) -> i32 {
        let base = self.place(x, inv_scale).round_ties_even().clamp(self.base_lo as f32, self.base_hi as f32);
        let c = self.window(base as i32);
        if self.form == form::PLAIN { c } else { 2 * c + 1 }
    }

    /// Where `x` lies on the base grid; twin of `place`.
    fn place(&self, x: f32, inv_scale: f32) -> f32 {
        match self.form {
            form::PLAIN => x * inv_scale,
            form::ODD => x.mul_add(inv_scale, -0.5),
            _ => x.tanh().mul_add(inv_scale, -0.5),
        }
    }

    /// The value that lies on this code of the base grid: the inverse of rounding.
    pub fn place_of(&self, code: i32, inv_scale: f32) -> f32 {
        match self.form {
            form::PLAIN => code as f32 / inv_scale,
            form::ODD => (code as f32 + 0.5) / inv_scale,
            _ => ((code as f32 + 0.5) / inv_scale).clamp(-0.999_999, 0.999_999).atanh(),
        }
    }

    /// The quantizer of activations with this offset; what is below 0 does not reach it. Twin of `at_zero`.
    pub fn at_zero(&self, zero: i32) -> Quant {
        let lo = |limit: i32| (limit + zero).max(0);
        Quant {
            base_lo: lo(self.base_lo),
            base_hi: self.base_hi + zero,
            lo: lo(self.lo),
            hi: self.hi + zero,
            zero,
            ..*self
        }
    }

    /// Offsets that [`Quant::at_zero`] may have: up to half the codes, and no further than 8 bits.
    pub fn zeros(&self) -> [i32; 2] {
        if self.learn == learn::STEP_AND_OFFSET { [-(self.hi / 2), (self.hi / 2).min(255 - self.hi)] } else { [0; 2] }
    }

    fn window(&self, base: i32) -> i32 {
        self.shifted(base).clamp(self.lo, self.hi)
    }

    fn shifted(&self, base: i32) -> i32 {
        if self.shift == 0 {
            return base;
        }
        let half = if self.round_shift == 1 { 1 << (self.shift - 1) } else { 0 };
        (base + half) >> self.shift
    }

    /// Whether the straight-through estimator lets the gradient of `x` pass; twin of `passes`.
    pub fn passes(&self, x: f32, inv_scale: f32) -> bool {
        let v = self.place(x, inv_scale);
        let r = v.round_ties_even();
        let in_base = r >= self.base_lo as f32 && r <= self.base_hi as f32;
        match self.mask {
            mask::INT => {
                in_base && {
                    let c = self.shifted(r as i32);
                    c >= self.lo && c <= self.hi
                }
            }
            mask::REAL => {
                let step = (1u32 << self.shift) as f32 * ON_LIMIT;
                v >= self.lo as f32 * step && v <= self.hi as f32 * step
            }
            mask::BASE8 => in_base,
            _ => true,
        }
    }

    /// Whether `x` lies above the top code (for the saturation statistics); twin of `saturates`.
    pub fn saturates(&self, x: f32, inv_scale: f32) -> bool {
        let r = self.place(x, inv_scale).round_ties_even();
        r > self.base_hi as f32 || self.shifted(r as i32) > self.hi
    }

    /// Whether `x` lies outside the codes on either side.
    pub fn clips(&self, x: f32, inv_scale: f32) -> bool {
        let r = self.place(x, inv_scale).round_ties_even();
        self.saturates(x, inv_scale) || r < self.base_lo as f32 || self.shifted(r as i32) < self.lo
    }

    /// Derivatives of the quantized value by its step and by its offset; twin of `slopes`.
    ///
    /// Inside the codes q - x / s and 0, where s is the step and q s the quantized value (Esser et al. 2020, eq. 3); outside the last code,
    /// counted from the offset, and 1 (Bhalgat et al. 2020).
    pub fn slopes(&self, x: f32, inv_scale: f32) -> [f32; 2] {
        let v = self.place(x, inv_scale);
        let c = v.round_ties_even().clamp(self.lo as f32, self.hi as f32);
        if v >= self.lo as f32 && v <= self.hi as f32 {
            return [c - v, 0.0];
        }
        let half = if self.form == form::PLAIN { 0.0 } else { 0.5 };
        [c + half - self.zero as f32, 1.0]
    }

    /// Factor on the gradient `g` of a value that passes; twin of `gradient_factor`.
    ///
    /// 1 but for EWGS, 1 + delta sign(g) (x - x_q) / (hi - lo), and for tanh, (1 - tanh^2 x) times the slope `scale * inv_scale` of codes.
    pub fn gradient_factor(&self, g: f32, x: f32, scale: f32, inv_scale: f32) -> f32 {
        if self.form == form::ODD_TANH {
            let t = x.tanh();
            return 2.0 * scale * inv_scale * (1.0 - t * t);
        }
        if self.delta == 0.0 {
            return 1.0;
        }
        let v = self.place(x, inv_scale);
        let c = v.round_ties_even().clamp(self.lo as f32, self.hi as f32);
        let sign = if g == 0.0 { 0.0 } else { g.signum() };
        1.0 + self.delta * sign * (v - c) / (self.hi - self.lo) as f32
    }

    /// The largest value in steps.
    pub fn highest(&self) -> f32 {
        self.hi as f32 + if self.form == form::PLAIN { 0.0 } else { 0.5 }
    }

    /// Largest magnitude a code can have.
    pub fn max_abs(&self) -> u32 {
        let [lo, hi] = match self.form {
            form::PLAIN => [self.lo, self.hi + self.zeros()[1]],
            _ => [2 * self.lo + 1, 2 * self.hi + 1],
        };
        lo.unsigned_abs().max(hi.unsigned_abs())
    }
}

/// The scale rule: `step = factor * range / levels`, optionally rounded; `scale = step * 2^shift`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct ScaleRule {
    /// Codes in the range on the base grid: 127 for weights, 255 for unsigned activations.
    pub levels: f32,
    /// The range factor rho for this bit-width.
    pub factor: f32,
    /// Rounding of the step, one of [`rounding`].
    pub pow2: u32,
    /// Copy of [`Quant::shift`]; -1 for the odd forms, whose neighbouring codes are two apart.
    pub shift: i32,
}

/// Numbers of [`ScaleRule::pow2`].
pub mod rounding {
    /// As it is.
    pub const NONE: u32 = 0;
    /// To the nearest power of two.
    pub const POWER: u32 = 1;
    /// To the nearest of 1, 2, 4, ... steps of the 8-bit grid.
    pub const WINDOW: u32 = 2;
}

/// Value scale and the factor from values to base codes: `scale * inv_scale` is `2^shift`, up to rounding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// Value of one stored code.
    pub scale: f32,
    /// `1 / step` of the base grid: values times this are base codes.
    pub inv_scale: f32,
}

impl ScaleRule {
    /// A rule that keeps scale 1.
    pub const UNIT: ScaleRule = ScaleRule { levels: 1.0, factor: 1.0, pow2: rounding::NONE, shift: 0 };

    /// The range whose step on the base grid is `step`; twin of `range_of_step`.
    pub fn range_of_step(&self, step: f32) -> f32 {
        step * self.levels / self.factor
    }

    /// Scale of a tensor with the tracked `range`; twin of `scale_of` in `shared/quant.wgsl`.
    pub fn scale(&self, range: f32) -> Scale {
        self.scale_of_step(self.factor * range.max(MIN_RANGE) / self.levels, 0.0)
    }

    /// Scale of a tensor with this step on the base grid; `unit` is the step of the 8-bit grid, which windows are counted in. Twin of
    /// `scale_of_step`.
    pub fn scale_of_step(&self, step: f32, unit: f32) -> Scale {
        let mut step = step.max(MIN_RANGE);
        if self.pow2 == rounding::POWER {
            step = nearest_pow2(step);
        }
        if self.pow2 == rounding::WINDOW && unit > 0.0 {
            step = unit * nearest_pow2(step / unit).max(1.0);
        }
        let scale = if self.shift < 0 { 0.5 * step } else { step * (1u32 << self.shift) as f32 };
        Scale { scale, inv_scale: 1.0 / step }
    }
}

/// The power of two nearest to `|x|` in the logarithm (ties at sqrt(2) go up), with the sign of `x`, from the bits alone; 0 of 0.
pub fn nearest_pow2(x: f32) -> f32 {
    let bits = x.to_bits();
    let up = (bits & 0x007f_ffff) >= 0x0035_04f3; // mantissa of sqrt(2)
    f32::from_bits((bits & 0xff80_0000) + if up { 0x0080_0000 } else { 0 })
}

/// Where a range comes from in a training step (numbers of `mode` in `range_update.wgsl`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Tracking {
    /// Keep the stored range; statistics only.
    Hold = 0,
    /// The current batch's observation.
    Batch = 1,
    /// Exponential moving average of the observations.
    Ema = 2,
    /// Largest observation so far.
    Max = 3,
    /// Plain mean of the observations since calibration began.
    Mean = 4,
}

#[cfg(test)]
mod tests {
    use super::*;

    const W5: Quant = Quant {
        base_lo: -128,
        base_hi: 127,
        round_shift: 1,
        lo: -16,
        hi: 15,
        mask: mask::INT,
        enabled: 1,
        ..Quant::OFF
    };

    #[test]
    fn saturation_keeps_the_low_end_and_rounds_ties_to_even() {
        let codes: Vec<i32> =
            [0.5, 1.5, 2.5, -0.5, -1.5, 15.5, 16.0, 300.0, -15.5, -300.0].map(|x| W5.code(x, 1.0)).into();
        assert_eq!(codes, [0, 2, 2, 0, -2, 15, 15, 15, -16, -16]);
    }

    #[test]
    fn dropping_low_bits_floors_or_rounds_half_up() {
        let floor = Quant { shift: 3, round_shift: 0, ..W5 };
        let round = Quant { shift: 3, round_shift: 1, ..W5 };
        let at = |q: &Quant| [7.0, 4.0, 3.0, -1.0, -5.0, 127.0, -128.0].map(|x| q.code(x, 1.0));
        assert_eq!(at(&floor), [0, 0, 0, -1, -1, 15, -16]);
        assert_eq!(at(&round), [1, 1, 0, 0, -1, 15, -16]);
    }

    #[test]
    fn masks_differ_only_between_clip_and_rounding_edge() {
        for (m, expected) in [
            (mask::INT, [true, true, false, false]),
            (mask::REAL, [true, false, false, false]),
            (mask::BASE8, [true, true, true, false]),
            (mask::PASS, [true, true, true, true]),
        ] {
            let q = Quant { mask: m, ..W5 };
            assert_eq!([14.9, 15.25, 15.75, 128.0].map(|x| q.passes(x, 1.0)), expected, "mask {m}");
        }
        let real = Quant { mask: mask::REAL, ..W5 };
        let limits = [15.0f32.next_up(), 15.0001, (-16.0f32).next_down(), -16.0001];
        assert_eq!(limits.map(|x| real.passes(x, 1.0)), [true, false, true, false]);
    }

    #[test]
    fn the_scale_of_five_bits_is_four_ranges_over_127() {
        let rule = ScaleRule { levels: 127.0, factor: 4.0, pow2: 0, shift: 0 };
        let s = rule.scale(1.27);
        assert!((s.scale - 0.04).abs() < 1e-7 && (s.inv_scale - 25.0).abs() < 1e-4);
        assert!(rule.scale(0.0).inv_scale.is_finite());
    }

    #[test]
    fn powers_of_two_round_in_the_logarithm() {
        assert_eq!([1.0, 1.4, 1.42, 1.9, 0.7, 0.72].map(nearest_pow2), [1.0, 1.0, 2.0, 2.0, 0.5, 1.0]);
        assert_eq!([0.0, -0.3, -3.0].map(nearest_pow2), [0.0, -0.25, -4.0]);
    }
}
