//! Weight gradient. [`super::select`] chooses its variant.

use bytemuck::{Pod, Zeroable};

use super::conv::Geometry;
use super::{Access, Format, KernelDef, Twin};

/// Pixels of a weight-gradient split are a multiple of this, so that unrolled loops never cross into the next one.
const WGRAD_CHUNK: usize = 16;

impl Geometry {
    /// Splits of the pixel range for the weight gradient, and pixels in each: a fixed rule, so results never depend on
    /// tuning.
    pub fn wgrad_splits(&self) -> (usize, usize) {
        let pixels = self.batch * self.to.pixels();
        let splits = (pixels / 4096).clamp(1, 32);
        let chunk = pixels.div_ceil(splits).next_multiple_of(WGRAD_CHUNK);
        (pixels.div_ceil(chunk), chunk)
    }

    /// Parameters of the weight gradient.
    pub fn weight_gradient(&self, x_format: Format) -> WgradParams {
        let (splits, chunk) = self.wgrad_splits();
        WgradParams {
            batch: self.batch as u32,
            in_h: self.from.h as u32,
            in_w: self.from.w as u32,
            in_c: self.from.c as u32,
            out_h: self.to.h as u32,
            out_w: self.to.w as u32,
            out_c: self.to.c as u32,
            kernel: self.kernel as u32,
            pad: self.pad(),
            stride: self.stride as u32,
            splits: splits as u32,
            chunk: chunk as u32,
            x_format: x_format as u32,
            terms: 0,
            x_max: 0,
            dy_max: 0,
            part4: 0,
            pad_end: [0; 3],
        }
    }
}

/// Parameters of `wgrad` (all variants).
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct WgradParams {
    /// Pictures.
    pub batch: u32,
    /// Rows of the forward input.
    pub in_h: u32,
    /// Columns.
    pub in_w: u32,
    /// Channels.
    pub in_c: u32,
    /// Rows of the forward output.
    pub out_h: u32,
    /// Columns.
    pub out_w: u32,
    /// Channels.
    pub out_c: u32,
    /// Kernel side.
    pub kernel: u32,
    /// Padding.
    pub pad: u32,
    /// Stride.
    pub stride: u32,
    /// Parts of the pixel range.
    pub splits: u32,
    /// Output pixels in a part.
    pub chunk: u32,
    /// [`Format`] of `x`; fixed in the shader's variant, read by the twin.
    pub x_format: u32,
    /// As [`ConvParams::terms`].
    pub terms: u32,
    /// Row of the maxima of `x`, where that is real and has terms.
    pub x_max: u32,
    /// The same of `dy`.
    pub dy_max: u32,
    /// First vec4 of this layer in `part`.
    pub part4: u32,
    /// Padding.
    pub pad_end: [u32; 3],
}

/// `wgrad_lane.wgsl`, `wgrad_tiled.wgsl`, `wgrad_coop.wgsl`.
pub static WGRAD: KernelDef = KernelDef {
    name: "wgrad",
    bindings: &[("x", Access::Read), ("dy", Access::Read), ("maxima", Access::Read), ("part", Access::ReadWrite)],
    params_bytes: size_of::<WgradParams>(),
    twin: wgrad,
};

fn wgrad(t: &mut Twin) {
    let p: WgradParams = t.params();
    let format = Format::from_number(p.x_format);
    let x = t.words(0);
    let dy = t.f32(1);
    let part = &mut t.f32_mut(3)[4 * p.part4 as usize..];
    let (ci, co) = (p.in_c as usize, p.out_c as usize);
    let taps = p.kernel * p.kernel;
    let pixels = p.out_h * p.out_w;
    part[..(p.splits * taps) as usize * ci * co].fill(0.0);
    for split in 0..p.splits {
        for k in split * p.chunk..((split + 1) * p.chunk).min(p.batch * pixels) {
            let (n, oy, ox) = (k / pixels, k % pixels / p.out_w, k % p.out_w);
            for tap in 0..taps {
                let iy = (oy * p.stride + tap / p.kernel) as i32 - p.pad as i32;
                let ix = (ox * p.stride + tap % p.kernel) as i32 - p.pad as i32;
                if iy < 0 || iy >= p.in_h as i32 || ix < 0 || ix >= p.in_w as i32 {
                    continue;
                }
                let base = ((n * p.in_h + iy as u32) * p.in_w + ix as u32) as usize * ci;
                for c in 0..ci {
                    let a = format.load(x, base + c);
                    let o = ((split * taps + tap) as usize * ci + c) * co;
                    let g = &dy[k as usize * co..][..co];
                    for (s, b) in part[o..o + co].iter_mut().zip(g) {
                        *s += a * b;
                    }
                }
            }
        }
    }
}
