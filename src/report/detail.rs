//! What needs a run's checkpoint, and what needs the pictures as well: distributions, confusions, mistakes.

use crate::Result;
use crate::data::{DataSet, Split};
use crate::evaluate::{Kind, Loaded, Network};
use crate::exec::Device;
use crate::session::Form;
use crate::setup::network;

use super::distribution::{Distribution, Scales, of_activation, of_weights};
use super::superclasses;

/// Batches whose activations are counted.
const COUNTED_BATCHES: usize = 4;
/// Mistakes that are shown.
const MISTAKES: usize = 24;

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
        let part = |part: &str| loaded.checkpoint.tensors.get(&format!("quant.{}.weight.{part}", layer.name()));
        let unit = part("unit").map_or(0.0, |t| t.data.iter().copied().fold(0.0, f32::max));
        let q = q.zip(part("inv_scale")).map(|(q, t)| Scales { q, inverses: &t.data, unit });
        all.push(of_weights(layer.name(), &tensor.data, q.as_ref()));
    }
    Ok(all)
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
    Ok((network.logits(split)?.numbers, activations))
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
