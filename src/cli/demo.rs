//! `cqat demo`: the embedded pictures in float, then at W5A4, and the difference.

use std::path::PathBuf;

use clap::Args;

use super::{Global, train};
use crate::config::{Config, Method};
use crate::evaluate::{Kind, Loaded};
use crate::integer::IntegerNet;
use crate::net::Layer;
use crate::run::now;
use crate::train::network;
use crate::{Error, Result};

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Folder of the run; default: a new one under runs/
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Override one key of the demo preset; may be repeated
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    sets: Vec<String>,
}

impl DemoArgs {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        let config = Config::load("demo", &self.sets)?;
        config.validate()?;
        if config.quant.method == Method::None {
            return Err(Error::config("quant.method is none, but the demo compares float with a quantizer")
                .hint("use `cqat train demo` with the same --set items to train in float alone"));
        }
        let data = train::load_data(&config, None)?;
        let (net, spec) = network(&config, data.classes)?;
        let spec = spec.expect("every method but none has quantizers");
        IntegerNet::check(&net, &spec)?; // before the training, not after it
        let out = self.out.clone().unwrap_or_else(|| PathBuf::from(format!("runs/demo-{}", now())));
        let out = train::start(config, &out, global, None)?;
        let float = Loaded::read(&out.join("float.safetensors"))?;
        let quantized = Loaded::read(&out)?;
        let gpu = global.open(Some(&quantized.config))?;
        let score = |l: &Loaded, kind| l.evaluate(kind, &data.test, data.classes, Some(&gpu));
        let a = score(&float, Kind::Float)?;
        let b = score(&quantized, Kind::Folded)?;
        let fake = score(&quantized, Kind::FakeQuant)?;
        let weights = |bits: &dyn Fn(usize) -> u32| -> f64 {
            let sizes = net.layers.iter().enumerate().map(|(id, l)| match l {
                Layer::Conv(c) => (c.kernel * c.kernel * c.real_in * c.to.c) as f64 * f64::from(bits(id)),
                Layer::Linear(l) => (l.features * l.classes) as f64 * f64::from(bits(id)),
                _ => 0.0,
            });
            sizes.sum::<f64>() / 8.0 / 1024.0
        };
        let q = &quantized.config.quant;
        let saturated = quantized.mean_saturation(&net, &spec);
        println!();
        println!(
            "{:22} {:>9} {:>9} {:>10} {:>12} {:>10}",
            "network", "top-1", "weights", "activations", "weight KiB", "saturated"
        );
        println!(
            "{:22} {:>7.2} % {:>9} {:>10} {:>12.1} {:>10}",
            "float",
            a.totals.top1_percent(),
            "32 bits",
            "32 bits",
            weights(&|_| 32),
            "-"
        );
        println!(
            "{:22} {:>7.2} % {:>9} {:>10} {:>12.1} {:>8.1} %",
            format!("W{}A{} (integers)", q.weight_bits, q.activation_bits),
            b.totals.top1_percent(),
            format!("{} bits", q.weight_bits),
            format!("{} bits", q.activation_bits),
            weights(&|id| spec.layer(id).map_or(32, |q| q.bits)),
            100.0 * saturated
        );
        println!();
        println!("fake-quantized evaluation of the same network: {:.2} %", fake.totals.top1_percent());
        let (gap, half) = paired_gap(&data.test.labels, &a.predictions, &b.predictions);
        println!(
            "float minus W{}A{}: {gap:+.2} points, 95 % interval {:+.2} to {:+.2} ({} test pictures, one seed)",
            q.weight_bits,
            q.activation_bits,
            gap - half,
            gap + half,
            data.test.len()
        );
        println!("first and last layer have 8 bits; run folder: {}", out.display());
        Ok(())
    }
}

/// Difference of two accuracies on the same pictures in points, and half its 95 % interval (paired, normal).
fn paired_gap(labels: &[u16], a: &[u32], b: &[u32]) -> (f64, f64) {
    let n = labels.len() as f64;
    let differences = labels.iter().zip(a.iter().zip(b)).map(|(l, (a, b))| {
        let right = |p: u32| f64::from(u8::from(p == u32::from(*l)));
        right(*a) - right(*b)
    });
    let (sum, squares) = differences.fold((0.0, 0.0), |(s, q), d| (s + d, q + d * d));
    let mean = sum / n;
    let variance = (squares / n - mean * mean).max(0.0) / n;
    (100.0 * mean, 100.0 * 1.96 * variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::paired_gap;

    #[test]
    fn the_gap_counts_pictures_and_its_interval_only_disagreements() {
        let (gap, half) = paired_gap(&[0, 1, 2, 3], &[0, 1, 2, 0], &[0, 1, 0, 0]);
        assert_eq!(gap, 25.0);
        assert!(half > 0.0);
        assert_eq!(paired_gap(&[0, 1], &[0, 0], &[0, 0]), (0.0, 0.0));
    }
}
