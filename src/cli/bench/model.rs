//! `cqat bench MODEL`.

use std::path::Path;

use serde_json::json;

use super::{BenchArgs, print_kernels};
use crate::bench::{Pass, measure_model};
use crate::cli::Global;
use crate::config::Config;
use crate::model::Model;
use crate::{Error, Result};

impl BenchArgs {
    /// Measures a model's inference beside that of its run.
    pub(super) fn run_model(&self, global: &Global) -> Result<()> {
        if self.float || self.kernel.is_some() {
            return Err(Error::config(
                "--float and --kernel are of training steps, expected a configuration beside them",
            )
            .hint("leave them out: a model is measured beside its float network anyway"));
        }
        let model = Model::read(Path::new(&self.config))?;
        let config = Config::from_yaml(&model.source.config, &self.config, &self.sets)?;
        config.validate()?;
        let gpu = global.open(Some(&config))?;
        let m = measure_model(&model, &config, &gpu, self.steps)?;
        self.write_trace(m.profile.as_ref(), &gpu)?;
        let passes = [
            ("integer", &m.integer),
            ("fake_quant", &m.fake_quant),
            ("float", &m.float),
            ("single picture", &m.single_picture),
            ("integer, CPU", &m.cpu),
        ];
        if self.json {
            let p = m.profile.as_ref();
            println!(
                "{}",
                json!({
                    "integer": m.integer, "fake_quant": m.fake_quant, "float": m.float, "single_picture": m.single_picture, "cpu": m.cpu, "steps": self.steps,
                    "speedup_over_float": m.integer.images_per_second / m.float.images_per_second,
                    "kernels": p.map_or(&[][..], |p| &p.kernels), "kernels_ms": p.map(|p| p.kernels_ms),
                    "adapter": gpu.summary.name,
                    "driver": format!("{} {}", gpu.summary.driver, gpu.summary.driver_info),
                })
            );
            return Ok(());
        }
        println!(
            "{}: inference on {} ({} {}), medians of {} steps in turn",
            self.config, gpu.summary.name, gpu.summary.driver, gpu.summary.driver_info, self.steps
        );
        println!(
            "{:14} {:>6} {:>12} {:>12} {:>12} {:>12}",
            "", "batch", "step ms", "device ms", "images/s", "of float"
        );
        for (name, pass) in passes {
            let Pass { batch, step_ms, device_ms, images_per_second } = pass;
            let device = device_ms.map_or("-".into(), |ms| format!("{ms:.3}"));
            let ratio = match *batch == m.float.batch {
                true => format!("{:.2}", images_per_second / m.float.images_per_second),
                false => "-".into(),
            };
            println!("{name:14} {batch:>6} {step_ms:>12.3} {device:>12} {images_per_second:>12.1} {ratio:>12}");
        }
        if let Some(p) = &m.profile {
            print_kernels(p);
        }
        Ok(())
    }
}
