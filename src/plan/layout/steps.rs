//! Learned scales: parameters of the quantizers, among those of the layers.

use super::{Plan, Weights};
use crate::config::Granularity;
use crate::net::{LayerId, Net};
use crate::plan::{Arena, TensorId};
use crate::quant::{QuantSpec, learn};

/// The learned scales of one quantizer.
#[derive(Debug, Clone)]
pub struct StepEntry {
    /// The layer.
    pub layer: LayerId,
    /// Name of the quantized tensor: that of the activation, or `NAME.weight`.
    pub name: String,
    /// First word in [`Steps::params`].
    pub first: usize,
    /// Words: one, or one a channel, or the step and the offset of an activation.
    pub words: usize,
    /// Those that carry data.
    pub real: usize,
}

/// The learned scales of a network.
#[derive(Debug, Clone)]
pub struct Steps {
    /// The last of the parameters, one word each.
    pub params: TensorId,
    /// Their gradients.
    pub grads: TensorId,
    /// First word of both in their arenas.
    pub offset: usize,
    /// In the order of [`Steps::params`].
    pub entries: Vec<StepEntry>,
}

impl Steps {
    /// Adds the learned scales of `net` to `plan`; `None` where there are none.
    pub(super) fn new(plan: &mut Plan, net: &Net, quant: Option<&QuantSpec>, weights: &[Weights]) -> Option<Steps> {
        let quant = quant?;
        let learned = |layer| quant.layer(layer).map_or(learn::NOTHING, |q| q.quant.learn);
        let per_channel = quant.config.weights.granularity == Granularity::PerChannel;
        let of_weights = weights.iter().map(|w| {
            let [words, real] = if per_channel { [w.c_out, w.real_out] } else { [1; 2] };
            (w.layer, format!("{}.weight", w.name), words, real)
        });
        let of_activations = net.activations().map(|(layer, a)| {
            let words = if learned(layer) == learn::STEP_AND_OFFSET { 2 } else { 1 };
            (layer, a.name.clone(), words, words)
        });
        let mut entries = Vec::new();
        let mut first = 0;
        for (layer, name, words, real) in of_weights.chain(of_activations) {
            if learned(layer) != learn::NOTHING {
                entries.push(StepEntry { layer, name, first, words, real });
                first += words;
            }
        }
        if entries.is_empty() {
            return None;
        }
        let params = plan.member(Arena::Params, "quant.steps", first);
        let grads = plan.member(Arena::Grads, "quant.steps.grad", first);
        Some(Steps { params, grads, offset: plan.offset(params), entries })
    }

    /// Word of a layer's first learned scale in the arenas.
    pub fn at(&self, layer: LayerId) -> Option<u32> {
        let entry = self.entries.iter().find(|e| e.layer == layer)?;
        Some((self.offset + entry.first) as u32)
    }
}

/// Factor on the gradient of a step that `values` values share: 1 / sqrt(values * hi) (Esser et al. 2020, section 2.2).
pub(super) fn gradient_scale(values: usize, hi: f32) -> f32 {
    (1.0 / (values as f64 * f64::from(hi)).sqrt()) as f32
}
