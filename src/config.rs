//! The configuration of a run: typed sections with documented defaults, read from YAML with strict keys.
//!
//! A file names only what differs from the defaults. [`Config::load`] reads a file or a preset and applies
//! `--set key.path=value` overrides; [`Config::validate`] refuses combinations that cannot run; [`Config::to_yaml`]
//! writes the resolved configuration that a run folder keeps.

pub(crate) mod diagnose;
pub(crate) mod load;
mod method;
mod presets;
mod quant;
mod quantizer;
mod train;
mod validate;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

pub use load::Override;
pub use presets::{Preset, presets};
pub use quant::{FirstLast, Freeze, InputQuant, LayerBits, Method, QuantConfig, Reduce};
pub use quantizer::{ActivationQuantConfig, Estimator, Granularity, Mask, RangeSource, WeightQuantConfig};
pub use train::{
    DistillConfig, INIT_FROM, MOST_SECONDS, OptimizerConfig, PhaseConfig, RING_ROWS, Schedule, TrainConfig,
};

/// The version of the file format that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Everything a run depends on besides the data set's bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Version of the file format. Default 1, the only one so far.
    pub format_version: u32,
    /// Pictures and their augmentation.
    pub data: DataConfig,
    /// Shape of the network.
    pub network: NetworkConfig,
    /// Epochs, optimizer and learning rates.
    pub train: TrainConfig,
    /// Bits, ranges and gradient rules of the quantizers.
    pub quant: QuantConfig,
    /// Memory budget and kernel choice.
    pub device: DeviceConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            format_version: FORMAT_VERSION,
            data: DataConfig::default(),
            network: NetworkConfig::default(),
            train: TrainConfig::default(),
            quant: QuantConfig::default(),
            device: DeviceConfig::default(),
        }
    }
}

/// Keys that say how a run is carried out, and change nothing of what comes out.
pub const CONDUCT_KEYS: [&str; 4] =
    ["device.memory_mib", "device.pictures", "train.log_every", "train.heartbeat_seconds"];

impl Config {
    /// Whether ranges stand still in this quantized epoch.
    pub fn freezes_ranges(&self, epoch: u32) -> bool {
        match self.quant.freeze {
            Freeze::Never => false,
            Freeze::AfterCalibration => true,
            Freeze::BeforeLastEpoch => epoch >= self.train.quant_epochs.saturating_sub(1),
            Freeze::AfterEpochs(n) => epoch >= n + self.quant.delay_epochs,
        }
    }

    /// The same with the defaults of [`CONDUCT_KEYS`]: two runs for which this is equal come out alike.
    pub fn outcome(&self) -> Config {
        let (mut same, defaults) = (self.clone(), Config::default());
        same.device.memory_mib = defaults.device.memory_mib;
        same.device.pictures = defaults.device.pictures;
        same.train.log_every = defaults.train.log_every;
        same.train.heartbeat_seconds = defaults.train.heartbeat_seconds;
        same
    }

    /// Classes of the network where no data is read: those of the configuration, else of the embedded pictures or CIFAR-100.
    pub fn expected_classes(&self) -> usize {
        let embedded = self.data.dir.as_deref() == Some(crate::data::EMBEDDED);
        self.network.classes.map_or(if embedded { 10 } else { 100 }, |n| n as usize)
    }
}

/// Where pictures come from and how training pictures are varied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// A folder with the data set, or `embedded` for the small set inside the program. Default: the variable `CQAT_DATA`, else
    /// `./data`.
    #[serde(deserialize_with = "text")]
    pub dir: Option<String>,
    /// Height and width of the pictures in pixels, a multiple of 8 from 16 to 256. Default 32.
    pub size: u32,
    /// Share of the pictures that becomes the test set, where class folders are not split into train and test: of every class, in
    /// (0, 1). Default 0.2.
    pub test_fraction: f32,
    /// Leave out pictures that cannot be decoded. Default false: they are listed, and the set is refused.
    pub skip_broken: bool,
    /// Number of training pictures held out for validation. Default 0: train on all of them.
    pub validation: usize,
    /// Number of training pictures to train on, of those that validation leaves: as many of each class as can be, the same for
    /// every seed. Default: all.
    pub subset: Option<usize>,
    /// Random changes made to training pictures.
    pub augment: AugmentConfig,
}

impl Default for DataConfig {
    fn default() -> Self {
        DataConfig {
            dir: None,
            size: 32,
            test_fraction: 0.2,
            skip_broken: false,
            validation: 0,
            subset: None,
            augment: AugmentConfig::default(),
        }
    }
}

/// Text, or nothing. YAML's reader by itself takes a number or a truth value for text too.
fn text<'de, D: Deserializer<'de>, T: From<String>>(deserializer: D) -> Result<Option<T>, D::Error> {
    struct Text;
    impl<'de> Visitor<'de> for Text {
        type Value = Option<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("text")
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(text.into()))
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    Ok(deserializer.deserialize_any(Text)?.map(T::from))
}

/// Random changes made to each training picture; evaluation sees pictures as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentConfig {
    /// Pixels of zero padding on every side before a random crop back to the original size. Default 4; 0 = no crop.
    pub crop_padding: u32,
    /// Mirror left to right with probability 1/2. Default true.
    pub flip: bool,
    /// Side in pixels of a square blanked at a random place (DeVries and Taylor, 2017). Default 0 = off.
    pub cutout: u32,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        AugmentConfig { crop_padding: 4, flip: true, cutout: 0 }
    }
}

/// A residual network in its CIFAR form: 3x3 first convolution of stride 1, no max pooling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Layers with weights on the longest path: 8, 10, 18, 20, 32, 34, 44 or 56. Default 18.
    pub depth: u32,
    /// Channels of the first stage, a multiple of 8; later stages double it. Default 64.
    pub width: u32,
    /// Number of classes. Default: the data set's.
    pub classes: Option<u32>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        NetworkConfig { depth: 18, width: 64, classes: None }
    }
}

/// What the run may use of the device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceConfig {
    /// Budget of device memory in MiB (2^20 bytes). Default: 70 % of the device's memory where that is known, else of the
    /// machine's available memory, else of 2 GiB.
    pub memory_mib: Option<u64>,
    /// Family of the matrix kernels. Default auto.
    pub kernels: Kernels,
    /// How matrix units, where the device has some, multiply real numbers. Default f32.
    pub precision: Precision,
    /// Where the training pictures lie. Default auto.
    pub pictures: Pictures,
}

/// Where the training pictures lie while a network trains. The results are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pictures {
    /// On a real GPU where all of them fit, else with the host.
    #[default]
    Auto,
    /// The host sends each batch.
    Host,
    /// All on the device.
    Device,
}

/// What matrix units, which multiply f16 and add f32, are used for beside products of codes, which are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Precision {
    /// The gradients of a quantized network, in two terms of f16: as exact as f32. Everything else is multiplied in f32.
    #[default]
    #[serde(rename = "f32")]
    F32,
    /// All products, real operands in two terms of f16.
    #[serde(rename = "f16x3")]
    F16x3,
    /// All products, real operands in one term: 11 bits.
    #[serde(rename = "f16")]
    F16,
}

/// Which family of matrix kernels runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernels {
    /// The one that suits the device.
    #[default]
    Auto,
    /// For software adapters: no barriers, no workgroup memory.
    Lane,
    /// For GPUs: tiles in workgroup memory.
    Tiled,
}
