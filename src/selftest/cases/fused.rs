//! Cases of convolutions with other ends: `conv_norm` leaves statistics, `conv_act` goes back through an activation. And the few products
//! that tell whether a device's matrix units agree.

use super::matrix::{conv_case, conv_case_of, geometry, largest_tile, operand, wgrad_case};
use super::{A4, Case, bits, constant, integers, quarters, ranges, reals, unset};
use crate::kernels::activation::{ActParams, part_words};
use crate::kernels::conv::{ConvParams, act_chunks};
use crate::kernels::norm::FINISH_CHUNK;
use crate::kernels::select::{Choice, KernelFamily, conv_candidates, select_conv};
use crate::kernels::wgrad::WgradParams;
use crate::kernels::{Caps, Format};
use crate::quant::Quant;

/// What a quantized step does on the matrix units of a device that has some: products of codes with codes and with gradients; edges on
/// all sides. Every other use loads its matrices in the same ways.
pub(super) fn matrix_units(caps: &Caps) -> Vec<Case> {
    let shape = [3, 9, 7, 40, 72, 3, 2];
    let g = geometry(shape);
    let device = (caps, KernelFamily::Tiled);
    let (inputs, outputs) = (g.batch * g.from.len(), g.batch * g.to.len());
    let x = || operand(Format::U8, inputs, 1);
    let w = || integers(9 * g.from.c * g.to.c, 2, -128, 127);
    let dy = || reals(outputs, 3, -2e-7, 2e-7);
    let back = ConvParams { terms: 2, w_codes: 1, ..g.data_gradient(false) };
    let weight = WgradParams { terms: 2, ..g.weight_gradient(Format::U8) };
    let mut cases = vec![
        conv_case("matrix units", &g, device, g.forward(Format::U8), [x(), w(), unset(outputs)]).exact(),
        conv_case("matrix units", &g, device, back, [dy(), w(), unset(inputs)]),
        wgrad_case("matrix units", &g, device, weight, [x(), dy()]),
    ];
    cases.extend(statistics_case(shape, Format::I8, caps, usual(Format::I8, caps)));
    cases.extend(through_activation(shape, (1, Format::U8), A4, true, caps, usual(Format::F32, caps)));
    cases
}

pub(super) fn cases(caps: &Caps) -> Vec<Case> {
    let mut cases = statistics(caps);
    cases.extend(through_activations(caps));
    cases.extend(large_tiles(caps));
    cases
}

/// The largest tiles, which GPUs take for large batches, on shapes that fill none.
fn large_tiles(caps: &Caps) -> Vec<Case> {
    let caps = Caps { dot4: false, matrix: 0, ..caps.clone() };
    let shape = [1, 13, 11, 136, 136, 3, 1];
    let largest = |p: &ConvParams, format| largest_tile(conv_candidates(p, format, &caps, KernelFamily::Tiled));
    let statistics = statistics_case(shape, Format::I8, &caps, |p| largest(p, Format::I8));
    let back = through_activation(shape, (1, Format::U8), A4, true, &caps, |p| largest(p, Format::F32));
    statistics.into_iter().chain(back).collect()
}

/// Devices with each kind of a device's kernels.
fn kinds(caps: &Caps) -> Vec<Caps> {
    let plain = Caps { dot4: false, matrix: 0, ..caps.clone() };
    vec![caps.clone(), Caps { dot4: true, ..plain.clone() }, plain]
}

/// The variant that a device takes.
fn usual(stored: Format, caps: &Caps) -> impl Fn(&ConvParams) -> Choice {
    move |p| select_conv(p, stored, caps, KernelFamily::Tiled)
}

/// Convolutions that leave statistics: rows that fill no tile, and few columns.
fn statistics(caps: &Caps) -> Vec<Case> {
    let shapes = [[3, 9, 7, 40, 72, 3, 2], [5, 8, 8, 16, 8, 1, 1], [1, 5, 6, 8, 136, 3, 1]];
    let devices = kinds(caps);
    shapes
        .iter()
        .flat_map(|&shape| devices.iter().map(move |caps| (shape, caps)))
        .flat_map(|(shape, caps)| {
            [Format::I8, Format::U8].map(|format| statistics_case(shape, format, caps, usual(format, caps)))
        })
        .flatten()
        .collect()
}

/// Codes of `format`, I8 or U8, of which the latter may pass 7 bits.
fn statistics_case(
    shape: [usize; 7],
    format: Format,
    caps: &Caps,
    choose: impl Fn(&ConvParams) -> Choice,
) -> Option<Case> {
    let g = geometry(shape);
    let outputs = g.batch * g.to.len();
    let p = ConvParams { narrow: u32::from(format == Format::I8), part4: 2, ..g.forward(format) };
    let choice = choose(&p).with_statistics(caps)?;
    // Small, and not about 0: means and deviations are of one size, and each is compared.
    let x: Vec<u32> = operand(format, g.batch * g.from.len(), 1).iter().map(|v| v & 0x0101_0101).collect();
    let w = integers(g.kernel * g.kernel * g.from.c * g.to.c, 2, 0, 1);
    let title = format!("statistics {format:?} {}", choice.variant.title());
    let mut case = conv_case_of(choice, &title, &g, p, [x, w, unset(outputs)]);
    let part = unset(2 * (outputs / g.to.c).div_ceil(FINISH_CHUNK) * g.to.c);
    case.data.push([constant(4 * p.part4 as usize, 7.0), part].concat());
    Some(case.each())
}

/// Data gradients that go back through an activation, where the device can: stride 2 has classes of their own, some without a tap, and
/// odd sides lack rows.
fn through_activations(caps: &Caps) -> Vec<Case> {
    let shapes = [[3, 9, 7, 72, 40, 3, 2], [2, 7, 5, 8, 16, 1, 2], [5, 8, 8, 16, 8, 3, 1], [1, 5, 6, 136, 8, 3, 1]];
    let mut cases = Vec::new();
    for shape in shapes {
        for caps in kinds(caps).iter().step_by(2) {
            let of = |(shortcut, quant, accumulate)| {
                through_activation(shape, shortcut, quant, accumulate, caps, usual(Format::F32, caps))
            };
            let shortcuts =
                [((0, Format::F32), A4, true), ((1, Format::U8), A4, false), ((2, Format::F32), Quant::OFF, true)];
            cases.extend(shortcuts.into_iter().filter_map(of));
        }
    }
    cases
}

fn through_activation(
    shape: [usize; 7],
    (shortcut, format): (u32, Format),
    quant: Quant,
    accumulate: bool,
    caps: &Caps,
    choose: impl Fn(&ConvParams) -> Choice,
) -> Option<Case> {
    let g = geometry(shape);
    let (inputs, outputs) = (g.batch * g.from.len(), g.batch * g.to.len());
    let shortcut_row = if format == Format::U8 { 0 } else { -1 };
    let act = ActParams { range_row: 1, shortcut_row, shortcut, shortcut_format: format as u32, quant };
    let terms = if caps.matrix > 0 { 2 } else { 0 };
    let p = ConvParams { terms, w_codes: 1, act, ..g.data_gradient(accumulate) };
    let choice = choose(&p).with_activation(&act, caps)?;
    // Small: sums of 64 rows stay exact.
    let dy = integers(outputs, 1, -1, 1);
    let w = integers(g.kernel * g.kernel * g.from.c * g.to.c, 2, -1, 1);
    let out = if accumulate { integers(inputs, 3, -9, 9) } else { unset(inputs) };
    let title = format!("shortcut {shortcut} accumulate {accumulate} {}", choice.variant.title());
    let mut case = conv_case_of(choice, &title, &g, p, [dy, w, out]);
    case.data.extend([
        quarters(inputs, 4, -6, 6),
        quarters(8 * g.from.c, 5, -2, 2),
        if format == Format::U8 { bits(inputs / 4, 6) } else { quarters(inputs, 6, -4, 4) },
        ranges(2),
        unset(part_words(act_chunks(&p), g.from.c)),
    ]);
    Some(case.exact())
}
