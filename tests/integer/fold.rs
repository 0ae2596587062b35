//! Codes and accumulators against a reference that shares no code with the fold: naive convolutions over the real
//! tensors, and the published formula in 128 bits.

use cqat::config::{FirstLast, Granularity, LayerBits, QuantConfig, Reduce, WeightQuantConfig};
use cqat::integer::{IntegerLayer, IntegerNet, IntegerShortcut, Trace};
use cqat::net::{Conv, Layer, Shortcut};
use cqat::quant::{Quant, Quantizer};

use super::{Case, Random};

const PICTURES: usize = 3;

/// A rounding whose argument lies this close to an edge may fall either way.
const EDGE: f64 = 1e-4;

fn bits(weights: u32, activations: u32) -> QuantConfig {
    QuantConfig { weight_bits: weights, activation_bits: activations, ..QuantConfig::default() }
}

fn reduced(reduce: Reduce, window_shift: Option<u32>) -> QuantConfig {
    QuantConfig { reduce, window_shift, ..QuantConfig::default() }
}

fn configs() -> Vec<(&'static str, QuantConfig)> {
    let weights = |w: WeightQuantConfig| QuantConfig { weights: w, ..QuantConfig::default() };
    let per_channel = WeightQuantConfig { granularity: Granularity::PerChannel, ..Default::default() };
    let mut pow2 = weights(WeightQuantConfig { pow2: true, narrow: true, ..Default::default() });
    pow2.activations.pow2 = true;
    let single = LayerBits { weight_bits: Some(2), activation_bits: None };
    vec![
        ("W5A4", bits(5, 4)),
        ("W8A8", bits(8, 8)),
        ("W2A2", bits(2, 2)),
        ("W3A7", bits(3, 7)),
        ("per channel", weights(per_channel)),
        ("powers of two, narrow", pow2),
        ("drop_lsb_floor", reduced(Reduce::DropLsbFloor, None)),
        ("drop_lsb_round", reduced(Reduce::DropLsbRound, None)),
        ("shift_round_saturate", reduced(Reduce::ShiftRoundSaturate, Some(2))),
        ("first and last alike", QuantConfig { first_last: FirstLast::Same, base_bits: 6, ..bits(4, 3) }),
        ("other shortcuts", QuantConfig { shortcut_bits: Some(8), ..QuantConfig::default() }),
        (
            "one other layer",
            QuantConfig { layers: [("layer1.0.conv2".into(), single)].into(), ..QuantConfig::default() },
        ),
    ]
}

#[test]
fn codes_equal_the_real_formula() {
    for (k, (name, config)) in configs().iter().enumerate() {
        for (depth, size) in [(8, 8), (10, 9)] {
            let case = Case::new(depth, size, config, 10 + k as u32);
            check(&format!("{name}, depth {depth}, size {size}"), &case);
        }
    }
}

fn check(name: &str, case: &Case) {
    let net = case.folded();
    let images = Random::new(1).bytes(PICTURES * net.picture_bytes());
    let trace = net.run_layers(&images).unwrap();
    let values = Values::new(case, &images, &trace);
    let activations = case.net.activations().map(|(id, a)| (id, a.clone())).collect::<Vec<_>>();
    let (mut elements, mut edges) = (0, 0);
    for (k, (id, a)) in activations.iter().enumerate() {
        let q = case.spec.layer(*id).unwrap();
        let inv = f64::from(case.tensor(&format!("quant.{}.inv_scale", a.name))[0]);
        let (main, affine) = values.conv(case, a.main);
        assert_eq!(trace.layers[k].accumulators, main, "{name}, {}: accumulators", a.name);
        let channels = a.shape.c;
        let other: Vec<f64> = match a.shortcut {
            Shortcut::None => vec![0.0; main.len()],
            Shortcut::Identity(from) => {
                let (codes, scale) = values.of(from);
                codes.iter().map(|q| *q as f64 * scale).collect()
            }
            Shortcut::Projection(from) => {
                let (acc, affine) = values.conv(case, from);
                assert_eq!(trace.layers[k].projection, acc, "{name}, {}: projection", a.name);
                acc.iter().enumerate().map(|(i, v)| affine.at(i % channels, *v)).collect()
            }
        };
        for (i, acc) in main.iter().enumerate() {
            let v = (affine.at(i % channels, *acc) + other[i]) * inv;
            let got = i64::from(trace.layers[k].codes[i]);
            let (below, above) = (code(&q.quant, v - EDGE), code(&q.quant, v + EDGE));
            assert!(got >= below && got <= above, "{name}, {} element {i}: code {got} of {v}", a.name);
            elements += 1;
            edges += usize::from(below != above);
        }
        exact(&net, k, &trace);
    }
    assert!(edges * 200 < elements, "{name}: {edges} of {elements} on an edge");
    classifier(name, case, &net, &trace);
}

/// Half up on the base grid, then the bit window, in real arithmetic.
fn code(q: &Quant, v: f64) -> i64 {
    let base = (v + 0.5).floor().clamp(f64::from(q.base_lo), f64::from(q.base_hi));
    let step = f64::from(1 << q.shift);
    let half = if q.round_shift == 1 && q.shift > 0 { 0.5 } else { 0.0 };
    (base / step + half).floor().clamp(f64::from(q.lo), f64::from(q.hi)) as i64
}

/// The formula as published, in 128 bits: equality, and no sum that 64 bits would not hold.
fn exact(net: &IntegerNet, k: usize, trace: &Trace) {
    let layer = &net.layers[k];
    let shortcut: Vec<i128> = match &layer.shortcut {
        IntegerShortcut::None => vec![0; trace.layers[k].codes.len()],
        IntegerShortcut::Identity(0) => trace.input.iter().map(|q| i128::from(*q)).collect(),
        IntegerShortcut::Identity(v) => trace.layers[v - 1].codes.iter().map(|q| i128::from(*q)).collect(),
        IntegerShortcut::Projection(_) => trace.layers[k].projection.iter().map(|q| i128::from(*q)).collect(),
    };
    for (i, acc) in trace.layers[k].accumulators.iter().enumerate() {
        let c = i % layer.channels.len();
        assert!(i64::from(*acc).abs() <= layer.conv.weights.largest[c], "{}: the bound is too low", layer.name);
        let want = published(layer, c, i128::from(*acc), shortcut[i]);
        assert_eq!(i128::from(trace.layers[k].codes[i]), want, "{} element {i}", layer.name);
    }
}

fn published(layer: &IntegerLayer, c: usize, acc: i128, r: i128) -> i128 {
    let (k, n) = (layer.channels[c], layer.channels[c].shift);
    let sum = acc * i128::from(k.multiplier) + r * i128::from(k.shortcut) + i128::from(k.offset) + (1 << (n - 1));
    assert!(sum.abs() < 1 << 62);
    let q = layer.window;
    if q.shift == 0 {
        return (sum >> n).clamp(i128::from(q.lo), i128::from(q.hi));
    }
    let base = (sum >> n).clamp(i128::from(q.base_lo), i128::from(q.base_hi));
    let half = if q.round { 1 << (q.shift - 1) } else { 0 };
    ((base + half) >> q.shift).clamp(i128::from(q.lo), i128::from(q.hi))
}

fn classifier(name: &str, case: &Case, net: &IntegerNet, trace: &Trace) {
    let (id, l) = case.net.linear();
    let (codes, scales) = weight_codes(case, case.spec.layer(id).unwrap(), "fc", l.features);
    let last = case.net.last_activation();
    let Layer::Activation(a) = &case.net.layers[last] else { panic!("an activation") };
    let pixels = a.shape.pixels();
    let s_a = f64::from(case.tensor(&format!("quant.{}.scale", a.name))[0]);
    let all = &trace.layers.last().unwrap().codes;
    for n in 0..PICTURES {
        let column = |f: usize| (0..pixels).map(|p| i64::from(all[(n * pixels + p) * l.features + f])).sum::<i64>();
        let pooled: Vec<i64> = (0..l.features).map(column).collect();
        for c in 0..l.classes {
            let acc: i64 = pooled.iter().zip(&codes[c * l.features..]).map(|(x, w)| x * w).sum();
            assert_eq!(i64::from(trace.classifier[n * l.classes + c]), acc, "{name}");
            let mean: f64 =
                pooled.iter().zip(&codes[c * l.features..]).map(|(x, w)| (x * w) as f64).sum::<f64>() / pixels as f64;
            let want = mean * s_a * scales[c] + f64::from(case.tensor("fc.bias")[c]);
            let got = f64::from(net.classifier.logit(trace.logits[n * l.classes + c]));
            assert!((got - want).abs() <= 1e-6 * want.abs().max(1.0), "{name}: logit {got}, expected {want}");
        }
    }
}

/// Codes of a weight tensor and its real scales.
fn weight_codes(case: &Case, q: &Quantizer, name: &str, inputs: usize) -> (Vec<i64>, Vec<f64>) {
    let [scales, inverse] = ["scale", "inv_scale"].map(|part| case.tensor(&format!("quant.{name}.weight.{part}")));
    let one = |(i, w): (usize, &f32)| {
        let base = f64::from(w * inverse[i / inputs]).round_ties_even();
        let base = base.clamp(f64::from(q.quant.base_lo), f64::from(q.quant.base_hi)) as i64;
        let half = if q.quant.round_shift == 1 && q.quant.shift > 0 { 1 << (q.quant.shift - 1) } else { 0 };
        ((base + half) >> q.quant.shift).clamp(i64::from(q.quant.lo), i64::from(q.quant.hi))
    };
    let codes = case.tensor(&format!("{name}.weight")).iter().enumerate().map(one).collect();
    (codes, scales.iter().map(|s| f64::from(*s)).collect())
}

/// Real batch norm of accumulators.
struct Affine(Vec<(f64, f64)>);

impl Affine {
    fn at(&self, channel: usize, acc: i32) -> f64 {
        f64::from(acc) * self.0[channel].0 + self.0[channel].1
    }
}

/// Codes of the picture and of every activation, `(N, H, W, C)`, with their scales.
struct Values {
    codes: Vec<Option<(Vec<i64>, f64)>>,
}

impl Values {
    fn new(case: &Case, images: &[u8], trace: &Trace) -> Values {
        let mut codes = vec![None; case.net.layers.len()];
        codes[0] = Some(picture(case, images));
        for (k, (id, a)) in case.net.activations().enumerate() {
            let scale = f64::from(case.tensor(&format!("quant.{}.scale", a.name))[0]);
            codes[id] = Some((trace.layers[k].codes.iter().map(|q| i64::from(*q)).collect(), scale));
        }
        let all: Vec<i64> = trace.input.iter().map(|q| i64::from(*q)).collect();
        assert_eq!(codes[0].as_ref().unwrap().0, all, "input codes");
        Values { codes }
    }

    fn of(&self, id: usize) -> (&[i64], f64) {
        let (codes, scale) = self.codes[id].as_ref().unwrap();
        (codes, *scale)
    }

    /// Accumulators `(N, H, W, C)` by the definition of a convolution, and the batch norm after it.
    fn conv(&self, case: &Case, id: usize) -> (Vec<i32>, Affine) {
        let c: &Conv = case.net.conv(id);
        let (x, s_x) = self.of(c.input);
        let inputs = c.real_in * c.kernel * c.kernel;
        let (w, scales) = weight_codes(case, case.spec.layer(id).unwrap(), &c.name, inputs);
        let mut out = Vec::new();
        for i in 0..PICTURES * c.to.len() {
            let (co, column, row) = (i % c.to.c, i / c.to.c % c.to.w, i / c.to.c / c.to.w % c.to.h);
            let n = i / c.to.len();
            let mut sum = 0;
            for k in 0..inputs {
                let (ci, ky, kx) = (k / c.kernel / c.kernel, k / c.kernel % c.kernel, k % c.kernel);
                let y = (row * c.stride + ky).wrapping_sub(c.kernel / 2);
                let x0 = (column * c.stride + kx).wrapping_sub(c.kernel / 2);
                if y < c.from.h && x0 < c.from.w {
                    sum += x[((n * c.from.h + y) * c.from.w + x0) * c.real_in + ci] * w[co * inputs + k];
                }
            }
            out.push(i32::try_from(sum).unwrap());
        }
        let norm = |part: &str| case.tensor(&format!("{}.{part}", c.norm));
        let affine = (0..c.to.c).map(|k| {
            let of = |part: &str| f64::from(norm(part)[k]);
            let factor = of("weight") / (of("running_var") + 1e-5).sqrt();
            (s_x * scales[k] * factor, of("bias") - of("running_mean") * factor)
        });
        (out, Affine(affine.collect()))
    }
}

/// `q = clamp(round((u8 / 255 - mean) / (std s_in)))`, where the largest value that a picture can have is code 127.
fn picture(case: &Case, images: &[u8]) -> (Vec<i64>, f64) {
    let value = |c: usize, raw: f64| {
        (raw / 255.0 - f64::from(case.normalisation.mean[c])) / f64::from(case.normalisation.std[c])
    };
    let top = (0..3).map(|c| value(c, 0.0).abs().max(value(c, 255.0).abs())).fold(0.0, f64::max);
    let (size, scale) = (case.net.size, top / 127.0);
    let pixels = size * size;
    let code = |i: usize| {
        let (c, pixel, n) = (i % 3, i / 3 % pixels, i / 3 / pixels);
        (value(c, f64::from(images[(n * 3 + c) * pixels + pixel])) / scale).round_ties_even() as i64
    };
    ((0..images.len()).map(code).collect(), scale)
}
