//! Cases of the matrix products: `conv`, `wgrad`. Operands are small whole numbers, so every order of summation gives the
//! same number and all variants are compared with `==`; one case each with real values checks the rest.

use super::{Case, base, bits, in_texture, integers, reals, unset};
use crate::kernels::conv::{CONV, ConvParams, Geometry, WGRAD, WgradParams, select_conv, select_wgrad};
use crate::kernels::{Caps, Format, Overrides};
use crate::net::Shape;

/// Batch, height, width, input channels, output channels, kernel, stride.
const SHAPES: &[[usize; 7]] = &[
    [3, 5, 7, 4, 8, 3, 1],
    [2, 7, 5, 12, 24, 3, 2],
    [2, 8, 6, 16, 16, 3, 1],
    [2, 6, 6, 8, 32, 1, 2],
    [1, 9, 4, 24, 40, 3, 2],
    [1, 3, 3, 64, 128, 3, 1],
    [2, 4, 4, 64, 64, 3, 2],
    [5, 1, 1, 64, 104, 1, 1],
    [1, 1, 1, 16, 8, 1, 1],
    [19, 1, 1, 512, 16, 1, 1],
    [1, 16, 16, 32, 32, 3, 1],
];

fn geometry([batch, h, w, ci, co, kernel, stride]: [usize; 7]) -> Geometry {
    let from = Shape { h, w, c: ci };
    let to = Shape { h: h.div_ceil(stride), w: w.div_ceil(stride), c: co };
    Geometry { batch, from, to, kernel, stride }
}

fn operand(format: Format, values: usize, seed: u32) -> Vec<u32> {
    match format {
        Format::F32 => integers(values, seed, -9, 9),
        Format::U8 | Format::I8 => bits(format.words(values), seed),
    }
}

/// Software adapters of both tile sizes, whose kernels read f32 textures, and a real GPU, whose kernels read codes too.
fn devices() -> [(Caps, &'static [Format]); 3] {
    const ALL: &[Format] = &[Format::F32, Format::U8, Format::I8];
    let software = Caps::portable(true, 64);
    let wide = Caps { lane_pixels: 12, ..software.clone() };
    [(software, &ALL[..1]), (wide, &ALL[..1]), (Caps::portable(false, 64), ALL)]
}

/// A convolution whose operands lie as the choice wants them.
fn conv_case(name: &str, g: &Geometry, caps: &Caps, p: ConvParams, [x, w, out]: [Vec<u32>; 3]) -> Case {
    let stored = Format::from_number(p.x_format);
    let choice = select_conv(&p, stored, caps, &Overrides::new());
    let t = choice.textures;
    // A network's layers share one table of weights: these begin after three vec4s that belong to another layer.
    let w = [integers(12, 77, -16, 15), w].concat();
    let p = ConvParams { x_base: base(t), w_base: 3, ..p };
    let grid = choice.conv_grid(&p);
    Case::new(&CONV, choice.variant, format!("{name} {g:?}"), &p, grid, vec![in_texture(x, t), w, out])
}

fn wgrad_case(name: &str, g: &Geometry, caps: &Caps, x_format: Format, [x, dy]: [Vec<u32>; 2]) -> Case {
    let p = g.weight_gradient(x_format);
    let choice = select_wgrad(&p, x_format, caps, &Overrides::new());
    let t = choice.textures;
    let p = WgradParams { x_base: base(t), dy_base: base(t), ..p };
    let part = unset(p.splits as usize * g.kernel * g.kernel * g.from.c * g.to.c);
    let grid = choice.wgrad_grid(&p);
    let data = vec![in_texture(x, t), in_texture(dy, t), part];
    Case::new(&WGRAD, choice.variant, format!("{name} {x_format:?} {g:?}"), &p, grid, data)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (k, shape) in SHAPES.iter().enumerate() {
        let g = geometry(*shape);
        let (inputs, outputs) = (g.batch * g.from.len(), g.batch * g.to.len());
        let weights = g.kernel * g.kernel * g.from.c * g.to.c;
        let seed = 10 * k as u32;
        let w = || integers(weights, seed + 1, -16, 15);
        let dy = || integers(outputs, seed + 2, -9, 9);
        for (caps, formats) in devices() {
            for &format in formats {
                let x = || operand(format, inputs, seed);
                let name = format!("forward {format:?}");
                let data = [x(), w(), unset(outputs)];
                cases.push(conv_case(&name, &g, &caps, g.forward(format), data).exact());
                cases.push(wgrad_case("", &g, &caps, format, [x(), dy()]).exact());
            }
            for accumulate in [false, true] {
                let out = if accumulate { integers(inputs, seed + 3, -99, 99) } else { unset(inputs) };
                let name = format!("data gradient, accumulate {accumulate}");
                let p = g.data_gradient(accumulate);
                cases.push(conv_case(&name, &g, &caps, p, [dy(), w(), out]).exact());
            }
            let data = [reals(inputs, seed + 4, -1.0, 1.0), reals(weights, seed + 5, -1.0, 1.0), unset(outputs)];
            cases.push(conv_case("forward, reals", &g, &caps, g.forward(Format::F32), data));
        }
    }
    cases.extend(split_wgrad());
    cases
}

/// Enough pixels for several splits, the last one short.
fn split_wgrad() -> Vec<Case> {
    let g = geometry([11, 29, 31, 8, 16, 3, 1]);
    let (splits, chunk) = g.wgrad_splits();
    assert!(splits > 1 && splits * chunk > g.batch * g.to.pixels());
    let data = || [integers(g.batch * g.from.len(), 1, -9, 9), integers(g.batch * g.to.len(), 2, -9, 9)];
    devices().map(|(caps, _)| wgrad_case("splits", &g, &caps, Format::F32, data()).exact()).into()
}
