//! Batches that fit a device.

use super::{Lowered, Options, lower};
use crate::kernels::Caps;
use crate::net::Net;
use crate::quant::QuantSpec;
use crate::{Error, ErrorKind, Result};

/// Lowers `net` and checks that it fits the device.
///
/// # Errors
/// A device error whose hint names the largest batch that would fit.
pub fn lower_fitting(net: &Net, quant: Option<&QuantSpec>, options: &Options) -> Result<Lowered> {
    let e = match attempt(net, quant, options) {
        Err(e) if e.kind() == ErrorKind::Device => e,
        done => return done,
    };
    Err(match largest_fitting(net, quant, options) {
        Some(batch) => {
            let too_large = Error::device(format!("a batch of {} does not fit this device: {e}", options.batch));
            let roomier = Caps { budget_bytes: u64::MAX, ..options.caps.clone() };
            let budget = attempt(net, quant, &Options { caps: roomier, ..options.clone() }).is_ok();
            let raise = if budget { " (or raise device.memory_mib if the device has more)" } else { "" };
            too_large.hint(format!("the largest batch that fits is {batch}: --set train.batch={batch}{raise}"))
        }
        None => Error::device(format!("the network does not fit this device: {e}")).hint(NOTHING_FITS),
    })
}

/// As [`lower_fitting`], with a smaller batch where `options.batch` does not fit: for evaluation, whose results do not
/// depend on the batch.
///
/// # Errors
/// A device error where not even one picture fits.
pub fn lower_shrinking(net: &Net, quant: Option<&QuantSpec>, options: &Options) -> Result<Lowered> {
    match attempt(net, quant, options) {
        Err(e) if e.kind() == ErrorKind::Device => match largest_fitting(net, quant, options) {
            Some(batch) => lower(net, quant, &Options { batch, ..options.clone() }),
            None => Err(e.hint(NOTHING_FITS)),
        },
        done => done,
    }
}

const NOTHING_FITS: &str = "not even one picture fits: choose a smaller network.width, or another device; \
    device.memory_mib raises the budget, not what the device allows in one buffer or binding";

fn attempt(net: &Net, quant: Option<&QuantSpec>, options: &Options) -> Result<Lowered> {
    let lowered = lower(net, quant, options)?;
    lowered.plan.fits(&options.caps).map(|()| lowered)
}

/// The largest batch below `options.batch` that fits, if any does.
fn largest_fitting(net: &Net, quant: Option<&QuantSpec>, options: &Options) -> Option<usize> {
    let (mut good, mut bad) = (0, options.batch);
    while good + 1 < bad {
        let batch = (good + bad) / 2;
        let fits = attempt(net, quant, &Options { batch, ..options.clone() }).is_ok();
        if fits { good = batch } else { bad = batch }
    }
    (good > 0).then_some(good)
}
