//! Cases of the matrix products: `conv`, `wgrad`. Operands are small whole numbers, so every order of summation gives the
//! same number and all variants are compared with `==`; one case each with real values checks the rest.

use super::{Case, bits, constant, integers, reals, unset};
use crate::config::Kernels;
use crate::kernels::conv::{ConvParams, Geometry};
use crate::kernels::select::{Choice, KernelFamily, conv_candidates, select_conv, select_wgrad, wgrad_candidates};
use crate::kernels::wgrad::{WGRAD, WgradParams};
use crate::kernels::winograd::{self, TileParams, WeightParams};
use crate::kernels::{Caps, Format, Variant, flat_grid, maxima};
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

pub(super) fn geometry([batch, h, w, ci, co, kernel, stride]: [usize; 7]) -> Geometry {
    let from = Shape { h, w, c: ci };
    let to = Shape { h: h.div_ceil(stride), w: w.div_ceil(stride), c: co };
    Geometry { batch, from, to, kernel, stride }
}

pub(super) fn operand(format: Format, values: usize, seed: u32) -> Vec<u32> {
    match format {
        Format::F32 => integers(values, seed, -9, 9),
        Format::U8 | Format::I8 | Format::U4 | Format::I4 => bits(format.words(values), seed),
    }
}

/// The device with the tiled kernels and, where it can run them, with the lane kernels in both their forms: without shuffles
/// a workgroup may have any size.
fn devices(caps: &Caps) -> Vec<(Caps, KernelFamily)> {
    let mut all = vec![(caps.clone(), KernelFamily::Tiled)];
    if let Ok(lane) = KernelFamily::choose(Kernels::Lane, caps) {
        // The compilers of such small ones take minutes for the tiles of the long ones.
        let long = if caps.subgroup < 8 { caps.subgroup } else { 16 };
        let sizes = std::collections::BTreeSet::from([caps.subgroup, long]);
        all.extend(sizes.into_iter().map(|subgroup| (Caps { subgroup, ..caps.clone() }, lane)));
    }
    all
}

/// The largest magnitude of some values; of codes it means nothing and is not read.
fn largest(values: &[u32]) -> u32 {
    let mut most = 0;
    values.iter().for_each(|v| maxima::record(&mut most, f32::from_bits(*v)));
    most
}

const FORMATS: [Format; 3] = [Format::F32, Format::U8, Format::I8];

/// A convolution on a device.
pub(super) fn conv_case(
    name: &str,
    g: &Geometry,
    device: (&Caps, KernelFamily),
    p: ConvParams,
    data: [Vec<u32>; 3],
) -> Case {
    let ([x, w, out], (caps, family)) = (data, device);
    let choice = select_conv(&p, Format::from_number(p.x_format), caps, family);
    conv_case_of(choice, name, g, p, [x, w, out])
}

pub(super) fn conv_case_of(
    choice: Choice,
    name: &str,
    g: &Geometry,
    p: ConvParams,
    [x, w, out]: [Vec<u32>; 3],
) -> Case {
    let maxima = [&x, &w].map(|values| largest(values));
    let p = ConvParams { x_max: 0, w_max: 1, ..p };
    // A network's layers share one table of weights: these begin after three vec4s that belong to another layer.
    let w = [integers(12, 77, -16, 15), w].concat();
    let w = Format::from_number(p.w_format).store(bytemuck::cast_slice(&w));
    let p = ConvParams { w_base: 3, ..p };
    let grid = choice.conv_grid(&p);
    let kernel = choice.kernel;
    Case::new(kernel, choice.variant, format!("{name} {g:?}"), &p, grid, vec![x, w, maxima.to_vec(), out])
}

pub(super) fn wgrad_case(
    name: &str,
    g: &Geometry,
    device: (&Caps, KernelFamily),
    p: WgradParams,
    data: [Vec<u32>; 2],
) -> Case {
    let choice = select_wgrad(&p, Format::from_number(p.x_format), device.0, device.1);
    wgrad_case_of(choice, name, g, p, data)
}

fn wgrad_case_of(choice: Choice, name: &str, g: &Geometry, p: WgradParams, [x, dy]: [Vec<u32>; 2]) -> Case {
    let x_format = Format::from_number(p.x_format);
    let maxima = [&x, &dy].map(|values| largest(values));
    let p = WgradParams { x_max: 0, dy_max: 1, part4: 5, ..p };
    // Those of another layer come first and stay.
    let others = constant(4 * p.part4 as usize, 0.0);
    let part = [others, unset(p.splits as usize * g.kernel * g.kernel * g.from.c * g.to.c)].concat();
    let grid = choice.wgrad_grid(&p);
    Case::new(
        &WGRAD,
        choice.variant,
        format!("{name} {x_format:?} {g:?}"),
        &p,
        grid,
        vec![x, dy, maxima.to_vec(), part],
    )
}

pub(super) fn cases(caps: &Caps) -> Vec<Case> {
    let mut cases = Vec::new();
    for (k, shape) in SHAPES.iter().enumerate() {
        let g = geometry(*shape);
        let (inputs, outputs) = (g.batch * g.from.len(), g.batch * g.to.len());
        let weights = g.kernel * g.kernel * g.from.c * g.to.c;
        let seed = 10 * k as u32;
        let w = || integers(weights, seed + 1, -16, 15);
        let dy = || integers(outputs, seed + 2, -9, 9);
        for (caps, family) in devices(caps) {
            let device = (&caps, family);
            for format in FORMATS {
                let x = || operand(format, inputs, seed);
                let name = format!("forward {format:?}");
                let data = [x(), w(), unset(outputs)];
                cases.push(conv_case(&name, &g, device, g.forward(format), data).exact());
                cases.push(wgrad_case("", &g, device, g.weight_gradient(format), [x(), dy()]).exact());
            }
            for accumulate in [false, true] {
                let out = if accumulate { integers(inputs, seed + 3, -99, 99) } else { unset(inputs) };
                let name = format!("data gradient, accumulate {accumulate}");
                let p = g.data_gradient(accumulate);
                cases.push(conv_case(&name, &g, device, p, [dy(), w(), out]).exact());
            }
            let data = [reals(inputs, seed + 4, -1.0, 1.0), reals(weights, seed + 5, -1.0, 1.0), unset(outputs)];
            cases.push(conv_case("forward, reals", &g, device, g.forward(Format::F32), data));
            if caps.matrix > 0 && family == KernelFamily::Tiled {
                cases.extend(real_operands(&g, device, seed));
            }
        }
    }
    cases.extend(packed_codes(caps));
    cases.extend(large_tiles(caps));
    cases.extend(winograd(caps));
    cases.extend(split_wgrad(caps));
    cases.extend(large_sums(caps));
    cases
}

/// Codes multiplied four at a time, whether the device would choose that or not, with several tiles: some as large as they get.
fn packed_codes(caps: &Caps) -> Vec<Case> {
    let caps = Caps { dot4: true, matrix: 0, ..caps.clone() };
    let mut cases = Vec::new();
    for shape in [[3, 9, 7, 40, 72, 3, 2], [2, 9, 8, 24, 136, 1, 1], [1, 13, 11, 72, 16, 3, 1]] {
        let g = geometry(shape);
        for (format, narrow) in [(Format::U8, 0), (Format::U8, 1), (Format::I8, 1)] {
            let p = ConvParams { narrow, ..g.forward(format) };
            let mask = if (format, narrow) == (Format::U8, 1) { 0x7f7f_7f7f } else { u32::MAX };
            let x: Vec<u32> = operand(format, g.batch * g.from.len(), 1).iter().map(|v| v & mask).collect();
            let w = integers(g.kernel * g.kernel * g.from.c * g.to.c, 2, -128, 127);
            let candidates = conv_candidates(&p, format, &caps, KernelFamily::Tiled);
            let packed = candidates.into_iter().filter(|c| c.variant.shader == "conv_dot4");
            for choice in packed.step_by(3) {
                let name = format!("packed {format:?} narrow {narrow} {}", choice.variant.title());
                let data = [x.clone(), w.clone(), unset(g.batch * g.to.len())];
                cases.push(conv_case_of(choice, &name, &g, p, data).exact());
            }
        }
    }
    cases
}

/// Winograd's transforms, of tiles that are not the batch's first ones, and the products between them.
fn winograd(caps: &Caps) -> Vec<Case> {
    let g = geometry([3, 6, 4, 12, 24, 3, 1]);
    let (inputs, outputs) = (g.batch * g.from.len(), g.batch * g.to.len());
    let items = g.from.c * g.to.c / 4;
    let (tiles, first) = (10, 7); // of 18
    let of = |p: TileParams| TileParams { tiles, first, ..p };
    let grid = |channels: usize| flat_grid(tiles as usize * channels / 4);
    let mut cases = Vec::new();
    for flip in [0, 1] {
        let p = WeightParams { w_base: 3, items: items as u32, flip, pad: 0 };
        let data = vec![integers(12 + 36 * items, 1, -16, 15), unset(64 * items)];
        let variant = Variant::only(winograd::WEIGHTS.name);
        cases.push(Case::new(&winograd::WEIGHTS, variant, format!("flip {flip}"), &p, flat_grid(items), data).exact());
    }
    for format in [Format::F32, Format::U8, Format::I8, Format::U4] {
        let p = of(winograd::tiles(&g, g.from.c, format, false));
        let data = vec![operand(format, inputs, 2), unset(16 * tiles as usize * g.from.c)];
        let variant = winograd::in_variant(format);
        cases.push(Case::new(&winograd::IN, variant, format!("{format:?}"), &p, grid(g.from.c), data).exact());
    }
    for add in [false, true] {
        let p = of(winograd::tiles(&g, g.to.c, Format::F32, add));
        let out = integers(outputs, 4, -9, 9);
        let data = vec![integers(16 * tiles as usize * g.to.c, 3, -99, 99), out];
        let variant = Variant::only(winograd::OUT.name);
        cases.push(Case::new(&winograd::OUT, variant, format!("add {add}"), &p, grid(g.to.c), data).exact());
    }
    for (caps, family) in devices(caps) {
        let p = winograd::product(37, 24, 40);
        let choice = select_conv(&p, Format::F32, &caps, family);
        let data = [integers(16 * 37 * 24, 5, -9, 9), integers(16 * 24 * 40, 6, -9, 9), unset(16 * 37 * 40)];
        cases.push(conv_case_of(choice, "tiles", &g, p, data).exact());
    }
    cases
}

/// The variant with the largest tile.
pub(super) fn largest_tile(choices: Vec<Choice>) -> Choice {
    choices.into_iter().max_by_key(|c| c.variant.tile.map(|[m, n]| m * n)).expect("there are tiles")
}

/// The largest tiles, which GPUs take for large batches, on shapes that fill none.
fn large_tiles(caps: &Caps) -> Vec<Case> {
    let caps = Caps { dot4: false, matrix: 0, ..caps.clone() };
    let g = geometry([1, 13, 11, 136, 136, 3, 1]);
    let values = g.batch * g.from.len();
    let w = || integers(9 * g.from.c * g.to.c, 2, -1, 1);
    let p = g.forward(Format::F32);
    let choice = largest_tile(conv_candidates(&p, Format::F32, &caps, KernelFamily::Tiled));
    let x = integers(values, 1, -9, 9);
    let conv = conv_case_of(choice, "large tiles", &g, p, [x, w(), unset(values)]).exact();
    let p = WgradParams { part4: 0, ..g.weight_gradient(Format::U8) };
    let choice = largest_tile(wgrad_candidates(&p, Format::U8, &caps, KernelFamily::Tiled));
    let data = [operand(Format::U8, values, 3), integers(values, 4, -9, 9)];
    let wgrad = wgrad_case_of(choice, "large tiles", &g, p, data).exact();
    vec![conv, wgrad]
}

/// Gradients as small as they get (1e-7) on matrix units, times codes and times reals, in two terms of f16 and in one.
fn real_operands(g: &Geometry, device: (&Caps, KernelFamily), seed: u32) -> Vec<Case> {
    let (inputs, outputs) = (g.batch * g.from.len(), g.batch * g.to.len());
    let weights = g.kernel * g.kernel * g.from.c * g.to.c;
    let dy = || reals(outputs, seed + 6, -2e-7, 2e-7);
    let codes = || integers(weights, seed + 7, -16, 15);
    let real = || reals(weights, seed + 8, -1.0, 1.0);
    let x = || reals(inputs, seed + 9, -1.0, 3.0);
    let mut cases = Vec::new();
    for terms in [1, 2] {
        let coarse = |case: Case| if terms == 1 { case.coarse() } else { case };
        for accumulate in [false, true] {
            let p = ConvParams { terms, ..g.data_gradient(accumulate) };
            let out = || if accumulate { reals(inputs, seed + 3, -1e-6, 1e-6) } else { unset(inputs) };
            let name = format!("data gradient, {terms} terms, accumulate {accumulate}");
            let of_codes = ConvParams { w_codes: 1, ..p };
            cases.push(coarse(conv_case(&name, g, device, of_codes, [dy(), codes(), out()])));
            cases.push(coarse(conv_case(&name, g, device, p, [dy(), real(), out()])));
        }
        let name = format!("{terms} terms");
        let p = ConvParams { terms, ..g.forward(Format::F32) };
        cases.push(coarse(conv_case(&name, g, device, p, [x(), real(), unset(outputs)])));
        let p = WgradParams { terms, ..g.weight_gradient(Format::F32) };
        cases.push(coarse(wgrad_case(&name, g, device, p, [x(), dy()])));
        let p = WgradParams { terms, ..g.weight_gradient(Format::U8) };
        cases.push(coarse(wgrad_case(&name, g, device, p, [operand(Format::U8, inputs, seed), dy()])));
    }
    cases
}

/// Sums of 8-bit codes beyond 2^24, where f32 would round: up to 1152 products of 127 and -128, or of 255 and 127.
fn large_sums(caps: &Caps) -> Vec<Case> {
    let g = geometry([2, 3, 3, 128, 16, 3, 1]);
    let (inputs, weights) = (g.batch * g.from.len(), 9 * g.from.c * g.to.c);
    let mut cases = Vec::new();
    for (caps, family) in devices(caps) {
        let device = (&caps, family);
        for format in FORMATS {
            let p = ConvParams { integer: 1, ..g.forward(format) };
            let x = if format == Format::F32 { integers(inputs, 5, 200, 255) } else { operand(format, inputs, 5) };
            let data = [x, integers(weights, 6, 90, 127), unset(g.batch * g.to.len())];
            cases.push(conv_case(&format!("large sums {format:?}"), &g, device, p, data).exact());
        }
    }
    cases
}

/// Enough pixels for several splits, the last one short.
fn split_wgrad(caps: &Caps) -> Vec<Case> {
    let g = geometry([11, 29, 31, 8, 16, 3, 1]);
    let (splits, chunk) = g.wgrad_splits();
    assert!(splits > 1 && splits * chunk > g.batch * g.to.pixels());
    let data = || [integers(g.batch * g.from.len(), 1, -9, 9), integers(g.batch * g.to.len(), 2, -9, 9)];
    let case = |(caps, family): (Caps, _)| {
        wgrad_case("splits", &g, (&caps, family), g.weight_gradient(Format::F32), data()).exact()
    };
    devices(caps).into_iter().map(case).collect()
}
