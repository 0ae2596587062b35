//! The networks that a run begins with: its own first weights, and the one it learns from.

use std::path::Path;

use super::Trainer;
use crate::config::{Config, Freeze};
use crate::plan::lower::Lowered;
use crate::run::RunFolder;
use crate::safetensors_io::Tensors;
use crate::session::Session;
use crate::{Error, Result, checkpoint};

impl Trainer<'_> {
    /// Loads the float network that the quantized one learns from, where there is one.
    pub(super) fn bring_teacher(&mut self) -> Result<()> {
        let distill = &self.config.train.distill;
        if !distill.is_on() || self.taught {
            return Ok(());
        }
        let own = self.folder.float();
        teach(&mut self.session, distill.teacher.as_ref().unwrap_or(&own))?;
        self.taught = true;
        Ok(())
    }
}

/// Gives the session the network to learn from.
pub(super) fn teach(session: &mut Session, from: &Path) -> Result<()> {
    let teacher = float_network(from).and_then(|tensors| session.set_teacher(&tensors));
    teacher.map_err(|e| {
        Error::new(e.kind(), "train.distill has no network to learn from")
            .hint("train.distill.teacher takes a run folder or a .safetensors file of the same network")
            .caused_by(e)
    })
}

/// Whether scales that are to be learned never move: a run of one quantized epoch freezes them before it by default.
pub(super) fn stands_still(config: &Config) -> bool {
    let mut epochs = config.quant.delay_epochs..config.train.quant_epochs;
    config.quant.learns_activation_scales() && !epochs.is_empty() && epochs.all(|epoch| is_frozen(config, epoch))
}

/// Whether ranges stand still in this quantized epoch.
pub(super) fn is_frozen(config: &Config, epoch: u32) -> bool {
    match config.quant.freeze {
        Freeze::Never => false,
        Freeze::AfterCalibration => true,
        Freeze::BeforeLastEpoch => epoch >= config.train.quant_epochs.saturating_sub(1),
        Freeze::AfterEpochs(n) => epoch >= n + config.quant.delay_epochs,
    }
}

/// Weights to start from: fresh ones, or those of `train.init_from`.
pub(super) fn tensors(config: &Config, lowered: &Lowered) -> Result<Tensors> {
    let Some(from) = &config.train.init_from else {
        return Ok(crate::tensors::initialise(&lowered.layout, config.train.seed));
    };
    float_network(from)
}

/// The float network of a run folder (the end of its float phase where it has one, else its last checkpoint), or of a file.
fn float_network(from: &Path) -> Result<Tensors> {
    let path = if from.is_dir() {
        let run = RunFolder::open(from)?;
        if run.float().exists() { run.float() } else { run.last() }
    } else {
        from.to_path_buf()
    };
    let mut tensors = checkpoint::start(&path)?;
    tensors.retain(|name, _| !crate::tensors::is_training_state(name));
    Ok(tensors)
}
