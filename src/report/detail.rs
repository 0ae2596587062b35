//! What needs a run's checkpoint, and what needs the pictures as well: distributions, confusions, mistakes.

use crate::Result;
use crate::data::{DataSet, Split};
use crate::evaluate::{Kind, Loaded, Network};
use crate::exec::Device;
use crate::quant::{Quant, Quantizer};
use crate::session::{ActivationCounts, Form};
use crate::setup::network;

use super::superclasses;

/// Batches whose activations are counted.
const COUNTED_BATCHES: usize = 4;
/// Mistakes that are shown.
const MISTAKES: usize = 24;
/// Bars of a histogram.
const BARS: usize = 64;

/// The values of one tensor, counted, with the ends of what its codes reach.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// Name of the layer.
    pub layer: String,
    /// Bits of a code; none of a tensor in float.
    pub bits: Option<u32>,
    /// Ends of the bars, one more than there are bars.
    pub edges: Vec<f64>,
    /// Share of the values in each bar, 0 to 1.
    pub shares: Vec<f64>,
    /// Share of the values that are zero or next to it and have no bar: those a ReLU made zero.
    pub zeros: f64,
    /// Lowest and highest value of the 8-bit grid, of methods that have one.
    pub base: Option<[f64; 2]>,
    /// Lowest and highest value of a code.
    pub clip: Option<[f64; 2]>,
    /// Share of all values beyond `clip`.
    pub clipped: Option<f64>,
}

/// A picture that was taken for something else.
#[derive(Debug, Clone)]
pub struct Mistake {
    /// Place in the split.
    pub index: usize,
    /// What it shows.
    pub label: usize,
    /// What it was taken for.
    pub predicted: usize,
    /// The probability of that, 0 to 1.
    pub confidence: f64,
    /// The pixels (3, side, side).
    pub pixels: Vec<u8>,
}

/// What the pictures say of a run.
#[derive(Debug, Clone)]
pub struct OnPictures {
    /// Name of the data set, and of the arithmetic.
    pub source: String,
    /// Pictures.
    pub count: usize,
    /// Height and width of one.
    pub side: usize,
    /// Share that was right, in percent.
    pub top1: f64,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// Names of what is confused: superclasses where they are known, else classes.
    pub names: Vec<String>,
    /// Whether `names` are superclasses.
    pub by_superclass: bool,
    /// Pictures of row's class that were taken for column's.
    pub confusion: Vec<u32>,
    /// The mistakes that the network was surest of.
    pub mistakes: Vec<Mistake>,
    /// Distributions of the activations; none of a float network.
    pub activations: Vec<Distribution>,
}

/// Weights of every layer of a checkpoint, counted.
///
/// # Errors
/// A checkpoint that does not fit its configuration.
pub fn weights(loaded: &Loaded) -> Result<Vec<Distribution>> {
    let classes = loaded.class_names().len();
    let (net, spec) = network(&loaded.config, classes)?;
    let quantized = loaded.quantized();
    let mut all = Vec::new();
    for (id, layer) in net.layers.iter().enumerate() {
        let Some(tensor) = loaded.checkpoint.tensors.get(&format!("{}.weight", layer.name())) else { continue };
        let q = spec.as_ref().and_then(|s| s.layer(id)).filter(|_| quantized);
        let inverses = loaded.checkpoint.tensors.get(&format!("quant.{}.weight.inv_scale", layer.name()));
        all.push(of_weights(layer.name(), &tensor.data, q.zip(inverses.map(|t| &t.data[..]))));
    }
    Ok(all)
}

/// Values of the 8-bit grid, where the quantizer `q` has one, and of the codes at both ends; `quant` is that of `q` with its offset.
fn ends(q: &Quantizer, quant: &Quant, inverse: f32) -> (Option<[f64; 2]>, [f64; 2]) {
    let of = |low: i32, high: i32| [low, high].map(|code| f64::from(quant.place_of(code, inverse)));
    let eight = q.quant.base_hi - q.quant.base_lo >= 254;
    (eight.then(|| of(quant.base_lo, quant.base_hi)), of(quant.lo << quant.shift, quant.hi << quant.shift))
}

/// `q`: the quantizer, and the factors from values to base codes, one an output channel, whose weights are neighbours.
fn of_weights(layer: &str, values: &[f32], q: Option<(&Quantizer, &[f32])>) -> Distribution {
    let largest = values.iter().fold(0f64, |m, v| m.max(f64::from(v.abs()))).max(1e-12);
    // With a scale a channel, the lines are those of the largest.
    let widest = |inverses: &[f32]| inverses.iter().copied().fold(f32::INFINITY, f32::min);
    let (base, clip) = q.map(|(q, inverses)| ends(q, &q.quant, widest(inverses))).unzip();
    let base = base.flatten();
    // The clip lines are in the picture, but a window far wider than the weights does not hide them.
    let reach = clip.map_or(largest, |c: [f64; 2]| largest.max(c[0].abs().max(c[1]).min(2.0 * largest))) * 1.05;
    let edges: Vec<f64> = (0..=BARS).map(|i| reach * (2.0 * i as f64 / BARS as f64 - 1.0)).collect();
    let mut shares = vec![0.0; BARS];
    let one = 1.0 / values.len().max(1) as f64;
    for v in values {
        let at = (f64::from(*v) / reach + 1.0) / 2.0 * BARS as f64;
        shares[(at as usize).min(BARS - 1)] += one;
    }
    let clips = |(q, inverses): (&Quantizer, &[f32])| {
        let own = |i: usize| inverses[i * inverses.len() / values.len()];
        values.iter().enumerate().filter(|(i, v)| q.quant.clips(**v, own(*i))).count() as f64 * one
    };
    let clipped = q.map(clips);
    let bits = q.map(|(q, _)| q.bits);
    Distribution { layer: layer.into(), bits, edges, shares, zeros: 0.0, base, clip, clipped }
}

/// Looks at the test pictures with a run's network.
///
/// # Errors
/// A network that does not fit the data, a device error, an interruption.
pub fn on_pictures(loaded: &Loaded, data: &DataSet, device: &dyn Device) -> Result<OnPictures> {
    let kind = loaded.default_kind();
    let class_names = loaded.class_names();
    let split = &data.test;
    let seen = loaded.with_network(kind, class_names.len(), Some(device), |network| look(network, split, kind))?;
    let (logits, activations) = seen;
    let answers: Vec<(usize, f64)> = logits.chunks_exact(class_names.len()).map(surest).collect();
    let coarse = superclasses::of(&data.name, class_names.len());
    let group = |class: usize| coarse.map_or(class, |of| usize::from(of[class]));
    let names = match coarse {
        Some(_) => superclasses::NAMES.iter().map(ToString::to_string).collect(),
        None => class_names.clone(),
    };
    let mut confusion = vec![0u32; names.len() * names.len()];
    let labels = split.labels.iter().map(|l| usize::from(*l));
    for (label, (predicted, _)) in labels.clone().zip(&answers) {
        confusion[group(label) * names.len() + group(*predicted)] += 1;
    }
    let right = labels.zip(&answers).filter(|(label, (predicted, _))| label == predicted).count();
    Ok(OnPictures {
        source: format!("{}, {}", data.name, kind.name()),
        count: split.len(),
        side: split.side,
        top1: 100.0 * right as f64 / split.len().max(1) as f64,
        by_superclass: coarse.is_some(),
        confusion,
        mistakes: mistakes(split, &answers),
        class_names,
        names,
        activations,
    })
}

/// Logits of the pictures and, of a quantized network, the distributions of its activations.
fn look(network: &mut Network, split: &Split, kind: Kind) -> Result<(Vec<f32>, Vec<Distribution>)> {
    let mut activations = Vec::new();
    if let (Network::OnDevice(session, Form::Quantized), Kind::FakeQuant) = (&mut *network, kind)
        && split.len() >= session.lowered.batch
    {
        let mut counted = session.histograms(split, COUNTED_BATCHES)?;
        let spec = session.lowered.quant.as_ref().expect("a quantized form has quantizers");
        for (id, a) in session.lowered.net.activations() {
            if let (Some(q), Some(counts)) = (spec.layer(id), counted.remove(&a.name)) {
                activations.push(of_activation(&a.name, &counts, q));
            }
        }
    }
    Ok((network.logits(split)?, activations))
}

/// Merges the bins to bars, which reach to twice the last code: what lies further is in the last one. The first bin, of zeros, has none.
fn of_activation(layer: &str, counted: &ActivationCounts, q: &Quantizer) -> Distribution {
    let quant = counted.row.offset(&q.quant);
    let (counts, range, inverse) = (&counted.counts, counted.range, counted.row.inv_scale);
    let total = counts.iter().map(|c| f64::from(*c)).sum::<f64>().max(1.0);
    let (range, bins) = (f64::from(range), counts.len());
    let (base, clip) = ends(q, &quant, inverse);
    let reach = (2.0 * clip[1] / range).min(1.0);
    let per_bar = ((reach * bins as f64) as usize).div_ceil(BARS).max(1);
    let edges = (0..=BARS).map(|i| range * (i * per_bar) as f64 / bins as f64).collect();
    let mut shares = vec![0.0; BARS];
    for (bin, count) in counts.iter().enumerate() {
        shares[(bin / per_bar).min(BARS - 1)] += f64::from(*count) / total;
    }
    let zeros = f64::from(counts[0]) / total;
    shares[0] -= zeros;
    let beyond = |(bin, count): (usize, &u32)| {
        let centre = (bin as f64 + 0.5) * range / bins as f64;
        if quant.saturates(centre as f32, inverse) { f64::from(*count) } else { 0.0 }
    };
    let clipped = counts.iter().enumerate().map(beyond).sum::<f64>() / total;
    Distribution {
        layer: layer.into(),
        bits: Some(q.bits),
        edges,
        shares,
        zeros,
        base,
        clip: Some(clip),
        clipped: Some(clipped),
    }
}

/// The class of the largest logit, and its probability.
fn surest(logits: &[f32]) -> (usize, f64) {
    let (class, largest) = logits
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (class, v)| if *v > best.1 { (class, *v) } else { best });
    let sum: f64 = logits.iter().map(|v| f64::from(v - largest).exp()).sum();
    (class, 1.0 / sum)
}

fn mistakes(split: &Split, answers: &[(usize, f64)]) -> Vec<Mistake> {
    let wrong = answers.iter().enumerate().filter(|(i, (class, _))| *class != usize::from(split.labels[*i]));
    let mut wrong: Vec<(usize, (usize, f64))> = wrong.map(|(i, answer)| (i, *answer)).collect();
    wrong.sort_by(|a, b| b.1.1.total_cmp(&a.1.1).then(a.0.cmp(&b.0)));
    let mistake = |(index, (predicted, confidence))| Mistake {
        index,
        label: usize::from(split.labels[index]),
        predicted,
        confidence,
        pixels: split.image(index).to_vec(),
    };
    wrong.into_iter().take(MISTAKES).map(mistake).collect()
}
