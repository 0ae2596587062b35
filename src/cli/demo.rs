//! `cqat demo`: the embedded pictures in float, then at W5A4, and the difference.

use std::path::PathBuf;

use clap::Args;

use super::{Global, train};
use crate::config::{Config, FirstLast, Method};
use crate::cost::Cost;
use crate::evaluate::{Kind, Loaded};
use crate::integer::IntegerNet;
use crate::score::Evaluation;
use crate::setup::{self, network};
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
        let mut config = Config::load("demo", &self.sets)?;
        if config.quant.method == Method::None {
            return Err(Error::config("quant.method is none, but the demo compares float with a quantizer").hint(
                "use `cqat train demo --set quant.method=none --set train.quant_epochs=0` to train in float alone",
            ));
        }
        setup::check(&config)?;
        let (data, dir) = train::load_data(&config, None, true)?;
        config.data.dir = Some(dir);
        let (net, spec) = network(&config, train::new_classes(&config, &data)?)?;
        let spec = spec.expect("every method but none has quantizers");
        IntegerNet::check(&net, &spec)?; // before the training, not after it
        let folder = train::NewFolder::choose(self.out.as_ref(), "demo")?;
        let out = &folder.path;
        train::start(config.clone(), &data, out, global, None)?;
        let gpu = global.open(Some(&config))?;
        let score = |l: &Loaded, kind| l.evaluate(kind, &data.test, net.classes, Some(&gpu));
        let float = score(&Loaded::read(&out.join("float.safetensors"))?, Kind::Float)?;
        let quantized = Loaded::read(out)?;
        let integers = score(&quantized, Kind::Folded)?;
        let fake = score(&quantized, Kind::FakeQuant)?;
        let q = &config.quant;
        let name = format!("W{}A{}", q.weight_bits, q.activation_bits);
        let saturated = quantized.mean_saturation(&net, &spec).map_or("-".into(), |s| format!("{:.1} %", 100.0 * s));
        let row = |cells: [&str; 6]| {
            let [a, b, c, d, e, f] = cells;
            println!("{a:22} {b:>9} {c:>9} {d:>11} {e:>12} {f:>10}");
        };
        let top1 = |e: &Evaluation| format!("{:.2} %", e.totals.top1_percent());
        let kib = |spec| format!("{:.1}", Cost::of(&net, spec).weight_memory_bits as f64 / 8.0 / 1024.0);
        println!();
        row(["network", "top-1", "weights", "activations", "weight KiB", "saturated"]);
        row(["float", &top1(&float), "32 bits", "32 bits", &kib(None), "-"]);
        row([
            &format!("{name} (integers)"),
            &top1(&integers),
            &format!("{} bits", q.weight_bits),
            &format!("{} bits", q.activation_bits),
            &kib(Some(&spec)),
            &saturated,
        ]);
        println!();
        println!("fake-quantized evaluation of the same network: {}", top1(&fake));
        let (gap, half) = paired_gap(&data.test.labels, &float.predictions, &integers.predictions);
        println!(
            "float minus {name}: {gap:+.2} points, 95 % interval {:+.2} to {:+.2} ({} test pictures, one seed)",
            gap - half,
            gap + half,
            data.test.len()
        );
        if q.first_last == FirstLast::Eight {
            println!("the first and the last layer have 8 bits");
        }
        println!("run folder: {}", out.display());
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
