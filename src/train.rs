//! Training a run: float epochs, calibration, quantized epochs. Readable top to bottom.

mod norms;
mod report;
mod save;
mod start;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::checkpoint::{Checkpoint, Phase, Position};
use crate::config::{Config, Method, PhaseConfig};
use crate::data::{Batches, DataSet, epoch_permutation};
use crate::exec::Device;
use crate::interrupt;
use crate::kernels::Step;
use crate::normalisation::Normalisation;
use crate::plan::layout::RING;
use crate::plan::lower::Lowered;
use crate::progress::{Progress, say};
use crate::rng;
use crate::run::{Resumed, RunFolder};
use crate::schedule::learning_rate;
use crate::score::Totals;
use crate::session::{Form, Session};
use crate::terminal::shell_word;
use crate::{Error, ErrorKind, Result};

/// How a call of [`Trainer::run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// `--stop-after` was reached.
    Stopped,
}

/// A run in progress.
pub struct Trainer<'a> {
    config: &'a Config,
    data: &'a DataSet,
    folder: RunFolder,
    session: Session<'a>,
    at: Position,
    /// Time spent in the steps of the epoch so far.
    seconds: f64,
    normalisation: Normalisation,
    /// Weight codes at the end of the quantized epoch before, by layer.
    codes: BTreeMap<String, Vec<i8>>,
    /// Whether the session has its teacher.
    taught: bool,
    quiet: bool,
}

impl<'a> Trainer<'a> {
    /// A new run on `device`, from fresh weights or `train.init_from`. `create` makes its folder, once everything else is
    /// known to work; the run's first checkpoint is written at once.
    ///
    /// # Errors
    /// A device error, a start that does not fit the network or has seen what this run is scored on, a folder that cannot be made.
    pub fn start(
        config: &'a Config,
        data: &'a DataSet,
        device: &'a dyn Device,
        lowered: &'a Lowered,
        create: impl FnOnce() -> Result<RunFolder>,
        quiet: bool,
    ) -> Result<Trainer<'a>> {
        start::refuse_leaks(config, data)?;
        let normalisation = Normalisation::of(data);
        let mut session = Session::new(lowered, device.load(&lowered.plan)?, &normalisation);
        session.keep(&data.train);
        session.set_state(&start::tensors(config, lowered)?)?;
        let teacher = config.train.distill.teacher.as_ref().filter(|_| config.train.distill.is_on());
        if let Some(from) = teacher {
            start::teach(&mut session, from)?; // not only once the float phase is over
        }
        if start::stands_still(config) {
            let hint = "quant.freeze=never, or more quantized epochs, let them learn";
            log::warn!(
                "ranges are frozen in every quantized epoch: {} learns no scale; hint: {hint}",
                config.quant.method
            );
        }
        let folder = create()?;
        let mut trainer = Trainer {
            config,
            data,
            folder,
            session,
            at: Position::START,
            seconds: 0.0,
            normalisation,
            codes: BTreeMap::new(),
            taught: teacher.is_some(),
            quiet,
        };
        trainer.save_last()?;
        Ok(trainer)
    }

    /// The run of `checkpoint`, from where it stopped.
    ///
    /// # Errors
    /// A device error, other data, a checkpoint that does not fit the network.
    pub fn resume(
        config: &'a Config,
        data: &'a DataSet,
        device: &'a dyn Device,
        lowered: &'a Lowered,
        mut folder: RunFolder,
        checkpoint: Checkpoint,
        quiet: bool,
    ) -> Result<Trainer<'a>> {
        let Checkpoint { tensors, meta } = checkpoint;
        if meta.data_sha256 != data.sha256 {
            return Err(Error::data(format!("the run was trained on other data than {}", data.name))
                .hint("point --data at the data set the run started with"));
        }
        let epochs = match meta.position.phase {
            Phase::Float => config.train.float_epochs,
            Phase::Quant => config.train.quant_epochs,
        };
        let steps = data.train.len() / config.train.step_pictures();
        let before = if meta.position.phase == Phase::Quant { config.train.float_epochs } else { 0 };
        let taken = (u64::from(before) + u64::from(meta.position.epoch)) * steps as u64 + u64::from(meta.position.step);
        if meta.position.epoch > epochs || meta.position.step as usize > steps || meta.position.global_step != taken {
            return Err(Error::training(format!(
                "the checkpoint stands at epoch {}, step {}, {} steps in all, but its phase has {epochs} epochs of {steps} steps",
                meta.position.epoch, meta.position.step, meta.position.global_step
            ))
            .hint("the checkpoint is damaged: start a new run from its weights with --set train.init_from"));
        }
        let codes = report::stored_codes(&tensors)?;
        let mut session = Session::new(lowered, device.load(&lowered.plan)?, &meta.normalisation);
        session.keep(&data.train);
        session.set_state(&tensors)?;
        folder.reopen(meta.metrics_bytes, &Resumed::now(device.summary()))?;
        folder.begin_events(meta.position.global_step)?;
        let (at, seconds, normalisation) = (meta.position, meta.epoch_seconds, meta.normalisation);
        Ok(Trainer { config, data, folder, session, at, seconds, normalisation, codes, taught: false, quiet })
    }

    /// Trains until the end, `stop_after` epochs of the whole run, or an interruption.
    ///
    /// # Errors
    /// Device errors, a loss that is not finite, failures to write, [`ErrorKind::Interrupted`].
    pub fn run(&mut self, stop_after: Option<u32>) -> Result<Outcome> {
        let t = &self.config.train;
        loop {
            if self.at.phase == Phase::Float && self.at.epoch == t.float_epochs {
                self.finish_float()?;
            }
            if self.at.phase == Phase::Quant && self.at.epoch == t.quant_epochs {
                return self.finish();
            }
            if stop_after.is_some_and(|n| self.epochs_done() >= n) {
                return Ok(Outcome::Stopped);
            }
            if self.at.phase == Phase::Quant && self.at.epoch == self.config.quant.delay_epochs && !self.at.calibrated {
                self.calibrate()?;
            }
            let lr = self.epoch()?;
            self.end_epoch(lr)?;
            if interrupt::requested() {
                return Err(self.was_saved());
            }
        }
    }

    /// Whether nothing is left to train.
    pub fn finished(&self) -> bool {
        let (t, q) = (&self.config.train, &self.config.quant);
        match self.at.phase {
            Phase::Float => q.method == Method::None && self.at.epoch >= t.float_epochs && self.folder.float().exists(),
            Phase::Quant => self.at.epoch >= t.quant_epochs && (t.quant_epochs > 0 || self.at.calibrated),
        }
    }

    fn epochs_done(&self) -> u32 {
        self.at.epoch + if self.at.phase == Phase::Quant { self.config.train.float_epochs } else { 0 }
    }

    fn form(&self) -> Form {
        match self.at.phase {
            Phase::Quant if self.at.epoch >= self.config.quant.delay_epochs => Form::Quantized,
            _ => Form::Float,
        }
    }

    /// Whether ranges stand still in the current epoch.
    fn frozen(&self) -> bool {
        self.form() == Form::Quantized && self.config.freezes_ranges(self.at.epoch)
    }

    fn phase_config(&self) -> (&'a PhaseConfig, u32) {
        match self.at.phase {
            Phase::Float => (&self.config.train.float, self.config.train.float_epochs),
            Phase::Quant => (&self.config.train.quant, self.config.train.quant_epochs),
        }
    }

    fn order(&self) -> Vec<u32> {
        epoch_permutation(self.data.train.len(), self.config.train.seed, self.epochs_done())
    }

    /// The rest of the current epoch's steps; returns the learning rate of the last one.
    fn epoch(&mut self) -> Result<f32> {
        if self.at.step == 0 {
            (self.at.totals, self.seconds) = (Totals::default(), 0.0);
            self.session.reset_statistics()?;
            if self.frozen() {
                self.session.stop_learned_scales()?;
            }
        }
        let (phase, epochs) = self.phase_config();
        let batch = self.config.train.step_pictures();
        let order = self.order();
        let batches = Batches::training(&order, batch)?;
        let steps = batches.steps() as u64;
        // The ring has room for the batches of one more step.
        let accumulate = self.config.train.accumulate as usize;
        let drain_at = (self.config.train.log_every as usize * accumulate).min(RING + 1 - accumulate);
        let (form, frozen) = (self.form(), self.frozen());
        if form == Form::Quantized {
            self.bring_teacher()?;
        }
        let name = format!("{} {}/{epochs}", self.at.phase.name(), self.at.epoch + 1);
        let every = Duration::from_secs_f32(self.config.train.heartbeat_seconds);
        let mut progress = Progress::start(&name, steps, u64::from(self.at.step), batch, every, self.quiet);
        for indices in batches.starting_at(self.at.step as usize) {
            let in_phase = u64::from(self.at.epoch) * steps + u64::from(self.at.step);
            let step = Step {
                seed: step_seed(self.config.train.seed, self.at.global_step),
                index: self.at.global_step as u32,
                frozen: u32::from(frozen),
                lr: learning_rate(phase, in_phase, steps * u64::from(epochs)),
                ema_decay: self.config.train.optimizer.ema_decay_at(in_phase),
                ..Step::default()
            };
            self.session.train_step(form, &self.data.train, indices, step)?;
            self.at.step += 1;
            self.at.global_step += 1;
            if self.session.undrained() >= drain_at {
                self.session.drain(&mut self.at.totals)?;
                let loss = self.at.totals.mean_loss();
                progress.loss(loss);
                self.folder.scalar(self.at.global_step, "loss/train so far", loss)?;
            }
            progress.update(u64::from(self.at.step));
            if let Some(beat) = progress.beat() {
                self.log_heartbeat(&beat)?;
            }
            if interrupt::requested() {
                break;
            }
        }
        self.session.drain(&mut self.at.totals)?;
        self.seconds += progress.finish().as_secs_f64();
        if interrupt::requested() {
            self.save_last()?;
            return Err(self.was_saved());
        }
        Ok(learning_rate(phase, u64::from(self.at.epoch + 1) * steps - 1, steps * u64::from(epochs)))
    }

    fn was_saved(&self) -> Error {
        Error::new(ErrorKind::Interrupted, "interrupted; the run was saved")
            .hint(format!("go on with: cqat train --resume {}", shell_word(self.folder.path())))
    }

    fn save_last(&mut self) -> Result<()> {
        self.save(&self.folder.last())
    }

    /// Evaluation, metrics, checkpoint; moves on to the next epoch.
    fn end_epoch(&mut self, lr: f32) -> Result<()> {
        self.finite_state()?; // before the evaluation, which could not name the tensor
        self.refresh_scales()?;
        if self.session.exchange_average()? {
            self.refresh_scales()?;
        }
        let before = self.reestimate_norms()?;
        let scores = match self.evaluate(self.form(), self.frozen()) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {
                before.into_iter().for_each(|norms| self.session.set_norms(norms)); // resuming begins with them again
                self.session.exchange_average()?;
                self.save_last()?;
                return Err(self.was_saved());
            }
            scores => scores?,
        };
        let epoch = self.at.epoch + 1;
        self.log_training(lr)?;
        self.log_scores(epoch, &scores)?;
        self.session.exchange_average()?;
        let (t, phase, (_, epochs)) = (self.at.totals, self.at.phase.name(), self.phase_config());
        self.at.epoch = epoch;
        self.at.step = 0;
        self.save_last()?;
        if !self.quiet {
            let (loss, train, scored) = (t.mean_loss(), t.top1_percent(), scores.totals.top1_percent());
            say!("{phase} {epoch}/{epochs}  loss {loss:.4}  train {train:.2} %  {} {scored:.2} %", scores.split);
        }
        Ok(())
    }

    /// Weight scales that are searched for once an epoch, unless they stand still.
    fn refresh_scales(&mut self) -> Result<()> {
        let moving = self.form() == Form::Quantized && !self.frozen();
        match self.session.lowered.quant.as_ref().filter(|_| moving) {
            Some(spec) => self.session.refresh_weight_scales(spec),
            None => Ok(()),
        }
    }

    /// Scores the validation pictures where there are any, else the test pictures.
    fn evaluate(&mut self, form: Form, frozen: bool) -> Result<Scores> {
        let start = Instant::now();
        let (pictures, split) = self.data.val.as_ref().map_or((&self.data.test, "test"), |v| (v, "val"));
        log::debug!("scoring {} pictures", pictures.len());
        let totals = self.session.evaluate(form, pictures, frozen)?.totals;
        Ok(Scores { form, split, totals, seconds: start.elapsed().as_secs_f64() })
    }

    fn calibrate(&mut self) -> Result<()> {
        let order = self.order();
        let available = self.data.train.len() / self.session.lowered.batch;
        let batches = (self.config.quant.calibration_batches as usize).min(available);
        log::info!("calibrating on {batches} batches");
        self.session.calibrate(&self.data.train, &order, batches)?;
        self.at.calibrated = true;
        Ok(())
    }

    /// End of the float phase: its checkpoint, which is what the next phase starts from, with a clean optimizer.
    fn finish_float(&mut self) -> Result<()> {
        self.save(&self.folder.float())?;
        if self.config.quant.method == Method::None {
            self.at.epoch = self.config.train.quant_epochs;
        } else {
            self.at.epoch = 0;
        }
        self.at.phase = Phase::Quant;
        self.at.step = 0;
        self.session.adopt_average()?;
        self.session.reset_momentum();
        Ok(())
    }

    /// End of the run. Without quantized epochs a quantizer is calibrated and evaluated: post-training quantization.
    fn finish(&mut self) -> Result<Outcome> {
        if self.config.quant.method != Method::None && self.config.train.quant_epochs == 0 && !self.at.calibrated {
            self.calibrate()?;
            let scores = match self.evaluate(Form::Quantized, true) {
                // The float network was; calibration is done again.
                Err(e) if e.kind() == ErrorKind::Interrupted => return Err(self.was_saved()),
                scores => scores?,
            };
            self.log_scores(0, &scores)?;
            self.save_last()?;
            if !self.quiet {
                say!("post-training quantization  {} {:.2} %", scores.split, scores.totals.top1_percent());
            }
        }
        Ok(Outcome::Finished)
    }
}

/// The evaluation of an epoch.
struct Scores {
    form: Form,
    /// Name of the pictures.
    split: &'static str,
    totals: Totals,
    seconds: f64,
}

/// Seed of a step's augmentation: SplitMix64's output for (seed, step).
fn step_seed(seed: u64, step: u64) -> u32 {
    rng::random(seed, step) as u32
}
