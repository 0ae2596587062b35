//! What kernels and their twins compute, against formulas written out here a second time.

use bytemuck::{Pod, Zeroable, bytes_of, cast_slice};
use cqat::config::{Config, Estimator, Granularity, QuantConfig, WeightQuantConfig};
use cqat::cpu::CpuProgram;
use cqat::data::PICTURE_BYTES;
use cqat::exec::{Executor, ExecutorExt};
use cqat::kernels::activation::part_words;
use cqat::kernels::input::{AUGMENT, AugmentParams, random};
use cqat::kernels::norm::{self, BwdMergeParams, BwdParams, EPS, MergeParams, NormBranch};
use cqat::kernels::optimizer::{GRAD_CLIP, GRAD_NORM, GradClipParams, GradNormParams, SGD, SgdParams};
use cqat::kernels::range::{RangeRow, TableRow, UPDATE, UpdateParams};
use cqat::kernels::{Caps, KernelDef, Step, Twin, TwinBuffer};
use cqat::net::Net;
use cqat::normalisation::Normalisation;
use cqat::plan::lower::{Lowered, Options, lower};
use cqat::quant::{QuantSpec, ScaleRule, Tracking, nearest_pow2};
use cqat::session::upload_constants;
use cqat::tensors;

/// Runs a twin; the last buffers are written.
fn run<P: Pod>(kernel: &KernelDef, params: &P, read: &[&[u32]], write: &mut [&mut Vec<u32>]) {
    let buffers = read.iter().map(|b| TwinBuffer::Read(b));
    let buffers = buffers.chain(write.iter_mut().map(|b| TwinBuffer::Write(Some(b)))).collect();
    (kernel.twin)(&mut Twin::new(bytes_of(params), buffers));
}

fn step(s: Step) -> Vec<u32> {
    cast_slice(&[s]).to_vec()
}

const SIDE: usize = 32;

/// Pictures of random bytes, and a table that tells channels and bytes apart.
fn pictures(count: usize) -> (Vec<u8>, Vec<f32>) {
    let bytes = (0..count * PICTURE_BYTES).map(|i| (random(3, i as u32, 0) >> 24) as u8).collect();
    let mut table: Vec<f32> = (0..768).map(|i| i as f32).collect();
    table.push(-1.0);
    (bytes, table)
}

fn augmented(bytes: &[u8], table: &[f32], crop_padding: u32, flip: u32, cutout: u32) -> Vec<f32> {
    let batch = (bytes.len() / PICTURE_BYTES) as u32;
    let p = AugmentParams { batch, size: SIDE as u32, crop_padding, flip, cutout, codes: 0, first: 7, pad: 0 };
    let mut out = vec![0; batch as usize * SIDE * SIDE * 4];
    let picks: Vec<u32> = (0..batch).collect();
    let (first, more) = bytes.split_at(bytes.len().min(7 * PICTURE_BYTES));
    let [first, more]: [Vec<u32>; 2] = [first, more].map(bytemuck::pod_collect_to_vec);
    run(
        &AUGMENT,
        &p,
        &[&first, &more, &picks, &step(Step { seed: 11, ..Step::default() }), cast_slice(table)],
        &mut [&mut out],
    );
    out.into_iter().map(f32::from_bits).collect()
}

#[test]
fn a_crop_is_a_window_of_the_padded_picture_and_half_are_mirrored() {
    const PADDING: usize = 4;
    let count = 300;
    let (bytes, table) = pictures(count);
    let out = augmented(&bytes, &table, PADDING as u32, 1, 0);
    let mut seen = Vec::new();
    for (picture, out) in bytes.chunks(PICTURE_BYTES).zip(out.chunks(4 * SIDE * SIDE)) {
        // Raw zeros around the picture, normalised like any other byte.
        let padded = |c: usize, y: usize, x: usize| {
            let inside = (PADDING..PADDING + SIDE).contains(&y) && (PADDING..PADDING + SIDE).contains(&x);
            let byte = if inside { picture[(c * SIDE + y - PADDING) * SIDE + x - PADDING] } else { 0 };
            table[256 * c + usize::from(byte)]
        };
        let equals = |top: usize, left: usize, mirrored: bool| {
            (0..SIDE * SIDE).all(|i| {
                let (y, x) = (i / SIDE, i % SIDE);
                let x = if mirrored { SIDE - 1 - x } else { x };
                (0..3).all(|c| out[4 * i + c] == padded(c, top + y, left + x)) && out[4 * i + 3] == 0.0
            })
        };
        let windows = (0..=2 * PADDING).flat_map(|top| (0..=2 * PADDING).map(move |left| (top, left)));
        let mut found = windows.flat_map(|(t, l)| [(t, l, false), (t, l, true)]).filter(|&(t, l, m)| equals(t, l, m));
        seen.push(found.next().expect("every picture is a window of its padded form"));
        assert_eq!(found.next(), None);
    }
    for offset in 0..=2 * PADDING {
        assert!(seen.iter().any(|s| s.0 == offset) && seen.iter().any(|s| s.1 == offset), "offset {offset}");
    }
    let mirrored = seen.iter().filter(|s| s.2).count();
    assert!((count * 2 / 5..count * 3 / 5).contains(&mirrored), "{mirrored} of {count} are mirrored");
}

#[test]
fn a_cutout_is_one_square_clipped_by_the_border() {
    const SQUARE: usize = 9;
    let (bytes, table) = pictures(100);
    let plain = augmented(&bytes, &table, 0, 0, 0);
    let cut = augmented(&bytes, &table, 0, 0, SQUARE as u32);
    let mut whole = 0;
    for (plain, cut) in plain.chunks(4 * SIDE * SIDE).zip(cut.chunks(4 * SIDE * SIDE)) {
        let gone = |i: usize| (0..3).all(|c| cut[4 * i + c] == -1.0);
        let places: Vec<usize> = (0..SIDE * SIDE).filter(|&i| gone(i)).collect();
        assert!((0..SIDE * SIDE).all(|i| gone(i) || plain[4 * i..][..4] == cut[4 * i..][..4]));
        let extent = |f: fn(usize) -> usize| {
            let (low, high) =
                (places.iter().map(|&i| f(i)).min().unwrap(), places.iter().map(|&i| f(i)).max().unwrap());
            // Short of the full side only where it reaches the border.
            assert!(high - low + 1 == SQUARE || low == 0 || high == SIDE - 1);
            high - low + 1
        };
        let (height, width) = (extent(|i| i / SIDE), extent(|i| i % SIDE));
        assert!(height <= SQUARE && width <= SQUARE && places.len() == height * width, "{height} x {width}");
        whole += usize::from(height == SQUARE && width == SQUARE);
    }
    assert!(whole > 20, "{whole} squares lie inside");
    // The centre is a pixel of the picture, so one pixel always goes, and each row's turn comes.
    let cut = augmented(&bytes, &table, 0, 0, 1);
    let gone: Vec<usize> = (0..cut.len() / 4).filter(|&i| (0..3).all(|c| cut[4 * i + c] == -1.0)).collect();
    assert_eq!(gone.iter().map(|i| i / (SIDE * SIDE)).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    let rows: std::collections::BTreeSet<usize> = gone.iter().map(|i| i / SIDE % SIDE).collect();
    assert!(rows.len() > SIDE / 2 && rows.contains(&(SIDE - 1)), "{rows:?}");
}

#[test]
fn sgd_is_torch_s_and_only_the_first_parameters_decay() {
    for nesterov in [false, true] {
        let (lr, momentum, weight_decay) = (0.1f32, 0.9f32, 0.01f32);
        let p = SgdParams { words4: 3, decayed4: 2, nesterov: nesterov.into(), momentum, weight_decay, pad: [0; 3] };
        let start: Vec<f32> = (0..12).map(|i| i as f32 - 5.5).collect();
        let (mut params, mut velocity): (Vec<u32>, _) = (cast_slice(&start).to_vec(), vec![0u32; 12]);
        let mut expected: Vec<(f64, f64)> = start.iter().map(|w| (f64::from(*w), 0.0)).collect();
        for turn in 0..3 {
            let grads: Vec<f32> = (0..12).map(|i| ((i * 7 + turn) % 5) as f32 - 2.0).collect();
            let clip = [1.0, 0.5, 0.25][turn];
            let lr_step = step(Step { lr, ..Step::default() });
            run(&SGD, &p, &[cast_slice(&grads), &lr_step, cast_slice(&[clip])], &mut [&mut params, &mut velocity]);
            for (i, (w, buf)) in expected.iter_mut().enumerate() {
                let d = f64::from(clip * grads[i]) + if i < 8 { f64::from(weight_decay) * *w } else { 0.0 };
                *buf = if turn == 0 { d } else { f64::from(momentum) * *buf + d };
                let direction = if nesterov { d + f64::from(momentum) * *buf } else { *buf };
                *w -= f64::from(lr) * direction;
            }
        }
        for (found, (w, _)) in params.iter().zip(&expected) {
            assert!((f64::from(f32::from_bits(*found)) - w).abs() < 1e-5, "nesterov {nesterov}");
        }
    }
}

/// clip_grad_norm_ of PyTorch in f64: g * min(1, most / (|g| + 1e-6)).
#[test]
fn gradients_are_clipped_by_the_norm_of_all() {
    let grads: Vec<f32> = (0..4 * 1000).map(|i| (random(9, i, 0) >> 8) as f32 / (1 << 24) as f32 - 0.5).collect();
    let norm = grads.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    for (groups, most) in [(1, 1.0f32), (7, 3.0), (256, 100.0)] {
        let (mut parts, mut clip) = (vec![0; groups as usize], vec![0; 4]);
        let p = GradNormParams { words4: 1000, groups, pad: [0; 2] };
        run(&GRAD_NORM, &p, &[cast_slice(&grads)], &mut [&mut parts]);
        run(&GRAD_CLIP, &GradClipParams { groups, most, pad: [0; 2] }, &[&parts], &mut [&mut clip]);
        let [factor, found] = [clip[0], clip[1]].map(|w| f64::from(f32::from_bits(w)));
        assert!((found - norm).abs() < 1e-5 * norm, "{found}, expected {norm}");
        assert!((factor - (f64::from(most) / (norm + 1e-6)).min(1.0)).abs() < 1e-5, "{factor} at {most}");
    }
}

fn lowered(net: &Net, quant: &QuantConfig) -> Lowered {
    let spec = QuantSpec::new(quant, net).unwrap();
    lower(net, spec.as_ref(), &Options::new(2, Caps::portable(false, 1024))).unwrap()
}

#[test]
fn weights_decay_and_norms_and_biases_do_not() {
    let net = Net::resnet(10, 8, 10, 32).unwrap();
    let l = lowered(&net, &QuantConfig::default());
    let last = l.plan.programs[l.float.train.0].dispatches.last().unwrap();
    let p: SgdParams = bytemuck::pod_read_unaligned(&last.params);
    let decays = |t| l.plan.offset(t) < p.decayed4 as usize * 4;
    assert!(l.layout.weights.iter().all(|w| decays(w.weight)));
    assert!(l.layout.norms.iter().map(|n| n.affine).chain([l.layout.bias.0]).all(|t| !decays(t)));
}

/// Between the extremes (Jacob et al. 2018): S = max |w| / (2^(b-1) - 1), and max / (2^b - 1) after a ReLU, in f64 here.
#[test]
fn minmax_reaches_the_extremes_with_the_outermost_codes() {
    let net = Net::resnet(10, 8, 10, 32).unwrap();
    let sets = ["quant.method=minmax".to_string(), "quant.first_last=same".to_string()];
    for bits in 2..=8i32 {
        let mut sets = sets.to_vec();
        sets.extend([format!("quant.weight_bits={bits}"), format!("quant.activation_bits={bits}")]);
        let spec = QuantSpec::new(&Config::load("cqat", &sets).unwrap().quant, &net).unwrap().unwrap();
        let layer = |name: &str| *spec.layer(net.layers.iter().position(|l| l.name() == name).unwrap()).unwrap();
        let close =
            |got: f32, want: f64| assert!((f64::from(got) / want - 1.0).abs() < 1e-6, "{bits} bits: {got} {want}");
        let (weights, activations) = (layer("layer1.0.conv1"), layer("layer1.0.relu1"));
        let (top, range) = (2i32.pow(bits as u32 - 1) - 1, 1.7);
        let scale = weights.rule.scale(range);
        close(scale.scale, f64::from(range) / f64::from(top));
        let codes = [-1.7, -0.4, 0.0, 0.9, 1.7].map(|w| weights.quant.code(w, scale.inv_scale));
        assert_eq!(codes, [-1.7f64, -0.4, 0.0, 0.9, 1.7].map(|w| (w / 1.7 * f64::from(top)).round_ties_even() as i32));
        let top = 2i32.pow(bits as u32) - 1;
        let scale = activations.rule.scale(range);
        close(scale.scale, f64::from(range) / f64::from(top));
        let codes = [0.0, 0.4, 1.1, 1.7, 9.0].map(|a| activations.quant.code(a, scale.inv_scale));
        assert_eq!(codes, [0.0, 0.4, 1.1, 1.7, 1.7f64].map(|a| (a / 1.7 * f64::from(top)).round_ties_even() as i32));
        assert!(weights.quant.passes(-1.7, weights.rule.scale(range).inv_scale), "nothing is clipped");
    }
}

/// Statistics of `values` in two parts, as `act_fwd` leaves them.
fn parts(values: &[f32]) -> Vec<u32> {
    let mut all = Vec::new();
    for half in values.chunks(values.len().div_ceil(2)) {
        let top = half.iter().copied().fold(0.0, f32::max);
        let (sum, squares) = (half.iter().sum::<f32>(), half.iter().map(|v| v * v).sum::<f32>());
        all.extend([top, 0.0, 1.0, 0.0, sum, squares, 0.0, 0.0].map(f32::to_bits));
    }
    all
}

#[test]
fn ranges_move_as_their_names_say() {
    let values = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0];
    let (mean, deviation) = (16.0f32 / 6.0, (66.0f32 / 6.0 - (16.0f32 / 6.0).powi(2)).sqrt());
    let rule = ScaleRule { levels: 255.0, factor: 8.0, pow2: 0, shift: 0 };
    let moved = |mode: Tracking, sigmas: Option<f32>, frozen: u32, calibrated: f32| {
        let p = UpdateParams {
            first: 0,
            count: 1,
            mode: mode as u32,
            use_sigma: sigmas.is_some().into(),
            sigmas: sigmas.unwrap_or(0.0),
            ema: 0.75,
            count_step: 0,
            pad: 0,
        };
        let table =
            cast_slice(&[TableRow { values: 6, parts: 2, blocked_parts: 1, rule, ..TableRow::zeroed() }]).to_vec();
        let mut ranges = cast_slice(&[RangeRow { range: 2.0, calibrated, ..RangeRow::UNIT }]).to_vec();
        run(
            &UPDATE,
            &p,
            &[&table, &parts(&values), &[0; 4], &step(Step { frozen, ..Step::default() }), &[0; 4]],
            &mut [&mut ranges, &mut vec![0; 4]],
        );
        let row: RangeRow = bytemuck::pod_read_unaligned(cast_slice(&ranges));
        if row.range != 2.0 {
            assert!(
                (row.scale - 8.0 * row.range / 255.0).abs() < 1e-7 && (row.scale * row.inv_scale - 1.0).abs() < 1e-6
            );
        }
        row.range
    };
    assert_eq!(moved(Tracking::Hold, None, 0, 0.0), 2.0);
    assert_eq!(moved(Tracking::Batch, None, 0, 0.0), 6.0);
    assert_eq!(moved(Tracking::Batch, None, 1, 0.0), 2.0);
    assert_eq!(moved(Tracking::Ema, None, 0, 0.0), 0.75 * 2.0 + 0.25 * 6.0);
    assert_eq!(moved(Tracking::Max, None, 0, 0.0), 6.0);
    assert_eq!(moved(Tracking::Mean, None, 0, 1.0), 4.0); // of one batch with range 2 and this one
    assert!((moved(Tracking::Batch, Some(2.0), 0, 0.0) - (mean + 2.0 * deviation)).abs() < 1e-5);
}

/// Scales come from the weights that carry data: conv1 has three input channels stored as four, ten classes are stored
/// as sixteen columns.
#[test]
fn the_deviation_of_weights_counts_no_padding() {
    for granularity in [Granularity::PerTensor, Granularity::PerChannel] {
        let weights =
            WeightQuantConfig { estimator: Some(Estimator::KSigma), sigmas: 2.0, granularity, ..Default::default() };
        let net = Net::resnet(8, 8, 10, 32).unwrap();
        let l = lowered(&net, &QuantConfig { weights, ..QuantConfig::default() });
        let (plan, layout) = (&l.plan, &l.layout);
        let mut exec = CpuProgram::new(plan);
        upload_constants(&l, &mut exec, &Normalisation::NEUTRAL);
        let start = tensors::initialise(layout, 5);
        let words = plan.tensor(layout.params).words;
        exec.write_as(layout.params, &tensors::insert(plan, layout, words, &start, "").unwrap());
        exec.write_as(layout.step, &[Step::zeroed()]);
        exec.run(l.quantized.unwrap().weights).unwrap();
        for name in ["conv1", "fc"] {
            let w = layout.weights.iter().find(|w| w.name == name).unwrap();
            let values = &start[&format!("{name}.weight")].data;
            let channel = &values[..values.len() / w.real_out];
            let of = if granularity == Granularity::PerTensor { &values[..] } else { channel };
            let mean = of.iter().map(|v| f64::from(*v)).sum::<f64>() / of.len() as f64;
            let variance = of.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / of.len() as f64;
            let expected = (mean.abs() + 2.0 * variance.sqrt()) / 127.0; // 8 bits: factor 1
            let found = f64::from(exec.read_f32(w.scales).unwrap()[0]);
            assert!((found / expected - 1.0).abs() < 1e-4, "{name} {granularity:?}: {found}, expected {expected}");
        }
    }
}

/// A batch norm whose factor is rounded to a power of two, and passes its gradient straight: the kernels against finite differences of
/// `(k0 + k - k(0)) (y - mean) + beta`, where k0 is the rounded factor and k(0) the real one, both of the point itself.
#[test]
fn gradients_pass_rounded_batch_norm_straight() {
    const ROWS: usize = 12;
    const C: usize = 4;
    let real = |seed, i: usize| f64::from(random(seed, i as u32, 0) >> 8) / f64::from(1 << 23) - 1.0;
    let y: Vec<f64> = (0..ROWS * C).map(|i| 1.0 + 2.0 * real(1, i)).collect();
    let dz: Vec<f64> = (0..ROWS * C).map(|i| real(2, i)).collect();
    let affine = [[1.3, -0.7, 0.0, 0.45], [0.2, -0.1, 0.4, 0.0]];

    let moments = |y: &[f64], c: usize| {
        let column = || (0..ROWS).map(|r| y[r * C + c]);
        let mean = column().sum::<f64>() / ROWS as f64;
        (mean, column().map(|v| (v - mean) * (v - mean)).sum::<f64>() / ROWS as f64)
    };
    let factor = |y: &[f64], gamma: f64, c: usize| gamma / (moments(y, c).1 + f64::from(EPS)).sqrt();
    let loss = |at: &[f64], gamma: f64, c: usize| -> f64 {
        let k = f64::from(nearest_pow2(factor(&y, affine[0][c], c) as f32)) + factor(at, gamma, c)
            - factor(&y, affine[0][c], c);
        (0..ROWS).map(|r| dz[r * C + c] * (k * (at[r * C + c] - moments(at, c).0) + affine[1][c])).sum()
    };

    let words = |v: &[f64]| -> Vec<u32> { v.iter().map(|v| (*v as f32).to_bits()).collect() };
    let floats = |v: &[u32]| -> Vec<f64> { v.iter().map(|v| f64::from(f32::from_bits(*v))).collect() };
    let main = NormBranch { running4: 0, x_row: -1, ..NormBranch::default() };
    let (channels, rows, chunk) = (C as u32, ROWS as u32, ROWS as u32);
    let p = MergeParams {
        channels,
        rows,
        chunk,
        chunks: 1,
        evaluate: 0,
        branches: 1,
        eps: EPS,
        momentum: 0.1,
        pow2: 1,
        pad: [0; 3],
        main,
        projection: main,
    };
    let stats: Vec<f64> = [0, 1]
        .into_iter()
        .flat_map(|what| (0..C).map(move |c| (what, c)))
        .map(|(what, c)| {
            let (mean, variance) = moments(&y, c);
            if what == 0 { mean } else { variance * ROWS as f64 }
        })
        .collect();
    let (params, none) = (words(affine.as_flattened()), vec![0u32; 64]);
    let (mut context, mut running, mut health) = (vec![0; 4 * C], vec![0; 2 * C], vec![0; 4]);
    let read = [&words(&stats)[..], &params, &none, &none, &step(Step::default())];
    run(&norm::MERGE, &p, &read, &mut [&mut running, &mut context, &mut health]);
    let k = floats(&context[..C]);
    assert!(k.iter().all(|k| *k == 0.0 || k.abs().log2().fract() == 0.0) && k[2] == 0.0 && k[1] < 0.0, "{k:?}");

    let xhat = |r: usize, c: usize| y[r * C + c] * floats(&context)[2 * C + c] + floats(&context)[3 * C + c];
    let mut part = vec![0f64; part_words(1, C)];
    for c in 0..C {
        for r in 0..ROWS {
            part[c] += dz[r * C + c];
            part[4 + c] += dz[r * C + c] * xhat(r, c);
        }
    }
    let p = BwdMergeParams { channels, rows, chunks: 1, branches: 1, pow2: 1, pad: [0; 3], main, projection: main };
    let (mut grads, mut coefficients) = (vec![0; 2 * C], vec![0; 3 * C]);
    let (mut blocked, mut maxima) = (vec![0; C], vec![0; 4]);
    let read = [&words(&part)[..], &params, &context, &none];
    run(&norm::BWD_MERGE, &p, &read, &mut [&mut grads, &mut coefficients, &mut blocked, &mut maxima]);
    let p = BwdParams { rows, cols4: 1, chunk, projection: 0, keep_max: 0, max_row: 0, projection_max_row: 0, pad: 0 };
    let (mut dy, mut other) = (vec![0; ROWS * C], vec![0; 4]);
    let read = [&words(&dz)[..], &words(&y), &none, &context, &coefficients];
    run(&norm::BWD, &p, &read, &mut [&mut dy, &mut other, &mut maxima]);

    const H: f64 = 1e-5;
    for c in 0..C {
        let gamma = affine[0][c];
        let slope = (loss(&y, gamma + H, c) - loss(&y, gamma - H, c)) / (2.0 * H);
        assert!((floats(&grads)[c] - slope).abs() < 1e-4 * (1.0 + slope.abs()), "gamma of {c}: {slope}");
        for r in 0..ROWS {
            let at = |h: f64| {
                let mut moved = y.clone();
                moved[r * C + c] += h;
                loss(&moved, gamma, c)
            };
            let (slope, found) = ((at(H) - at(-H)) / (2.0 * H), floats(&dy)[r * C + c]);
            assert!(
                (found - slope).abs() < 1e-4 * (1.0 + slope.abs()),
                "row {r}, channel {c}: {found}, expected {slope}"
            );
        }
    }
}
