//! What a checkpoint keeps, as named tensors, and the statistics of quantizers.

use std::collections::BTreeMap;

use super::{Session, network_words};
use crate::Result;
use crate::exec::ExecutorExt;
use crate::kernels::range::RangeRow;
use crate::net::Layer;
use crate::plan::layout::Values;
use crate::quant::Quant;
use crate::safetensors_io::Tensors;
use crate::tensors::{self, LIVE};

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
    /// quantizer `quant.*` (ranges and statistics of activations, scales of weights). Where the optimizer averages, the network
    /// is the average, and `live.*` what it averages.
    ///
    /// # Errors
    /// A device error.
    pub fn state(&mut self) -> Result<Tensors> {
        let (plan, layout) = (&self.lowered.plan, &self.lowered.layout);
        let mut out = self.named(layout.average.unwrap_or(layout.values()))?;
        if layout.average.is_some() {
            let live = self.named(layout.values())?;
            out.extend(live.into_iter().map(|(name, t)| (format!("{LIVE}{name}"), t)));
        }
        let momentum = tensors::extract(plan, layout, &self.exec.read_f32(layout.velocity)?);
        out.extend(momentum.into_iter().map(|(name, t)| (format!("momentum.{name}"), t)));
        if self.lowered.quant.is_some() {
            for (name, row) in self.ranges()? {
                tensors::insert_range(&mut out, &name, &row);
            }
        }
        Ok(out)
    }

    /// Parameters, running statistics and weight scales by name.
    ///
    /// # Errors
    /// A device error.
    pub fn named(&mut self, values: Values) -> Result<Tensors> {
        let (plan, layout) = (&self.lowered.plan, &self.lowered.layout);
        let mut out = tensors::extract(plan, layout, &self.exec.read_f32(values.params)?);
        out.extend(tensors::extract_running(plan, layout, &self.exec.read_f32(values.running)?));
        if self.lowered.quant.is_some() {
            let scales = self.exec.read_f32(values.scales)?;
            for w in &layout.weights {
                tensors::insert_scales(&mut out, w, &scales[plan.offset(w.scales)..][..3 * w.c_out]);
            }
        }
        Ok(out)
    }

    /// Loads parameters and running statistics; momentum and quantizer state too where `state` has them. Where the optimizer
    /// averages, they are the average, and training goes on from `live.*` where `state` has that.
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
        let ranges = quantized.then(|| self.range_rows(state)).transpose()?;
        let network = network_words(self.lowered, state, "", quantized)?;
        let averages = layout.average.is_some() && state.keys().any(|k| k.starts_with(LIVE));
        let live = averages.then(|| network_words(self.lowered, state, LIVE, quantized)).transpose()?;
        self.exec.write_as(layout.velocity, &momentum);
        ranges.into_iter().for_each(|rows| self.exec.write_as(layout.ranges, &rows));
        network.iter().for_each(|(tensor, words)| self.exec.write_as(*tensor, words));
        self.restart_average()?;
        live.into_iter().flatten().for_each(|(tensor, words)| self.exec.write_as(tensor, &words));
        Ok(())
    }

    /// All rows of ranges.
    fn range_rows(&mut self, state: &Tensors) -> Result<Vec<RangeRow>> {
        let (layout, spec) = (&self.lowered.layout, self.lowered.quant.as_ref());
        let mut rows: Vec<RangeRow> = bytemuck::cast_vec(self.exec.read(layout.ranges)?);
        for (id, layer) in self.lowered.net.layers.iter().enumerate() {
            let Some(row) = layout.range_rows[id] else { continue };
            if matches!(layer, Layer::Input(_) | Layer::Activation(_)) {
                let quant = spec.and_then(|s| s.layer(id)).map_or(Quant::OFF, |q| q.quant);
                rows[row as usize] = tensors::range(state, layer.name(), &quant)?;
            }
        }
        Ok(rows)
    }

    /// Exchanges what training stands at and its average: evaluation needs the one, the next step the other. Returns whether
    /// the optimizer averages; otherwise there is nothing to exchange.
    ///
    /// # Errors
    /// A device error.
    pub fn exchange_average(&mut self) -> Result<bool> {
        let layout = &self.lowered.layout;
        let Some(average) = layout.average else { return Ok(false) };
        for (live, average) in layout.values().all().into_iter().zip(average.all()) {
            let (a, b) = (self.exec.read(live)?, self.exec.read(average)?);
            self.exec.write(live, &b);
            self.exec.write(average, &a);
        }
        Ok(true)
    }

    /// Training goes on from the average, where there is one.
    ///
    /// # Errors
    /// A device error.
    pub fn adopt_average(&mut self) -> Result<()> {
        self.exchange_average()?;
        self.restart_average()
    }

    /// The average begins with what training stands at.
    fn restart_average(&mut self) -> Result<()> {
        let layout = &self.lowered.layout;
        let Some(average) = layout.average else { return Ok(()) };
        for (live, average) in layout.values().all().into_iter().zip(average.all()) {
            let words = self.exec.read(live)?;
            self.exec.write(average, &words);
        }
        Ok(())
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

    /// Takes the momentum from learned scales, which from here on have no gradient: they stay what the stored ranges were made of.
    ///
    /// # Errors
    /// A device error.
    pub fn stop_learned_scales(&mut self) -> Result<()> {
        let layout = &self.lowered.layout;
        let Some(steps) = &layout.steps else { return Ok(()) };
        let mut velocity = self.exec.read(layout.velocity)?;
        velocity[steps.offset..].fill(0); // they are the last parameters
        self.exec.write(layout.velocity, &velocity);
        Ok(())
    }

    /// Sets the momentum to zero, at the start of a phase.
    pub fn reset_momentum(&mut self) {
        let words = self.lowered.plan.tensor(self.lowered.layout.velocity).words;
        self.exec.write(self.lowered.layout.velocity, &vec![0; words]);
    }
}
