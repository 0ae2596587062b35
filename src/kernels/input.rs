//! `augment`: u8 pictures to network input.

use bytemuck::{Pod, Zeroable};

use super::{Access, KernelDef, Twin};

/// Words of the table of `augment`: 256 of each channel, and [`CUT_WORD`].
pub const TABLE_WORDS: usize = CUT_WORD + 1;
/// The word of the table that cut-out pixels get.
pub const CUT_WORD: usize = 3 * 256;

/// Parameters of `augment`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct AugmentParams {
    /// Pictures.
    pub batch: u32,
    /// Side of a picture.
    pub size: u32,
    /// Raw-zero pixels around the picture that a crop may reach; 0: no crop.
    pub crop_padding: u32,
    /// 1: half of the pictures are mirrored.
    pub flip: u32,
    /// Side of the square that is cut out; 0: none.
    pub cutout: u32,
    /// 1: the table and the output hold signed 8-bit codes.
    pub codes: u32,
    /// Pictures in `images`; those after them are in `more`.
    pub first: u32,
    /// Padding.
    pub pad: u32,
}

/// `augment.wgsl`.
pub static AUGMENT: KernelDef = KernelDef {
    name: "augment",
    bindings: &[
        ("images", Access::Read),
        ("more", Access::Read),
        ("picks", Access::Read),
        ("step", Access::Read),
        ("table", Access::Read),
        ("out", Access::ReadWrite),
    ],
    params_bytes: size_of::<AugmentParams>(),
    twin: augment,
};

fn pcg(v: u32) -> u32 {
    let s = v.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let w = ((s >> ((s >> 28) + 4)) ^ s).wrapping_mul(277_803_737);
    (w >> 22) ^ w
}

/// Random word of (seed, sample, draw); twin of `random` in `shared/rng.wgsl`.
pub fn random(seed: u32, sample: u32, draw: u32) -> u32 {
    pcg(pcg(pcg(seed).wrapping_add(sample)).wrapping_add(draw))
}

fn augment(t: &mut Twin) {
    let p: AugmentParams = t.params();
    let (images, more, picks, step, table) = (t.words(0), t.words(1), t.words(2), t.step(3), t.words(4));
    let out = t.words_mut(5);
    let s = p.size;
    let span = 2 * p.crop_padding + 1;
    for n in 0..p.batch {
        let (from, at) = match picks[n as usize] {
            pick if pick < p.first => (images, pick),
            pick => (more, pick - p.first),
        };
        let draw = |d| random(step.seed, n, d);
        let (dy, dx) = (draw(0) % span, draw(1) % span);
        let flipped = p.flip == 1 && draw(2) & 1 == 1;
        let (cy, cx) = (draw(3) % s + p.cutout.div_ceil(2), draw(4) % s + p.cutout.div_ceil(2));
        for y in 0..s {
            for x in 0..s {
                let sy = (y + dy).wrapping_sub(p.crop_padding);
                let sx = (if flipped { s - 1 - x } else { x } + dx).wrapping_sub(p.crop_padding);
                let inside = sy < s && sx < s;
                let cut = p.cutout > 0 && cy.wrapping_sub(y + 1) < p.cutout && cx.wrapping_sub(x + 1) < p.cutout;
                let v = [0, 1, 2].map(|c| {
                    let raw = if inside {
                        let byte = ((at * 3 + c) * s + sy) * s + sx;
                        (from[byte as usize / 4] >> (8 * (byte & 3))) & 255
                    } else {
                        0
                    };
                    table[if cut { CUT_WORD } else { (c * 256 + raw) as usize }]
                });
                let i = ((n * s + y) * s + x) as usize;
                if p.codes == 1 {
                    out[i] = (v[0] & 255) | ((v[1] & 255) << 8) | ((v[2] & 255) << 16);
                } else {
                    out[4 * i..4 * i + 4].copy_from_slice(&[v[0], v[1], v[2], 0]);
                }
            }
        }
    }
}
