//! Integer inference between convolutions: accumulators to codes (`requantize`), codes to sums over a picture (`pool_sum`).
//! [`crate::integer`] has the formula.

use bytemuck::{Pod, Zeroable};

use super::{Access, Format, KernelDef, Twin, Variant};
use crate::integer::{Accumulator, Requantize, Window};

/// Numbers of [`RequantizeParams::residual`].
pub mod residual {
    /// Nothing.
    pub const NONE: u32 = 0;
    /// Codes of an earlier value.
    pub const CODES: u32 = 1;
    /// Accumulators of a projection.
    pub const SUMS: u32 = 2;
}

/// How [`REQUANTIZE`] stores its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stored {
    /// 32-bit integers.
    I32 = 0,
    /// [`Format::U8`].
    U8 = 1,
    /// [`Format::U4`].
    U4 = 3,
}

impl Stored {
    /// u32 words of `values` results.
    pub fn words(self, values: usize) -> usize {
        match self {
            Stored::I32 => values,
            Stored::U8 => Format::U8.words(values),
            Stored::U4 => Format::U4.words(values),
        }
    }
}

/// Parameters of `requantize`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct RequantizeParams {
    /// Rows times channels / 8.
    pub items: u32,
    /// Channels / 8.
    pub cols8: u32,
    /// First group of four channels in `channels`.
    pub first4: u32,
    /// 1: accumulators are i32 ([`super::conv::ConvParams::KEPT`]); 0: whole numbers as f32. Fixed in the variant, read by the twin.
    pub acc_kept: u32,
    /// What is added, one of [`residual`]; likewise.
    pub residual: u32,
    /// [`Format`] of codes that are added; likewise.
    pub residual_format: u32,
    /// As `acc_kept`, of accumulators that are added.
    pub residual_kept: u32,
    /// [`Stored`]; likewise.
    pub out_format: u32,
    /// [`Window::base_lo`].
    pub base_lo: i32,
    /// [`Window::base_hi`].
    pub base_hi: i32,
    /// [`Window::shift`].
    pub drop: u32,
    /// Half a step of `drop` where it rounds, else 0.
    pub half: i32,
    /// [`Window::lo`].
    pub lo: i32,
    /// [`Window::hi`].
    pub hi: i32,
    /// Bits of an accumulator, 2 to 32.
    pub acc_bits: u32,
    /// 1: sums beyond that saturate; 0: they wrap.
    pub saturate: u32,
}

impl RequantizeParams {
    /// Of `rows` x `channels` accumulators of 32 bits, to which nothing is added.
    pub fn new(rows: usize, channels: usize, window: &Window, out: Stored) -> RequantizeParams {
        RequantizeParams {
            items: (rows * channels / 8) as u32,
            cols8: channels as u32 / 8,
            first4: 0,
            acc_kept: 0,
            residual: residual::NONE,
            residual_format: 0,
            residual_kept: 0,
            out_format: out as u32,
            base_lo: window.base_lo,
            base_hi: window.base_hi,
            drop: window.shift,
            half: if window.round && window.shift > 0 { 1 << (window.shift - 1) } else { 0 },
            lo: window.lo,
            hi: window.hi,
            acc_bits: 32,
            saturate: 0,
        }
    }

    /// The variant for these parameters.
    pub fn variant(&self) -> Variant {
        let out = match self.out_format {
            o if o == Stored::U8 as u32 => "codes_u8",
            o if o == Stored::U4 as u32 => "codes_u4",
            _ => "codes_i32",
        };
        let variant = Variant::only("requantize").with_flag("ACC_KEPT", self.acc_kept == 1);
        let variant = variant.with_flag("RESIDUAL_KEPT", self.residual_kept == 1);
        let variant = match self.residual {
            residual::CODES => {
                variant.with_files(&[Format::from_number(self.residual_format).operand(), "residual_codes"])
            }
            residual::SUMS => variant.with_files(&["residual_sums"]),
            _ => variant.with_files(&["residual_none"]),
        };
        variant.with_files(&[out])
    }

    /// What an accumulator holds of a sum.
    fn held(&self, sum: i32) -> i32 {
        Accumulator { bits: self.acc_bits, saturates: self.saturate == 1 }.hold(sum)
    }
}

/// Words of four channels in the table of channels.
pub const GROUP_WORDS: usize = 32;

/// The table of channels that [`REQUANTIZE`] reads; channels too few for a group of eight are 0.
pub fn table(channels: &[Requantize]) -> Vec<u32> {
    let none = Requantize { multiplier: 0, shortcut: 0, offset: 0, shift: 1 };
    let padded = channels.len().next_multiple_of(8);
    let at = |c: usize| channels.get(c).copied().unwrap_or(none);
    let group = |first: usize| {
        let four: [Requantize; 4] = std::array::from_fn(|k| at(first + k));
        // Half a step of the shift, so that it rounds.
        let offset = four.map(|k| k.offset + if k == none { 0 } else { 1 << (k.shift - 1) });
        let scaled = |part: fn(&Requantize) -> i64| {
            four.map(|k| ((part(&k) as f64 / 2f64.powi(k.shift as i32)) as f32).to_bits())
        };
        [
            four.map(|k| k.multiplier as u32),
            four.map(|k| k.shortcut as u32),
            offset.map(|b| b as u32),
            offset.map(|b| (b >> 32) as u32),
            four.map(|k| k.shift),
            scaled(|k| i64::from(k.multiplier)),
            scaled(|k| i64::from(k.shortcut)),
            [0, 1, 2, 3].map(|k| ((offset[k] as f64 / 2f64.powi(four[k].shift as i32)) as f32).to_bits()),
        ]
        .concat()
    };
    (0..padded).step_by(4).flat_map(group).collect()
}

/// `requantize.wgsl`.
pub static REQUANTIZE: KernelDef = KernelDef {
    name: "requantize",
    bindings: &[("acc", Access::Read), ("x", Access::Read), ("channels", Access::Read), ("out", Access::ReadWrite)],
    params_bytes: size_of::<RequantizeParams>(),
    twin: requantize,
};

fn requantize(t: &mut Twin) {
    let p: RequantizeParams = t.params();
    let (acc, x, channels, out) = (t.words(0), t.words(1), t.words(2), t.words_mut(3));
    let whole = |word: u32, kept: u32| if kept == 1 { word as i32 } else { f32::from_bits(word) as i32 };
    let format = Format::from_number(p.residual_format);
    for i in 0..8 * p.items as usize {
        let c = i % (8 * p.cols8 as usize);
        let group = &channels[GROUP_WORDS * (p.first4 as usize + c / 4)..][..GROUP_WORDS];
        let of = |part: usize| group[4 * part + c % 4];
        let offset = (i64::from(of(3) as i32) << 32) | i64::from(of(2));
        let r = match p.residual {
            residual::CODES => format.load(x, i) as i32,
            residual::SUMS => p.held(whole(x[i], p.residual_kept)),
            _ => 0,
        };
        let main = i64::from(p.held(whole(acc[i], p.acc_kept)));
        let sum = main * i64::from(of(0) as i32) + i64::from(r) * i64::from(of(1) as i32) + offset;
        let base = (sum >> of(4)).clamp(i64::from(p.base_lo), i64::from(p.base_hi)) as i32;
        let code = (base.wrapping_add(p.half) >> p.drop).clamp(p.lo, p.hi);
        match p.out_format {
            o if o == Stored::U8 as u32 => put(out, i, 8, code),
            o if o == Stored::U4 as u32 => put(out, i, 4, code),
            _ => out[i] = code as u32,
        }
    }
}

/// Stores a code of so many bits in place `i`; the places before it are written first.
fn put(out: &mut [u32], i: usize, bits: usize, code: i32) {
    let per_word = 32 / bits;
    let (word, at) = (i / per_word, i % per_word * bits);
    let kept = if at == 0 { 0 } else { out[word] };
    out[word] = kept | (code as u32 & ((1 << bits) - 1)) << at;
}

/// Parameters of `pool_sum`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct PoolParams {
    /// Pictures times channels / 4.
    pub items: u32,
    /// Channels / 4.
    pub cols4: u32,
    /// Pixels of a picture.
    pub pixels: u32,
    /// [`Format`] of `x`; fixed in the variant, read by the twin.
    pub x_format: u32,
}

/// `pool_sum.wgsl`.
pub static POOL_SUM: KernelDef = KernelDef {
    name: "pool_sum",
    bindings: &[("x", Access::Read), ("out", Access::ReadWrite)],
    params_bytes: size_of::<PoolParams>(),
    twin: pool_sum,
};

/// Variant of `pool_sum`.
pub fn pool_variant(format: Format) -> Variant {
    Variant::only("pool_sum").with_files(&[format.operand()])
}

fn pool_sum(t: &mut Twin) {
    let p: PoolParams = t.params();
    let (x, out) = (t.words(0), t.f32_mut(1));
    let (format, channels, pixels) = (Format::from_number(p.x_format), 4 * p.cols4 as usize, p.pixels as usize);
    for (i, sum) in out[..4 * p.items as usize].iter_mut().enumerate() {
        let first = i / channels * pixels * channels + i % channels;
        *sum = (0..pixels).map(|pixel| format.load(x, first + pixel * channels)).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_holds_offsets_with_half_a_step() {
        let k = Requantize { multiplier: -3, shortcut: 5, offset: -(1 << 40), shift: 9 };
        let words = table(&[k; 3]);
        assert_eq!(words.len(), 2 * GROUP_WORDS);
        let offset = -(1i64 << 40) + (1 << 8);
        let want = [-3i32 as u32, 5, offset as u32, (offset >> 32) as u32, 9];
        assert_eq!([0, 4, 8, 12, 16].map(|part| words[part + 2]), want);
        let real = [-3.0 / 512.0, 5.0 / 512.0, offset as f64 / 512.0].map(|v| (v as f32).to_bits());
        assert_eq!([20, 24, 28].map(|part| words[part + 2]), real);
        assert_eq!([0, 4, 8, 12, 16].map(|part| words[part + 3]), [0, 0, 0, 0, 1], "a channel too many gives 0");
    }
}
