//! `cqat bench`: the training step of a configuration, or the inference of a model, on random pictures.

mod model;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::{ConfigArgs, Global};
use crate::bench::{Ceilings, Profile, measure};
use crate::config::{Config, Method};
use crate::files::write_output;
use crate::gpu::Gpu;
use crate::kernels::select::KernelFamily;
use crate::model::Model;
use crate::plan::lower::Lowered;
use crate::session::Form;
use crate::setup::lower_config;
use crate::{Error, ErrorKind, Result, tune};

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// A YAML file, or a preset's name (see `cqat presets`): its training step; or a model file: its inference
    #[arg(default_value = "cqat", value_name = "CONFIG|MODEL")]
    config: String,
    /// Override one key, such as --set train.batch=64; may be repeated
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    sets: Vec<String>,
    /// Steps to measure, after one that is not counted
    #[arg(long, default_value_t = 5)]
    steps: u32,
    /// Measure the float network's step
    #[arg(long)]
    float: bool,
    /// Measure only the matrix products whose shape contains this text, such as "conv 32x32x64", with all their variants
    #[arg(long, value_name = "TEXT", conflicts_with = "trace")]
    kernel: Option<String>,
    /// Write a step, kernel by kernel, as a timeline in Chrome's trace event format
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl BenchArgs {
    pub(super) fn run(&self, global: &Global, start: Instant) -> Result<()> {
        if self.steps == 0 {
            return Err(Error::config("--steps is 0, expected at least 1").hint("5 is the default"));
        }
        if Model::is_at(Path::new(&self.config)) {
            return self.run_model(global);
        }
        let mut config = ConfigArgs { config: self.config.clone(), sets: self.sets.clone() }.load()?;
        config.train.accumulate = 1; // one batch and the update
        let gpu = global.open(Some(&config))?;
        let lowered = lower_config(&config, config.expected_classes(), &gpu.caps)?;
        if let Some(text) = &self.kernel {
            return self.race(text, &config, &gpu, &lowered);
        }
        let float = self.float || config.quant.method == Method::None;
        let form = if float { Form::Float } else { Form::Quantized };
        let m = measure(&lowered, &gpu, form, self.steps, start)?;
        let name = format!("ResNet-{} width {}", config.network.depth, config.network.width);
        let method = if float {
            "float".into()
        } else {
            format!("W{}A{}", config.quant.weight_bits, config.quant.activation_bits)
        };
        self.write_trace(m.profile.as_ref(), &gpu)?;
        if self.json {
            let p = m.profile.as_ref();
            println!(
                "{}",
                json!({
                    "network": name, "method": method, "batch": lowered.batch, "steps": self.steps,
                    "images_per_second": m.images_per_second, "step_ms": m.step_ms, "device_ms": m.device_ms,
                    "host_overhead_percent": m.host_overhead_percent, "peak_buffer_bytes": m.peak_buffer_bytes,
                    "first_step_seconds": m.first_step_seconds, "dispatches": m.dispatches,
                    "ceilings": p.map(|p| p.ceilings), "kernels": p.map_or(&[][..], |p| &p.kernels),
                    "kernels_ms": p.map(|p| p.kernels_ms), "roofline_ratio": p.map(|p| p.roofline_ratio),
                    "adapter": gpu.summary.name, "driver": format!("{} {}", gpu.summary.driver, gpu.summary.driver_info),
                })
            );
            return Ok(());
        }
        println!(
            "{name}, {method}, batch {}, on {} ({} {})",
            lowered.batch, gpu.summary.name, gpu.summary.driver, gpu.summary.driver_info
        );
        println!("images/s        {:.2} (median of {} steps)", m.images_per_second, self.steps);
        let batches = config.train.accumulate;
        let part = if batches > 1 { format!(", one of {batches} batches, without the update") } else { String::new() };
        println!("step            {:.2} ms{part}", m.step_ms);
        match (m.device_ms, m.host_overhead_percent) {
            (Some(device), Some(overhead)) => println!("device          {device:.2} ms, host overhead {overhead:.1} %"),
            _ => println!("device          not measured: the adapter has no timestamps"),
        }
        println!("buffers         {:.1} MiB", m.peak_buffer_bytes as f64 / f64::from(1 << 20));
        println!("dispatches      {}", m.dispatches);
        if let Some(p) = &m.profile {
            let Ceilings { gflops, gbs } = p.ceilings;
            println!("ceilings        {gflops:.1} GFLOP/s in f32, {gbs:.1} GB/s");
            println!(
                "roofline ratio  {:.2} (time of the step over the least that the ceilings allow)",
                p.roofline_ratio
            );
            print_kernels(p);
        }
        println!("first step      {:.2} s after the process began", m.first_step_seconds);
        Ok(())
    }

    /// Measures every variant of some matrix products.
    fn race(&self, text: &str, config: &Config, gpu: &Gpu, lowered: &Lowered) -> Result<()> {
        let family = KernelFamily::choose(config.device.kernels, &gpu.caps)?;
        let all = tune::products(lowered);
        let wanted: Vec<_> = all.iter().filter(|(shape, _)| shape.contains(text)).collect();
        if wanted.is_empty() {
            let shapes: String = all.keys().map(|shape| format!("\n  {shape}")).collect();
            return Err(Error::config(format!("no matrix product of the network has {text:?} in its shape:{shapes}"))
                .hint("name a part of one of them"));
        }
        let mut races = Vec::new();
        for (_, (product, flops)) in wanted {
            let race = tune::race(gpu, family, product, *flops)?;
            if !self.json {
                println!("{}", race.shape);
                for t in &race.trials {
                    let differs = if t.equal { "" } else { "  differs from the first" };
                    println!("  {:9.3} ms {:8.2} GFLOP/s  {}{differs}", t.ms, t.gflops, t.variant);
                }
            }
            races.push(race);
        }
        if self.json {
            println!("{:#}", json!(races));
        }
        Ok(())
    }

    /// The timeline, where `--trace` asks for it.
    ///
    /// # Errors
    /// A device without timestamps, a file that cannot be written.
    fn write_trace(&self, profile: Option<&Profile>, gpu: &Gpu) -> Result<()> {
        let Some(path) = &self.trace else { return Ok(()) };
        let profile = profile.ok_or_else(|| {
            Error::device(format!("{} has no timestamps, so there is no trace", gpu.summary.name))
                .hint("leave --trace out, or choose another adapter with --device")
        })?;
        write_output(path, profile.trace.to_string().as_bytes(), ErrorKind::Config)
    }
}

/// Where the time goes.
fn print_kernels(p: &Profile) {
    println!("kernels alone   {:.2} ms, of which, each at one shape:", p.kernels_ms);
    for k in &p.kernels {
        println!(
            "  {:16} {:24} {:14} {:3} x {:9.2} ms {:5.1} %  {:7.2} GFLOP/s {:6.2} GB/s {:4.0} % of roofline",
            k.name,
            k.shape,
            k.variant,
            k.launches,
            k.ms,
            100.0 * k.ms / p.kernels_ms,
            k.gflops,
            k.gbs,
            100.0 * k.of_roofline
        );
    }
}
