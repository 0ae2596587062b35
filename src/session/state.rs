//! What a checkpoint keeps, as named tensors, and the statistics of quantizers.

use std::collections::BTreeMap;

use super::{Session, load_parameters};
use crate::Result;
use crate::exec::ExecutorExt;
use crate::kernels::range::RangeRow;
use crate::net::Layer;
use crate::plan::TensorId;
use crate::safetensors_io::Tensors;
use crate::tensors;

/// Scales of each layer's weights, with the tensor that takes them.
type Scales = Vec<(TensorId, Vec<f32>)>;

/// What steps without learning change.
pub struct Norms {
    running: Vec<u32>,
    velocity: Vec<u32>,
}

impl Session<'_> {
    /// Rows of activation ranges by layer name, statistics included.
    ///
    /// # Errors
    /// A device error.
    pub fn ranges(&mut self) -> Result<BTreeMap<String, RangeRow>> {
        let rows: Vec<RangeRow> = bytemuck::cast_vec(self.exec.read(self.lowered.layout.ranges)?);
        let named = self.lowered.net.layers.iter().enumerate().filter_map(|(id, l)| {
            let row = self.lowered.layout.range_rows[id]?;
            matches!(l, Layer::Input(_) | Layer::Activation(_)).then(|| (l.name().to_string(), rows[row as usize]))
        });
        Ok(named.collect())
    }

    /// Sets the statistics of all ranges to zero, at the start of an epoch.
    ///
    /// # Errors
    /// A device error.
    pub fn reset_statistics(&mut self) -> Result<()> {
        let layout = &self.lowered.layout;
        let mut rows: Vec<RangeRow> = bytemuck::cast_vec(self.exec.read(layout.ranges)?);
        for row in &mut rows {
            (row.saturated, row.blocked, row.steps) = (0.0, 0.0, 0.0);
        }
        self.exec.write_as(layout.ranges, &rows);
        Ok(())
    }

    /// Everything that a checkpoint keeps: parameters and running statistics by torchvision name, `momentum.*`, and with a
    /// quantizer `quant.*` (ranges and statistics of activations, scales of weights).
    ///
    /// # Errors
    /// A device error.
    pub fn state(&mut self) -> Result<Tensors> {
        let (plan, layout) = (&self.lowered.plan, &self.lowered.layout);
        let mut out = tensors::extract(plan, layout, &self.exec.read_f32(layout.params)?);
        out.extend(tensors::extract_running(plan, layout, &self.exec.read_f32(layout.running)?));
        let momentum = tensors::extract(plan, layout, &self.exec.read_f32(layout.velocity)?);
        out.extend(momentum.into_iter().map(|(name, t)| (format!("momentum.{name}"), t)));
        if self.lowered.quant.is_some() {
            for (name, row) in self.ranges()? {
                tensors::insert_range(&mut out, &name, &row);
            }
            let scales = self.exec.read_f32(layout.scales)?;
            for w in &layout.weights {
                tensors::insert_scales(&mut out, w, &scales[plan.offset(w.scales)..][..2 * w.c_out]);
            }
        }
        Ok(out)
    }

    /// Loads parameters and running statistics; momentum and quantizer state too where `state` has them.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape or belongs to no layer; nothing is changed then.
    pub fn set_state(&mut self, state: &Tensors) -> Result<()> {
        let (plan, layout) = (&self.lowered.plan, &self.lowered.layout);
        let words = plan.tensor(layout.params).words;
        tensors::refuse_strangers(layout, state)?;
        let momentum = match state.keys().any(|k| k.starts_with("momentum.")) {
            true => tensors::insert(plan, layout, words, state, "momentum.")?,
            false => vec![0.0; words],
        };
        let quantized = self.lowered.quant.is_some() && state.keys().any(|k| k.starts_with("quant."));
        let quantizers = quantized.then(|| self.quantizer_state(state)).transpose()?;
        load_parameters(self.lowered, self.exec.as_mut(), state, "")?;
        self.exec.write_as(layout.velocity, &momentum);
        if let Some((ranges, scales)) = quantizers {
            self.exec.write_as(layout.ranges, &ranges);
            scales.into_iter().for_each(|(tensor, data)| self.exec.write_as(tensor, &data));
        }
        Ok(())
    }

    /// All rows of ranges, and the scales of each layer's weights.
    fn quantizer_state(&mut self, state: &Tensors) -> Result<(Vec<RangeRow>, Scales)> {
        let layout = &self.lowered.layout;
        let mut rows: Vec<RangeRow> = bytemuck::cast_vec(self.exec.read(layout.ranges)?);
        for (id, layer) in self.lowered.net.layers.iter().enumerate() {
            let Some(row) = layout.range_rows[id] else { continue };
            if matches!(layer, Layer::Input(_) | Layer::Activation(_)) {
                rows[row as usize] = tensors::range(state, layer.name())?;
            }
        }
        let scales = layout.weights.iter().map(|w| Ok((w.scales, tensors::scales(state, w)?)));
        Ok((rows, scales.collect::<Result<_>>()?))
    }

    /// Running statistics and momentum as they are.
    ///
    /// # Errors
    /// A device error.
    pub fn norms(&mut self) -> Result<Norms> {
        let layout = &self.lowered.layout;
        Ok(Norms { running: self.exec.read(layout.running)?, velocity: self.exec.read(layout.velocity)? })
    }

    /// Puts back what [`Session::norms`] gave.
    pub fn set_norms(&mut self, norms: Norms) {
        self.exec.write(self.lowered.layout.running, &norms.running);
        self.exec.write(self.lowered.layout.velocity, &norms.velocity);
    }

    /// Sets the momentum to zero, at the start of a phase.
    pub fn reset_momentum(&mut self) {
        let words = self.lowered.plan.tensor(self.lowered.layout.velocity).words;
        self.exec.write(self.lowered.layout.velocity, &vec![0; words]);
    }
}
