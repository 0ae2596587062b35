//! What is decided before a run trains: the network it begins with, the one it learns from, whether it may take them, and when its ranges
//! stand still.

use std::path::{Path, PathBuf};

use super::Trainer;
use crate::config::Config;
use crate::data::DataSet;
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
    config.quant.learns_activation_scales() && !epochs.is_empty() && epochs.all(|epoch| config.freezes_ranges(epoch))
}

/// Refuses to begin with a run's network, or to learn from it, where that run may have trained on pictures that this one is scored on.
///
/// `train.seed` chooses what is held back: `data.validation` pictures, and the test pictures of class folders that have none of
/// their own, by which the hash of the data differs. What a .safetensors file has seen is not known.
///
/// # Errors
/// Names the key, the run and what differs.
pub(super) fn refuse_leaks(config: &Config, data: &DataSet) -> Result<()> {
    for (key, from) in config.train.networks().filter(|(_, from)| from.is_dir()) {
        // Those who load the network say what is wrong with it.
        let Ok(run) = RunFolder::open(from) else { continue };
        if let Some(difference) = leak(config, data, &run)? {
            return Err(Error::config(format!(
                "{key}: the run {} may have trained on pictures that this one is scored on: {difference}",
                run.path().display()
            ))
            .hint(format!(
                "take a run with this one's train.seed, data.validation and data.test_fraction; {} is taken without this check",
                network_file(&run).display()
            )));
        }
    }
    Ok(())
}

/// By what the run `from` held back other pictures than this one holds back.
fn leak(config: &Config, data: &DataSet, from: &RunFolder) -> Result<Option<String>> {
    let theirs = from.config()?;
    let (seeds, held) = ((config.train.seed, theirs.train.seed), (config.data.validation, theirs.data.validation));
    // Those of the same seed are the same ones, and of more they are the first.
    if held.0 > 0 && (seeds.0 != seeds.1 || held.0 > held.1) {
        let (ours, theirs) = (format!("{} by seed {}", held.0, seeds.0), format!("{} by seed {}", held.1, seeds.1));
        return Ok(Some(format!("it held back {theirs}, expected data.validation {ours}")));
    }
    if from.data_sha256().is_none_or(|hash| hash == data.sha256) {
        return Ok(None);
    }
    if seeds.0 != seeds.1 || config.data.test_fraction != theirs.data.test_fraction {
        return Ok(Some(format!(
            "its data are other than {}, or split by seed {}, not {}",
            data.name, seeds.1, seeds.0
        )));
    }
    log::warn!("the run {} was trained on other data than {}", from.path().display(), data.name);
    Ok(None)
}

/// Weights to start from: fresh ones, or those of `train.init_from`.
pub(super) fn tensors(config: &Config, lowered: &Lowered) -> Result<Tensors> {
    let Some(from) = &config.train.init_from else {
        return Ok(crate::tensors::initialise(&lowered.layout, config.train.seed));
    };
    float_network(from)
}

/// The end of a run's float phase where it has one, else its last checkpoint.
fn network_file(run: &RunFolder) -> PathBuf {
    if run.float().exists() { run.float() } else { run.last() }
}

/// The float network of a run folder ([`network_file`]), or of a file.
fn float_network(from: &Path) -> Result<Tensors> {
    let path = if from.is_dir() { network_file(&RunFolder::open(from)?) } else { from.to_path_buf() };
    let mut tensors = checkpoint::start(&path)?;
    tensors.retain(|name, _| !crate::tensors::is_training_state(name));
    Ok(tensors)
}
