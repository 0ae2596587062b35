//! Cases of the matrix products: `conv`, `wgrad`. Operands are small whole numbers, so every order of summation gives the
//! same number and all variants are compared with `==`; one case each with real values checks the rest.

use super::{Case, bits, integers, reals, unset};
use crate::kernels::conv::{CONV, Choice, ConvParams, Geometry, WGRAD, select_conv, select_wgrad};
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

/// A software adapter, whose kernels read f32 operands, and a real GPU, whose kernels read codes too.
fn devices() -> [(Caps, &'static [Format]); 2] {
    const ALL: &[Format] = &[Format::F32, Format::U8, Format::I8];
    [(Caps::portable(true, 64), &ALL[..1]), (Caps::portable(false, 64), ALL)]
}

fn conv_case(name: &str, g: &Geometry, choice: &Choice, p: &ConvParams, data: Vec<Vec<u32>>) -> Case {
    Case::new(&CONV, choice.variant.clone(), format!("{name} {g:?}"), p, choice.conv_grid(p), data)
}

pub(super) fn cases() -> Vec<Case> {
    let none = Overrides::new();
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
                let p = g.forward(format);
                let choice = select_conv(&p, format, &caps, &none);
                let data = vec![operand(format, inputs, seed), w(), unset(outputs)];
                cases.push(conv_case(&format!("forward {format:?}"), &g, &choice, &p, data).exact());

                let p = g.weight_gradient(format);
                let choice = select_wgrad(&p, format, &caps, &none);
                let data = vec![operand(format, inputs, seed), dy(), unset(p.splits as usize * weights)];
                let (name, grid) = (format!("{format:?} {g:?}"), choice.wgrad_grid(&p));
                cases.push(Case::new(&WGRAD, choice.variant, name, &p, grid, data).exact());
            }
            for accumulate in [false, true] {
                let p = g.data_gradient(accumulate);
                let choice = select_conv(&p, Format::F32, &caps, &none);
                let out = if accumulate { integers(inputs, seed + 3, -99, 99) } else { unset(inputs) };
                let name = format!("data gradient, accumulate {accumulate}");
                cases.push(conv_case(&name, &g, &choice, &p, vec![dy(), w(), out]).exact());
            }
            let p = g.forward(Format::F32);
            let choice = select_conv(&p, Format::F32, &caps, &none);
            let data = vec![reals(inputs, seed + 4, -1.0, 1.0), reals(weights, seed + 5, -1.0, 1.0), unset(outputs)];
            cases.push(conv_case("forward, reals", &g, &choice, &p, data));
        }
    }
    cases.extend(split_wgrad());
    cases
}

/// Enough pixels for several splits, the last one short.
fn split_wgrad() -> Vec<Case> {
    let g = geometry([11, 29, 31, 8, 16, 3, 1]);
    let build = |(caps, _): (Caps, &[Format])| {
        let p = g.weight_gradient(Format::F32);
        assert!(p.splits > 1);
        let choice = select_wgrad(&p, Format::F32, &caps, &Overrides::new());
        let data = vec![
            integers(g.batch * g.from.len(), 1, -9, 9),
            integers(g.batch * g.to.len(), 2, -9, 9),
            unset(p.splits as usize * 9 * 8 * 16),
        ];
        let grid = choice.wgrad_grid(&p);
        Case::new(&WGRAD, choice.variant, format!("{} splits", p.splits), &p, grid, data).exact()
    };
    devices().into_iter().map(build).collect()
}
