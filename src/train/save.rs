//! Checkpoints of a run: nothing that is not finite ever reaches one.

use std::path::Path;

use super::{Trainer, report};
use crate::checkpoint::{Checkpoint, FORMAT_VERSION, Meta};
use crate::safetensors_io::Tensors;
use crate::session::NOT_FINITE_HINT;
use crate::{Error, Result};

impl Trainer<'_> {
    /// Writes a checkpoint, unless a tensor has gone bad: the one before stays then.
    pub(super) fn save(&mut self, path: &Path) -> Result<()> {
        let mut tensors = self.finite_state()?;
        report::store_codes(&self.codes, &mut tensors);
        let meta = Meta {
            format_version: FORMAT_VERSION,
            program: crate::VERSION.to_string(),
            config: self.config.to_yaml()?,
            position: self.at,
            epoch_seconds: self.seconds,
            normalisation: self.normalisation,
            class_names: self.data.class_names.clone(),
            data_sha256: self.data.sha256.clone(),
            metrics_bytes: self.folder.metrics_bytes()?,
        };
        Checkpoint { tensors, meta }.write(path)
    }

    /// Everything that a checkpoint keeps, all of it finite.
    pub(super) fn finite_state(&mut self) -> Result<Tensors> {
        let tensors = self.session.state()?;
        let Some(name) = self.first_not_finite(&tensors) else { return Ok(tensors) };
        let broken = self.session.first_broken_layer()?;
        let place = broken.unwrap_or(format!("it went first, in the update of step {}", self.at.global_step));
        Err(Error::training(format!("{name} is not finite: {place}")).hint(NOT_FINITE_HINT))
    }

    /// The first tensor in forward order with a value that is not finite.
    fn first_not_finite<'t>(&self, tensors: &'t Tensors) -> Option<&'t str> {
        let weights = &self.session.lowered.layout.weights;
        let place = |name: &str| weights.iter().position(|w| name.strip_suffix(".weight") == Some(&w.name));
        let bad = tensors.iter().filter(|(_, t)| !t.is_finite()).map(|(name, _)| name.as_str());
        bad.min_by_key(|name| place(name).unwrap_or(weights.len()))
    }
}
