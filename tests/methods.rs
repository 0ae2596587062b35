//! The quantizers of all methods against PyTorch in float64: values, gradients of values, gradients of learned scales, through the
//! kernels' twins. `methods.json` is made by `assets/golden/make_methods.py`.

use std::path::Path;

use bytemuck::{Pod, Zeroable, bytes_of, cast_slice};
use cqat::config::{Config, QuantConfig};
use cqat::kernels::activation::{self, ActParams, BackwardParams, ForwardParams};
use cqat::kernels::range::{LEARNED, LearnedParams, RangeRow, TableRow, UPDATE, UpdateParams};
use cqat::kernels::weights::{self, PrepareParams, ReduceParams, StatsParams, WeightRow, estimate};
use cqat::kernels::{KernelDef, Step, Twin, TwinBuffer};
use cqat::net::Net;
use cqat::quant::{QuantSpec, Quantizer, form, learn};
use serde_json::Value;

/// Relative to the largest value: f32 against f64.
const TOLERANCE: f64 = 1e-5;
const COLS: usize = 4;

/// Runs a twin; the last buffers are written.
fn run<P: Pod>(kernel: &KernelDef, params: &P, read: &[&[u32]], write: &mut [&mut Vec<u32>]) {
    let buffers = read.iter().map(|b| TwinBuffer::Read(b));
    let buffers = buffers.chain(write.iter_mut().map(|b| TwinBuffer::Write(Some(b)))).collect();
    (kernel.twin)(&mut Twin::new(bytes_of(params), buffers));
}

fn words(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn floats(words: &[u32]) -> Vec<f32> {
    words.iter().map(|w| f32::from_bits(*w)).collect()
}

/// One of PyTorch's cases.
struct Case {
    name: String,
    method: String,
    bits: u64,
    json: Value,
}

impl Case {
    fn all() -> Vec<Case> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/golden/methods.json");
        let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let case = |json: &Value| Case {
            name: json["name"].as_str().unwrap().into(),
            method: json["method"].as_str().unwrap().into(),
            bits: json["bits"].as_u64().unwrap(),
            json: json.clone(),
        };
        file["cases"].as_array().unwrap().iter().map(case).collect()
    }

    fn values(&self, key: &str) -> Vec<f64> {
        self.json[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    fn inputs(&self, key: &str) -> Vec<f32> {
        self.values(key).into_iter().map(|v| v as f32).collect()
    }

    fn parameter(&self, key: &str) -> Option<f64> {
        self.json["parameters"][key].as_f64().or(self.json["constants"][key].as_f64())
    }

    fn quantizer(&self, layer: &str) -> Quantizer {
        let sets = [
            format!("quant.method={}", self.method),
            format!("quant.weight_bits={}", self.bits),
            format!("quant.activation_bits={}", self.bits),
            format!("quant.ewgs_delta={}", self.parameter("delta").unwrap_or(0.0)),
            "quant.pact_decay=0".into(),
        ];
        let config: QuantConfig = Config::from_yaml("", "test", &sets).unwrap().quant;
        let net = Net::resnet(8, 8, 10, 8).unwrap();
        let id = net.layers.iter().position(|l| l.name() == layer).unwrap();
        *QuantSpec::new(&config, &net).unwrap().unwrap().layer(id).unwrap()
    }

    fn close(&self, what: &str, found: &[f32]) {
        let expected = match self.json["gradients"][what].as_f64() {
            Some(gradient) => vec![gradient],
            None => self.values(what),
        };
        let largest = expected.iter().fold(1e-6, |m: f64, v| m.max(v.abs()));
        for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
            let error = (f64::from(*f) - e).abs() / largest;
            assert!(error < TOLERANCE, "{}: {what}[{i}] is {f}, PyTorch's {e}", self.name);
        }
        assert_eq!(found.len(), expected.len(), "{}: {what}", self.name);
    }
}

/// Factor of LSQ on the gradient of a step that `values` values share.
fn lsq_factor(values: usize, hi: f32) -> f32 {
    1.0 / (values as f32 * hi).sqrt()
}

#[test]
fn weights_equal_pytorchs() {
    let (mut seen, mut learned_scales) = (0, 0);
    for case in Case::all().into_iter().filter(|c| c.name.contains("weights")) {
        let q = case.quantizer("layer1.0.conv1");
        let (x, dy) = (case.inputs("x"), case.inputs("dy"));
        let rows = x.len() / COLS;
        let learned = case.parameter("step").or(case.parameter("upper").map(|u| u / f64::from(q.quant.highest())));
        let row = WeightRow {
            rows: rows as u32,
            cols4: 1,
            taps: 1,
            real_rows: rows as u32,
            real_cols: COLS as u32,
            splits: 1,
            x_row: -1,
            estimator: match (q.quant.form, q.quant.learn) {
                (form::ODD_TANH, _) => estimate::TANH,
                (_, learn::NOTHING) => estimate::MAX,
                _ => estimate::LEARNED,
            },
            quant: q.quant,
            rule: q.rule,
            gradient_scale: lsq_factor(x.len(), q.quant.highest()),
            ..WeightRow::zeroed()
        };
        let (table, blocks) = (cast_slice(&[row]).to_vec(), [0]);
        let (params, step) = (words(&x), cast_slice(&[Step::default()]).to_vec());
        let p = StatsParams { layers: 1, chunk: weights::CHUNK as u32, pad: [0; 2] };
        let (mut stats, mut scales) = (vec![0; 12], words(&[[1.0; 8].as_slice(), &[0.0; 4]].concat()));
        run(&weights::STATS, &p, &[&table, &params], &mut [&mut stats]);
        let steps = words(&[learned.unwrap_or(0.0) as f32]);
        run(&weights::SCALE, &p, &[&table, &stats, &step, &steps], &mut [&mut scales]);
        let prepare = PrepareParams { words: x.len() as u32, quantize: 1, keep_max: 0, max_first: 0 };
        let (mut codes, mut transposed, mut maxima) = (vec![0; x.len()], vec![0; x.len()], vec![0]);
        let write = &mut [&mut codes, &mut transposed, &mut maxima];
        run(&weights::PREPARE, &prepare, &[&table, &blocks, &params, &scales], write);
        let scale = f32::from_bits(scales[0]);
        case.close("y", &floats(&codes).iter().map(|c| c * scale).collect::<Vec<_>>());
        // What arrives carries the scale; x is in codes of scale 1.
        let part = words(&dy.iter().map(|d| d * scale).collect::<Vec<_>>());
        let reduce = ReduceParams { first: 0, words: x.len() as u32, quantize: 1, pad: 0 };
        let ranges = cast_slice(&[RangeRow::UNIT]).to_vec();
        let mut grads = vec![0; x.len()];
        run(&weights::REDUCE, &reduce, &[&table, &blocks, &part, &params, &scales, &ranges], &mut [&mut grads]);
        let mut sums = vec![0; COLS];
        run(&weights::STEP, &p, &[&table, &params, &scales], &mut [&mut grads, &mut sums]);
        case.close("dx", &floats(&grads));
        if case.json["gradients"]["step"].is_number() {
            let mut gradient = vec![0];
            run(&weights::STEP_MERGE, &p, &[&table, &sums, &step], &mut [&mut gradient]);
            case.close("step", &floats(&gradient));
            learned_scales += 1;
        }
        seen += 1;
    }
    assert_eq!((seen, learned_scales), (18, 8));
}

#[test]
fn activations_equal_pytorchs() {
    let (mut seen, mut learned_scales) = (0, 0);
    for case in Case::all().into_iter().filter(|c| c.name.contains("activations")) {
        let q = case.quantizer("layer1.0.relu1");
        let (x, dy) = (case.inputs("x"), case.inputs("dy"));
        let rows = (x.len() / COLS) as u32;
        let hi = f64::from(q.quant.hi);
        let learned = match q.quant.learn {
            learn::NOTHING => vec![],
            learn::RANGE => vec![case.parameter("alpha").unwrap()],
            _ => vec![
                case.parameter("step").or(case.parameter("upper").map(|u| u / hi)).unwrap(),
                case.parameter("offset").unwrap_or(0.0),
            ],
        };
        let [lowest_zero, highest_zero] = q.quant.zeros();
        let entry = TableRow {
            values: x.len() as u32,
            parts: 1,
            blocked_parts: 1,
            rule: q.rule,
            learn: q.quant.learn,
            gradient_scale: if q.quant.learn == learn::RANGE { 1.0 } else { lsq_factor(x.len(), q.quant.hi as f32) },
            lowest_zero,
            highest_zero,
            ..TableRow::zeroed()
        };
        let table = cast_slice(&[entry]).to_vec();
        let mut params = vec![0; 4];
        params.iter_mut().zip(&learned).for_each(|(p, v)| *p = (*v as f32).to_bits());
        let step = cast_slice(&[Step::default()]).to_vec();
        let range = case.parameter("range").unwrap_or(1.0) as f32; // 1: the clip of DoReFa
        let fixed = q.rule.scale(range);
        let row = RangeRow { range, scale: fixed.scale, inv_scale: fixed.inv_scale, ..RangeRow::UNIT };
        let mut ranges = cast_slice(&[row]).to_vec();
        run(&LEARNED, &LearnedParams { count: 1, pad: [0; 3] }, &[&table, &params, &step], &mut [&mut ranges]);
        let row: RangeRow = bytemuck::pod_read_unaligned(cast_slice(&ranges));
        // Batch norm that changes nothing.
        let context = words(&[[1.0; COLS], [0.0; COLS], [1.0; COLS], [0.0; COLS]].concat());
        let act = ActParams { range_row: 0, shortcut_row: -1, shortcut: 0, shortcut_format: 0, quant: q.quant };
        let p =
            ForwardParams { rows, cols4: 1, chunk: rows, measure: 0, pool: 0, keep_max: 0, max_row: 0, pad: 0, act };
        let (mut out, mut seen_part, mut pooled, mut maxima) = (vec![0; x.len() / 4], vec![0; 8], vec![0; 4], vec![0]);
        let write = &mut [&mut out, &mut seen_part, &mut pooled, &mut maxima];
        run(&activation::FORWARD, &p, &[&words(&x), &context, &[0], &ranges], write);
        let codes: &[u8] = cast_slice(&out);
        case.close("y", &codes.iter().map(|c| f32::from(*c) * row.scale).collect::<Vec<_>>());
        let p = BackwardParams { rows, cols4: 1, chunk: rows, pool: 0, act };
        let (y, mut d, mut part) = (words(&x), words(&dy), vec![0; 16]);
        let mut twin = Twin::new(
            bytes_of(&p),
            vec![
                TwinBuffer::Write(Some(&mut d)),
                TwinBuffer::Read(&pooled),
                TwinBuffer::Read(&y),
                TwinBuffer::Read(&context),
                TwinBuffer::Read(&[0]),
                TwinBuffer::Read(&ranges),
                TwinBuffer::Write(Some(&mut part)),
            ],
        );
        (activation::BACKWARD.twin)(&mut twin);
        case.close("dx", &floats(&d));
        let p =
            UpdateParams { first: 0, count: 1, mode: 0, use_sigma: 0, sigmas: 0.0, ema: 0.0, count_step: 1, pad: 0 };
        let mut grads = vec![0; 4];
        let read: [&[u32]; 5] = [&table, &seen_part, &part[12..], &step, &params];
        run(&UPDATE, &p, &read, &mut [&mut ranges, &mut grads]);
        for (at, what) in [(0, "step"), (1, "offset"), (0, "alpha")] {
            if case.json["gradients"][what].is_number() {
                case.close(what, &floats(&grads[at..=at]));
                learned_scales += 1;
            }
        }
        seen += 1;
    }
    assert_eq!((seen, learned_scales), (34, 2 * 4 + 2 * 10 + 4));
}
