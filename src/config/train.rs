//! The `train` section: epochs, optimizer, and one learning-rate schedule per phase.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

/// Batches whose metrics the device keeps.
pub const RING_ROWS: u32 = 256;

/// The longest wait between two signs of life: a day.
pub const MOST_SECONDS: f32 = 86_400.0;

/// Length, seed, optimizer and learning rates of a run: a float phase, then a quantized phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Pictures of a batch. Default 128.
    pub batch: u32,
    /// Batches of a step, 1 to [`RING_ROWS`]: the mean of their gradients moves the parameters once. Batch norm and the ranges of activations
    /// see each batch by itself, so this is not the same as one large batch. Default 1.
    pub accumulate: u32,
    /// Seed of initial weights, order of pictures and augmentation. Default 0.
    pub seed: u64,
    /// Epochs of the float phase. Default 30.
    pub float_epochs: u32,
    /// Epochs of the quantized phase. Default 15; 0 with a quantizing method is post-training quantization: the float
    /// network is calibrated and not trained further.
    pub quant_epochs: u32,
    /// A `.safetensors` file whose parameters the run starts from, or a run folder: the end of its float phase where it has
    /// one, else its last checkpoint. Default: random initial weights.
    #[serde(deserialize_with = "super::text")]
    pub init_from: Option<PathBuf>,
    /// Probability mass e moved from the true class to all classes alike: target = (1 - e) * onehot + e / classes.
    /// Default 0.1.
    pub label_smoothing: f32,
    /// What the quantized network learns from a float one.
    pub distill: DistillConfig,
    /// Stochastic gradient descent.
    pub optimizer: OptimizerConfig,
    /// Learning rate of the float phase; `lr` defaults to 0.2.
    pub float: PhaseConfig,
    /// Learning rate of the quantized phase; `lr` defaults to 0.02.
    #[serde(deserialize_with = "quantized_phase")]
    pub quant: PhaseConfig,
    /// Steps between two readings of the metrics, 1 to [`RING_ROWS`]: so fresh is the loss beside the progress bar, and so late is a loss
    /// noticed that is not finite. Default 20.
    pub log_every: u32,
    /// Seconds between two heartbeats: lines in metrics.jsonl, and on standard error where that is no terminal. Default 30; 0: none.
    pub heartbeat_seconds: f32,
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            batch: 128,
            accumulate: 1,
            seed: 0,
            float_epochs: 30,
            quant_epochs: 15,
            init_from: None,
            label_smoothing: 0.1,
            distill: DistillConfig::default(),
            optimizer: OptimizerConfig::default(),
            float: PhaseConfig::float(),
            quant: PhaseConfig::quantized(),
            log_every: 20,
            heartbeat_seconds: 30.0,
        }
    }
}

/// Knowledge distillation: in the quantized phase, once the quantizers are on, a float network of the same shape sees the same pictures,
/// and the loss is (1 - weight) * cross entropy + weight * T^2 * KL(softmax(teacher / T) || softmax(logits / T)) (Hinton et al., 2015).
/// The teacher's batch norms use their running statistics. The loss that is reported stays the cross entropy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistillConfig {
    /// Part of the teacher in the loss, 0 to 1. Default 0: off.
    pub weight: f32,
    /// T, above 0. Default 4.
    pub temperature: f32,
    /// The teacher: a run folder, whose float network it is, or a `.safetensors` file. Default: the network at the end of the run's own float
    /// phase.
    #[serde(deserialize_with = "super::text")]
    pub teacher: Option<PathBuf>,
}

impl Default for DistillConfig {
    fn default() -> Self {
        DistillConfig { weight: 0.0, temperature: 4.0, teacher: None }
    }
}

impl DistillConfig {
    /// Whether there is a teacher.
    pub fn is_on(&self) -> bool {
        self.weight > 0.0
    }
}

/// Stochastic gradient descent with momentum.
///
/// With d = gradient + weight_decay * p: v = momentum * v + d (v = d on the first step), then
/// p -= lr * v, or p -= lr * (d + momentum * v) with Nesterov's form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Momentum, in [0, 1). Default 0.9.
    pub momentum: f32,
    /// Nesterov's form of the update. Default true.
    pub nesterov: bool,
    /// Weight decay added to the gradient. Default 5e-4.
    pub weight_decay: f32,
    /// Largest L2 norm of all gradients together: larger ones are scaled down to it, before weight decay. Default none.
    pub clip_norm: Option<f32>,
    /// Decay d of the moving averages of all parameters and running statistics, in (0, 1): average = d * average + (1 - d) * value
    /// after every step, where d is at most (1 + t) / (10 + t) in step t of a phase, as in TensorFlow's
    /// `ExponentialMovingAverage`. The averages are the network that is evaluated and kept; training goes on without them.
    /// Default none.
    pub ema_decay: Option<f32>,
    /// Decay batch-norm parameters and biases as well. Default false.
    pub decay_norms_and_biases: bool,
}

/// The key of the network that a run begins with.
pub const INIT_FROM: &str = "train.init_from";

impl TrainConfig {
    /// Networks that the run takes from elsewhere, to begin with and to learn from: their keys and places.
    pub fn networks(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let teacher = self.distill.teacher.as_ref().filter(|_| self.distill.is_on());
        let all = [(INIT_FROM, self.init_from.as_ref()), ("train.distill.teacher", teacher)];
        all.into_iter().filter_map(|(key, path)| Some((key, path?)))
    }

    /// Pictures of a step.
    pub fn step_pictures(&self) -> usize {
        self.batch as usize * self.accumulate as usize
    }
}

impl OptimizerConfig {
    /// Decay of the moving averages in step `t` of a phase, from 0.
    pub fn ema_decay_at(&self, t: u64) -> f32 {
        let warm_up = (1.0 + t as f64) / (10.0 + t as f64);
        self.ema_decay.map_or(0.0, |decay| f64::from(decay).min(warm_up) as f32)
    }
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        OptimizerConfig {
            momentum: 0.9,
            nesterov: true,
            weight_decay: 5e-4,
            clip_norm: None,
            ema_decay: None,
            decay_norms_and_biases: false,
        }
    }
}

/// Shape of the learning rate over a phase, after warm-up. The formulae stand at [`crate::schedule::learning_rate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Half a cosine from `lr` to 0.
    #[default]
    Cosine,
    /// `lr` throughout.
    Constant,
    /// `lr` times `gamma` once for every milestone passed.
    Step,
    /// From `lr` / 25 up to `lr` along half a cosine, reached after `warmup_fraction` of the phase, then down to
    /// `lr` / 250000 along another (Smith and Topin, 2018, as in PyTorch's `OneCycleLR`; the momentum stays).
    OneCycle,
}

/// Learning rate of one phase (float or quantized). Defaults are those of the float phase; in `train.quant`, a missing
/// `lr` means 0.02.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "PhaseInput")]
pub struct PhaseConfig {
    /// Peak learning rate per step. Default 0.2 (float phase) or 0.02 (quantized phase).
    pub lr: f32,
    /// Shape after warm-up. Default cosine.
    pub schedule: Schedule,
    /// For `step`: fractions of the phase, ascending in (0, 1), at which the rate falls. Default none.
    pub milestones: Vec<f32>,
    /// For `step`: the factor applied at each milestone. Default 0.1.
    pub gamma: f32,
    /// Fraction of the phase's steps spent in warm-up, linear but for `one_cycle`, in [0, 1]. Default 0.1.
    pub warmup_fraction: f32,
    /// Upper limit of linear warm-up in steps. Default 300.
    pub warmup_max_steps: u32,
}

impl PhaseConfig {
    /// Defaults of the float phase.
    pub fn float() -> Self {
        PhaseConfig {
            lr: 0.2,
            schedule: Schedule::Cosine,
            milestones: Vec::new(),
            gamma: 0.1,
            warmup_fraction: 0.1,
            warmup_max_steps: 300,
        }
    }

    /// Defaults of the quantized phase: a tenth of the float phase's rate.
    pub fn quantized() -> Self {
        PhaseConfig { lr: 0.02, ..Self::float() }
    }
}

impl Default for PhaseConfig {
    fn default() -> Self {
        Self::float()
    }
}

/// A phase as written: which default a missing `lr` takes depends on where the phase stands.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PhaseInput {
    #[serde(deserialize_with = "present")]
    lr: Option<f32>,
    schedule: Schedule,
    milestones: Vec<f32>,
    gamma: f32,
    warmup_fraction: f32,
    warmup_max_steps: u32,
}

impl Default for PhaseInput {
    fn default() -> Self {
        let PhaseConfig { lr: _, schedule, milestones, gamma, warmup_fraction, warmup_max_steps } =
            PhaseConfig::default();
        PhaseInput { lr: None, schedule, milestones, gamma, warmup_fraction, warmup_max_steps }
    }
}

impl PhaseInput {
    fn with_default_lr(self, default: f32) -> PhaseConfig {
        let PhaseInput { lr, schedule, milestones, gamma, warmup_fraction, warmup_max_steps } = self;
        PhaseConfig { lr: lr.unwrap_or(default), schedule, milestones, gamma, warmup_fraction, warmup_max_steps }
    }
}

impl From<PhaseInput> for PhaseConfig {
    fn from(input: PhaseInput) -> Self {
        input.with_default_lr(PhaseConfig::float().lr)
    }
}

fn quantized_phase<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PhaseConfig, D::Error> {
    Ok(PhaseInput::deserialize(deserializer)?.with_default_lr(PhaseConfig::quantized().lr))
}

/// A value that may be left out, but not written as null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f32>, D::Error> {
    f32::deserialize(deserializer).map(Some)
}
