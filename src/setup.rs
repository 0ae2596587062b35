//! From a configuration to a network, its quantizers and its plan.

use crate::config::{AugmentConfig, Config, Pictures};
use crate::integer::IntegerNet;
use crate::kernels::Caps;
use crate::kernels::select::KernelFamily;
use crate::net::{Layer, Net};
use crate::plan::integer::{IntegerPlan, lower_integers};
use crate::plan::lower::{Lowered, Options, WINOGRAD_CHANNELS, lower, lower_fitting, lower_shrinking};
use crate::quant::QuantSpec;
use crate::{Error, Result};

/// The network and quantizers of a configuration.
///
/// # Errors
/// A configuration error.
pub fn network(config: &Config, classes: usize) -> Result<(Net, Option<QuantSpec>)> {
    let (shape, size) = (&config.network, config.data.size as usize);
    let net = Net::resnet(shape.depth as usize, shape.width as usize, classes, size)?;
    let quant = QuantSpec::new(&config.quant, &net)?;
    Ok((net, quant))
}

/// Refuses what cannot run: what [`Config::validate`] knows, and bits of layers that the network does not have.
///
/// # Errors
/// The first such key.
pub fn check(config: &Config) -> Result<()> {
    config.validate()?;
    let (net, spec) = network(config, config.network.classes.unwrap_or(10) as usize)?; // any number of classes will do
    let pixels = net.layers.iter().find_map(|l| if let Layer::Pool(p) = l { Some(p.from.pixels()) } else { None });
    match pixels.filter(|n| spec.is_some_and(|s| s.config.pow2_norm) && !n.is_power_of_two()) {
        Some(n) => Err(Error::config(format!(
            "`quant.pow2_norm` is true with data.size {}: the mean before the classifier is over {n} pixels, expected a power of two",
            config.data.size
        ))
        .hint("set data.size=32, or another power of two")),
        None => Ok(()),
    }
}

/// Lowers a configuration's network for a device.
///
/// # Errors
/// A configuration error, or a batch that does not fit.
pub fn lower_config(config: &Config, classes: usize, caps: &Caps) -> Result<Lowered> {
    let (net, quant) = network(config, classes)?;
    lower_fitting(&net, quant.as_ref(), &options(config, caps)?)
}

/// As [`lower_config`], for training with `pictures` pictures, which the device keeps where `device.pictures` says so.
///
/// # Errors
/// As [`lower_config`]; also pictures that do not fit where they have to.
pub fn lower_for_training(config: &Config, classes: usize, caps: &Caps, pictures: usize) -> Result<Lowered> {
    let (net, quant) = network(config, classes)?;
    let with = |resident| lower_fitting(&net, quant.as_ref(), &Options { resident, ..options(config, caps)? });
    match config.device.pictures {
        Pictures::Host => with(0),
        Pictures::Device => with(pictures).map_err(|e| match with(0) {
            Ok(_) => e.hint("the batch fits without the training pictures: --set device.pictures=host"),
            Err(_) => e,
        }),
        Pictures::Auto if caps.software => with(0),
        Pictures::Auto => {
            let lowered = lower(&net, quant.as_ref(), &Options { resident: pictures, ..options(config, caps)? })?;
            if lowered.plan.fits(caps).is_ok() { Ok(lowered) } else { with(0) }
        }
    }
}

/// As [`lower_config`], with a smaller batch where the configuration's does not fit.
///
/// # Errors
/// A configuration error, or a device on which not even one picture fits.
pub fn lower_for_evaluation(config: &Config, classes: usize, caps: &Caps) -> Result<Lowered> {
    let (net, quant) = network(config, classes)?;
    lower_spec(config, &net, quant.as_ref(), caps)
}

/// As [`lower_for_evaluation`], for pictures as they are in training steps too, with batches of at most `batch`. Each tensor of a pass
/// keeps its memory where `keep_all`.
///
/// # Errors
/// As [`lower_for_evaluation`].
pub fn lower_watched(config: &Config, classes: usize, caps: &Caps, batch: usize, keep_all: bool) -> Result<Lowered> {
    let (net, quant) = network(config, classes)?;
    let mut options = evaluation_options(config, caps)?;
    options.batch = options.batch.min(batch);
    options.keep_all = keep_all;
    options.smoothing = 0.0;
    options.augment = AugmentConfig { crop_padding: 0, flip: false, cutout: 0 };
    lower_shrinking(&net, quant.as_ref(), &options)
}

/// As [`lower_for_evaluation`], with other quantizers than the configuration's.
///
/// # Errors
/// As [`lower_for_evaluation`].
pub fn lower_spec(config: &Config, net: &Net, quant: Option<&QuantSpec>, caps: &Caps) -> Result<Lowered> {
    lower_shrinking(net, quant, &evaluation_options(config, caps)?)
}

fn evaluation_options(config: &Config, caps: &Caps) -> Result<Options> {
    let mut options = options(config, caps)?;
    options.optimizer.ema_decay = None; // a checkpoint's averages are its network
    options.accumulate = 1;
    options.distill.weight = 0.0;
    Ok(options)
}

/// Lowers an integer network for a device, with the largest batch up to `batch` that fits.
///
/// # Errors
/// A device error where not even one picture fits.
pub fn lower_integers_for_evaluation(
    net: &IntegerNet,
    config: &Config,
    caps: &Caps,
    batch: usize,
) -> Result<IntegerPlan> {
    let mut options = Options { batch, ..options(config, caps)? };
    loop {
        let lowered = lower_integers(net, &options);
        match lowered.plan.fits(caps) {
            Ok(()) => return Ok(lowered),
            Err(e) if options.batch == 1 => {
                return Err(e.hint("not even one picture fits: choose another device, or raise device.memory_mib"));
            }
            Err(_) => options.batch = options.batch.div_ceil(2),
        }
    }
}

fn options(config: &Config, caps: &Caps) -> Result<Options> {
    Ok(Options {
        batch: config.train.batch as usize,
        caps: caps.clone(),
        family: KernelFamily::choose(config.device.kernels, caps)?,
        precision: config.device.precision,
        augment: config.data.augment.clone(),
        smoothing: config.train.label_smoothing,
        distill: config.train.distill.clone(),
        optimizer: config.train.optimizer.clone(),
        accumulate: config.train.accumulate,
        winograd_channels: WINOGRAD_CHANNELS,
        resident: 0,
        host_input: false,
        keep_all: false,
    })
}
