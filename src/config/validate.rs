//! What a configuration must satisfy to be able to run. Every message names the key, its value and what was expected.

mod quant;

use super::{
    Config, DataConfig, DeviceConfig, FORMAT_VERSION, Freeze, MOST_SECONDS, Method, NetworkConfig, OptimizerConfig,
    PhaseConfig, QuantConfig, RING_ROWS, Schedule, TrainConfig,
};
use crate::data::{SIZES, is_size};
use crate::error::{Error, Result};
use crate::net::{DEPTHS, depths_in_words};
use std::fmt::Display;

impl Config {
    /// Refuses, with a hint, what cannot run: values out of range and settings that contradict each other.
    /// [`crate::setup::check`] knows the network as well.
    ///
    /// # Errors
    /// The first such key.
    pub fn validate(&self) -> Result<()> {
        if self.format_version != FORMAT_VERSION {
            let error = wrong("format_version", self.format_version, FORMAT_VERSION);
            return Err(error.hint("use the program that wrote the file, or remove the key"));
        }
        data(&self.data)?;
        network(&self.network)?;
        train(&self.train)?;
        phase("train.float", &self.train.float)?;
        phase("train.quant", &self.train.quant)?;
        quant::quant(&self.quant)?;
        epochs(&self.train, &self.quant)?;
        device(&self.device)
    }
}

fn wrong(key: &str, value: impl Display, expected: impl Display) -> Error {
    Error::config(format!("`{key}` is {value}, expected {expected}"))
}

fn ensure(holds: bool, error: impl FnOnce() -> Error) -> Result<()> {
    if holds { Ok(()) } else { Err(error()) }
}

/// `value` is finite and in the half-open interval [0, 1).
fn below_one(key: &str, value: f32, hint: &str) -> Result<()> {
    ensure((0.0..1.0).contains(&value), || wrong(key, value, "at least 0 and below 1").hint(hint))
}

fn positive(key: &str, value: f32, hint: &str) -> Result<()> {
    ensure(value.is_finite() && value > 0.0, || wrong(key, value, "a finite number above 0").hint(hint))
}

fn at_least_one(key: &str, value: u32, hint: &str) -> Result<()> {
    ensure(value >= 1, || wrong(key, value, "at least 1").hint(hint))
}

fn data(c: &DataConfig) -> Result<()> {
    ensure(c.dir.as_ref().is_none_or(|dir| !dir.is_empty()), || {
        wrong("data.dir", "empty", "a folder or `embedded`").hint("remove the key, or name the folder of the data set")
    })?;
    ensure(is_size(c.size as usize), || {
        wrong("data.size", c.size, format!("{SIZES} pixels")).hint("32 is the size of CIFAR's pictures")
    })?;
    ensure(c.test_fraction > 0.0 && c.test_fraction < 1.0, || {
        wrong("data.test_fraction", c.test_fraction, "above 0 and below 1").hint("0.2 is the default")
    })?;
    ensure(c.subset != Some(0), || {
        wrong("data.subset", 0, "at least 1 training picture").hint("remove the key to train on all of them")
    })?;
    let pixels = |key, value, most: u32| {
        let hint = format!("pictures are {} pixels wide: data.size", c.size);
        ensure(value <= most, || wrong(key, value, format!("0 to {most} pixels")).hint(hint))
    };
    pixels("data.augment.crop_padding", c.augment.crop_padding, c.size / 2)?;
    pixels("data.augment.cutout", c.augment.cutout, c.size - 1)
}

fn network(c: &NetworkConfig) -> Result<()> {
    ensure(DEPTHS.iter().any(|(depth, _)| *depth == c.depth as usize), || {
        wrong("network.depth", c.depth, depths_in_words()).hint("18 is the paper's network, 8 the quickest")
    })?;
    ensure(c.width.is_multiple_of(8) && (8..=1024).contains(&c.width), || {
        let near = (c.width / 8).clamp(1, 128) * 8;
        wrong("network.width", c.width, "a multiple of 8 from 8 to 1024").hint(format!("{near} would do"))
    })?;
    ensure(c.classes.is_none_or(|n| (2..=1 << 20).contains(&n)), || {
        let error = wrong("network.classes", c.classes.unwrap_or_default(), "2 to 1048576");
        error.hint("remove the key to take the number of classes from the data set")
    })
}

fn train(c: &TrainConfig) -> Result<()> {
    ensure((1..=65_536).contains(&c.batch), || {
        wrong("train.batch", c.batch, "1 to 65536").hint("128 is the recipe's batch; lower it where memory is short")
    })?;
    ensure((1..=RING_ROWS).contains(&c.accumulate), || {
        wrong("train.accumulate", c.accumulate, format!("1 to {RING_ROWS} batches"))
            .hint("1, the default, moves the parameters after every batch")
    })?;
    ensure((1..=RING_ROWS).contains(&c.log_every), || {
        wrong("train.log_every", c.log_every, format!("1 to {RING_ROWS} steps")).hint("20 is the default")
    })?;
    below_one("train.label_smoothing", c.label_smoothing, "0 switches it off, 0.1 is the default")?;
    ensure(c.init_from.as_ref().is_none_or(|path| !path.as_os_str().is_empty()), || {
        let error = wrong("train.init_from", "empty", "a run folder or a .safetensors file");
        error.hint("remove the key to start from random weights")
    })?;
    ensure((0.0..=1.0).contains(&c.distill.weight), || {
        wrong("train.distill.weight", c.distill.weight, "0 to 1").hint("0 switches distillation off, 0.5 is usual")
    })?;
    positive("train.distill.temperature", c.distill.temperature, "4 is the default; 1 to 10 is usual")?;
    ensure(c.distill.teacher.as_ref().is_none_or(|path| !path.as_os_str().is_empty()), || {
        wrong("train.distill.teacher", "empty", "a run folder or a .safetensors file")
            .hint("remove the key to learn from the run's own float network")
    })?;
    let OptimizerConfig { momentum, nesterov, weight_decay, .. } = c.optimizer;
    below_one("train.optimizer.momentum", momentum, "0 switches it off, 0.9 is the default")?;
    ensure(!nesterov || momentum > 0.0, || {
        Error::config("`train.optimizer.nesterov` is true with momentum 0, expected a momentum above 0")
            .hint("set train.optimizer.nesterov=false or raise train.optimizer.momentum")
    })?;
    ensure((0.0..=MOST_SECONDS).contains(&c.heartbeat_seconds), || {
        wrong("train.heartbeat_seconds", c.heartbeat_seconds, format!("0 to {MOST_SECONDS}")).hint("30 is the default")
    })?;
    if let Some(decay) = c.optimizer.ema_decay {
        ensure(decay > 0.0 && decay < 1.0, || {
            wrong("train.optimizer.ema_decay", decay, "above 0 and below 1")
                .hint("remove the key to keep no averages; 0.99 to 0.9999 is usual")
        })?;
    }
    if let Some(norm) = c.optimizer.clip_norm {
        positive("train.optimizer.clip_norm", norm, "remove the key to leave gradients as they are; 1 to 5 is usual")?;
    }
    ensure(weight_decay.is_finite() && weight_decay >= 0.0, || {
        let error = wrong("train.optimizer.weight_decay", weight_decay, "a finite number, 0 or more");
        error.hint("0 switches it off, 0.0005 is the default")
    })
}

fn phase(at: &str, c: &PhaseConfig) -> Result<()> {
    let key = |name: &str| format!("{at}.{name}");
    positive(&key("lr"), c.lr, "0.2 (float) and 0.02 (quantized) suit batches of 128")?;
    ensure(c.gamma > 0.0 && c.gamma <= 1.0, || {
        wrong(&key("gamma"), c.gamma, "above 0 and at most 1").hint("the rate is multiplied by it at every milestone")
    })?;
    ensure((0.0..=1.0).contains(&c.warmup_fraction), || {
        let error = wrong(&key("warmup_fraction"), c.warmup_fraction, "a fraction from 0 to 1");
        error.hint("0 switches warm-up off, 0.1 is the default")
    })?;
    let inside = c.milestones.iter().all(|&m| m > 0.0 && m < 1.0);
    ensure(inside && c.milestones.is_sorted_by(|a, b| a < b), || {
        wrong(&key("milestones"), format!("{:?}", c.milestones), "ascending fractions between 0 and 1")
            .hint("fractions of the phase, not epochs: [0.3, 0.6, 0.8]")
    })?;
    ensure(c.schedule != Schedule::Step || !c.milestones.is_empty(), || {
        Error::config(format!("`{at}.schedule` is step without milestones, expected at least one"))
            .hint(format!("add {at}.milestones, such as [0.3, 0.6, 0.8], or use the schedule constant"))
    })
}

/// The method, the epochs and the freezing of ranges fit together.
fn epochs(t: &TrainConfig, q: &QuantConfig) -> Result<()> {
    if q.method == Method::None {
        ensure(!t.distill.is_on(), || {
            wrong("train.distill.weight", t.distill.weight, "0 with quant.method none")
                .hint("only a quantized network has a teacher: set quant.method, or train.distill.weight=0")
        })?;
        ensure(t.quant_epochs == 0, || {
            wrong("train.quant_epochs", t.quant_epochs, "0 with quant.method none")
                .hint("set train.quant_epochs=0 to train in float, or quant.method=cqat to quantize")
        })?;
        return ensure(t.float_epochs >= 1, || {
            Error::config("`train.float_epochs` is 0 with quant.method none, expected at least 1: nothing to train")
                .hint("set train.float_epochs, such as 30")
        });
    }
    ensure(t.float_epochs > 0 || t.quant_epochs > 0 || t.init_from.is_some(), || {
        Error::config(
            "`train.float_epochs` and `train.quant_epochs` are 0 without train.init_from, \
             expected something to train or to quantize",
        )
        .hint("set train.float_epochs, such as 30, or train.init_from to a trained run")
    })?;
    let has_teacher = t.distill.teacher.is_some() || t.init_from.is_some() || t.float_epochs > 0;
    ensure(!t.distill.is_on() || has_teacher, || {
        wrong("train.distill.weight", t.distill.weight, "0 without a float network that has learned something")
            .hint("set train.float_epochs, train.init_from or train.distill.teacher")
    })?;
    ensure(t.quant_epochs > 0 || !t.distill.is_on(), || {
        wrong("train.distill.weight", t.distill.weight, "0 with train.quant_epochs 0: nothing learns from the teacher")
            .hint("set train.quant_epochs, or train.distill.weight=0")
    })?;
    ensure(t.quant_epochs > 0 || q.reestimate_batches == 0, || {
        wrong(
            "quant.reestimate_batches",
            q.reestimate_batches,
            "0 with train.quant_epochs 0: statistics are made anew after an epoch",
        )
        .hint("set train.quant_epochs, or quant.reestimate_batches=0")
    })?;
    at_least_one(
        "quant.calibration_batches",
        q.calibration_batches,
        "the first ranges come from these batches; 8 is the default",
    )?;
    ensure(q.delay_epochs == 0 || q.delay_epochs < t.quant_epochs, || {
        wrong("quant.delay_epochs", q.delay_epochs, format!("fewer than train.quant_epochs, {}", t.quant_epochs))
            .hint("leave at least one epoch with quantizers on")
    })?;
    let Freeze::AfterEpochs(after) = q.freeze else { return Ok(()) };
    ensure(after >= 1, || {
        wrong("quant.freeze", "after_epochs: 0", "at least 1 epoch").hint("set quant.freeze=after_calibration")
    })?;
    let quantized = t.quant_epochs.saturating_sub(q.delay_epochs);
    ensure(after < quantized, || {
        let expected = format!("fewer than the {quantized} epochs with quantizers on");
        wrong("quant.freeze", format!("after_epochs: {after}"), expected)
            .hint("set quant.freeze=before_last_epoch, or never to let ranges move to the end")
    })
}

fn device(c: &DeviceConfig) -> Result<()> {
    ensure(c.memory_mib != Some(0), || {
        wrong("device.memory_mib", 0, "at least 1 MiB").hint("remove the key to use what the device reports")
    })
}
