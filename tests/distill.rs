//! Learning from a float network, and learned scales: the gradient against differences of the loss, runs that are cut in two.

mod common;

use bytemuck::{bytes_of, cast_slice};
use common::{embedded, gpu, last, lines, resume, tiny, train};
use cqat::kernels::head::{DISTILL, DistillParams, SOFTMAX_CE, SoftmaxParams};
use cqat::kernels::input::random;
use cqat::kernels::{Step, Twin, TwinBuffer};
use cqat::train::Outcome;

const BATCH: usize = 3;
const CLASSES: usize = 5;
const COLS: usize = 8;
const WEIGHT: f32 = 0.7;
const TEMPERATURE: f32 = 3.0;
const SMOOTHING: f32 = 0.1;

fn uniform(seed: u32, i: usize) -> f32 {
    random(seed, i as u32, 0) as f32 / u32::MAX as f32 * 2.0 - 1.0
}

fn values(seed: u32, count: usize, largest: f32) -> Vec<f32> {
    (0..count).map(|i| largest * uniform(seed, i)).collect()
}

fn log_softmax(z: &[f64]) -> Vec<f64> {
    let sum: f64 = z.iter().map(|v| v.exp()).sum();
    z.iter().map(|v| v - sum.ln()).collect()
}

/// (1 - weight) * cross entropy + weight * T^2 * KL(teacher || student), mean over the batch.
fn loss(logits: &[f64], teacher: &[f32], labels: &[u32]) -> f64 {
    let (weight, t, e) = (f64::from(WEIGHT), f64::from(TEMPERATURE), f64::from(SMOOTHING));
    let rows = logits.chunks(COLS).zip(teacher.chunks(COLS)).zip(labels);
    let of = |((z, taught), label): ((&[f64], &[f32]), &u32)| -> f64 {
        let z = &z[..CLASSES];
        let target = |c: usize| e / CLASSES as f64 + if c == *label as usize { 1.0 - e } else { 0.0 };
        let entropy: f64 = log_softmax(z).iter().enumerate().map(|(c, l)| -target(c) * l).sum();
        let soft = |z: Vec<f64>| log_softmax(&z.iter().map(|v| v / t).collect::<Vec<_>>());
        let mine = soft(z.to_vec());
        let theirs = soft(taught[..CLASSES].iter().map(|v| f64::from(*v)).collect());
        let divergence: f64 = theirs.iter().zip(&mine).map(|(p, q)| p.exp() * (p - q)).sum();
        (1.0 - weight) * entropy + weight * t * t * divergence
    };
    rows.map(of).sum::<f64>() / BATCH as f64
}

fn words(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn the_gradient_is_that_of_both_losses() {
    let logits = values(1, BATCH * COLS, 3.0);
    let (raw_teacher, teacher_bias) = (values(2, BATCH * COLS, 3.0), values(3, COLS, 1.0));
    let teacher: Vec<f32> = raw_teacher.iter().enumerate().map(|(i, v)| v + teacher_bias[i % COLS]).collect();
    let labels = [4u32, 0, 2];
    let step = cast_slice(&[Step { valid: BATCH as u32, ..Step::default() }]).to_vec();
    let (batch, classes, cols4) = (BATCH as u32, CLASSES as u32, COLS as u32 / 4);
    let p = SoftmaxParams { batch, classes, cols4, w_scale: 0, smoothing: SMOOTHING, samples4: 1, backward: 1, pad: 0 };
    let (mut z, mut d, mut scores, mut bias_grad) =
        (words(&logits), vec![0; BATCH * COLS], vec![0; 4 + 4 * BATCH], vec![0; COLS]);
    let (scales, bias) = (vec![0; 2 * COLS], vec![0; COLS]);
    (SOFTMAX_CE.twin)(&mut Twin::new(
        bytes_of(&p),
        vec![
            TwinBuffer::Write(Some(&mut z)),
            TwinBuffer::Read(&scales),
            TwinBuffer::Read(&bias),
            TwinBuffer::Read(&labels),
            TwinBuffer::Read(&step),
            TwinBuffer::Write(Some(&mut d)),
            TwinBuffer::Write(Some(&mut scores)),
            TwinBuffer::Write(Some(&mut bias_grad)),
        ],
    ));
    let (weight, temperature) = (WEIGHT, TEMPERATURE);
    let p = DistillParams { batch, classes, cols4, w_scale: 0, weight, temperature, bias4: 0, pad: 0 };
    (DISTILL.twin)(&mut Twin::new(
        bytes_of(&p),
        vec![
            TwinBuffer::Read(&z),
            TwinBuffer::Read(&words(&raw_teacher)),
            TwinBuffer::Read(&words(&teacher_bias)),
            TwinBuffer::Read(&scales),
            TwinBuffer::Read(&step),
            TwinBuffer::Write(Some(&mut d)),
            TwinBuffer::Write(Some(&mut bias_grad)),
        ],
    ));
    let logits: Vec<f64> = logits.into_iter().map(f64::from).collect();
    let mut by_class = [0f64; COLS];
    for (i, found) in d.iter().map(|d| f64::from(f32::from_bits(*d))).enumerate() {
        let at = |h: f64| {
            let mut moved = logits.clone();
            moved[i] += h;
            loss(&moved, &teacher, &labels)
        };
        let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((found - expected).abs() < 1e-6, "logit {i}: gradient {found}, differences {expected}");
        by_class[i % COLS] += expected;
    }
    for (found, expected) in bias_grad.iter().map(|b| f64::from(f32::from_bits(*b))).zip(by_class) {
        assert!((found - expected).abs() < 3e-6, "bias: gradient {found}, differences {expected}");
    }
}

/// Learned scales and a teacher too go on from where they were, bit by bit; and the teacher changes what is learned.
#[test]
fn a_run_that_learns_from_a_teacher_goes_on_as_if_it_had_not_stopped() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(24, 8));
    let sets = ["quant.method=lsqplus", "train.float_epochs=1", "train.quant_epochs=2", "quant.freeze=never"];
    let config = tiny(&[&sets[..], &["train.distill.weight=0.9"]].concat());
    let [whole, cut, alone] = ["whole", "cut", "alone"].map(|name| folder.path().join(name));
    train(&config, &data, &gpu, &whole, None).unwrap();
    assert_eq!(train(&config, &data, &gpu, &cut, Some(2)).unwrap(), Outcome::Stopped);
    assert_eq!(resume(&cut, &config, &data).unwrap(), Outcome::Finished);
    assert!(last(&whole).tensors == last(&cut).tensors);
    train(&tiny(&sets), &data, &gpu, &alone, None).unwrap();
    assert!(last(&whole).tensors["fc.weight"] != last(&alone).tensors["fc.weight"]);
    assert_eq!(lines(&whole, "quant", "test").len(), 2);
}

/// In the last epoch nothing moves a learned scale, its momentum neither.
#[test]
fn learned_scales_stand_still_in_the_last_epoch() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(24, 8));
    let config = tiny(&["quant.method=lsqplus", "train.float_epochs=0", "train.quant_epochs=3"]);
    let out = folder.path().join("run");
    assert_eq!(train(&config, &data, &gpu, &out, Some(2)).unwrap(), Outcome::Stopped);
    let before = last(&out).tensors;
    assert_eq!(resume(&out, &config, &data).unwrap(), Outcome::Finished);
    let after = last(&out).tensors;
    let learned: Vec<&String> = after.keys().filter(|k| k.starts_with("quant.") && k.ends_with(".step")).collect();
    assert!(learned.len() > 10);
    for name in learned {
        assert!(before[name] == after[name], "{name} has moved");
        assert!(before[&format!("momentum.{name}")].data.iter().any(|v| *v != 0.0), "{name} never moved");
    }
}

#[test]
fn a_teacher_of_another_shape_is_refused_before_a_step() {
    let (folder, gpu, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(24, 8));
    let other = folder.path().join("other");
    train(
        &tiny(&["train.float_epochs=1", "train.quant_epochs=0", "network.width=16", "quant.method=none"]),
        &data,
        &gpu,
        &other,
        None,
    )
    .unwrap();
    let teacher = format!("train.distill={{weight: 0.5, teacher: {}}}", other.display());
    let config = tiny(&["train.float_epochs=0", "train.quant_epochs=1", &teacher]);
    let error = train(&config, &data, &gpu, &folder.path().join("run"), None).unwrap_err();
    assert!(error.to_string().contains("train.distill has no network to learn from"), "{error}");
    assert!(!folder.path().join("run").exists(), "found out before the run has a folder");
}
