//! Batch norm's running statistics, estimated anew once training is done.

use std::time::Duration;

use super::{Trainer, step_seed};
use crate::Result;
use crate::data::Batches;
use crate::interrupt;
use crate::kernels::Step;
use crate::progress::Progress;
use crate::score::Totals;
use crate::session::{Form, Norms};

impl Trainer<'_> {
    /// After the last quantized epoch: batch norm's running statistics anew, from forward passes of the final weights over the
    /// next batches in training's order. Returns what was there before, or `None` where there is nothing to do.
    pub(super) fn reestimate_norms(&mut self) -> Result<Option<Norms>> {
        let batches = self.config.quant.reestimate_batches as usize;
        let last = self.form() == Form::Quantized && self.at.epoch + 1 == self.config.train.quant_epochs;
        if !last || batches == 0 {
            return Ok(None);
        }
        self.session.prepare_weights(Form::Quantized, self.frozen())?;
        let before = self.session.norms()?;
        let ranges = self.session.lowered.layout.ranges;
        let counted = self.session.executor().read(ranges)?;
        let order = self.order();
        let all = Batches::training(&order, self.session.lowered.batch)?;
        let every = Duration::from_secs_f32(self.config.train.heartbeat_seconds);
        let mut progress =
            Progress::start("re-estimation", batches as u64, 0, self.session.lowered.batch, every, self.quiet);
        for (k, indices) in all.cycle().take(batches).enumerate() {
            if interrupt::requested() {
                break; // the evaluation sees it too
            }
            // A training step that teaches nothing.
            let global_step = self.at.global_step + k as u64;
            let seed = step_seed(self.config.train.seed, global_step);
            let step = Step { seed, index: global_step as u32, frozen: 1, lr: 0.0, ema_decay: 1.0, ..Step::default() };
            self.session.train_step(Form::Quantized, &self.data.train, indices, step)?;
            if self.session.undrained() >= self.config.train.log_every as usize {
                self.session.drain(&mut Totals::default())?;
            }
            progress.update(k as u64 + 1);
            if let Some(beat) = progress.beat() {
                self.log_heartbeat(&beat)?;
            }
        }
        progress.finish();
        self.session.drain(&mut Totals::default())?;
        self.session.executor().write(ranges, &counted); // the metrics count the steps that taught
        Ok(Some(before))
    }
}
