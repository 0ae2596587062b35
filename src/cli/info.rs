//! `cqat devices`, `cqat plan`, `cqat presets`.

use clap::Args;
use serde_json::json;

use super::{ConfigArgs, Global};
use crate::Result;
use crate::config::presets as all_presets;
use crate::cost::{Cost, FLOAT_BITS, MODEL_LABEL, MODEL_SOURCE, bytes_text, energy_text, engineering};
use crate::gpu;
use crate::kernels::Caps;
use crate::plan::lower::Lowered;
use crate::setup::lower_config;

pub(super) fn devices(json: bool, wanted: Option<&str>) -> Result<()> {
    let mut list = gpu::list();
    if wanted.is_some() {
        let chosen = gpu::find(wanted)?;
        list.retain(|a| a.index == chosen);
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&list).expect("summaries are plain data"));
    }
    if list.is_empty() {
        // The error of opening a device says what to install.
        gpu::Gpu::open(&gpu::OpenOptions::default())?;
    }
    if json {
        return Ok(());
    }
    for a in list {
        println!("{}  {}  {} over {}, driver {} {}", a.index, a.name, a.kind, a.backend, a.driver, a.driver_info);
    }
    Ok(())
}

pub(super) fn presets(name: Option<&str>) -> Result<()> {
    match name {
        None => all_presets().iter().for_each(|(name, about, _)| println!("{name:16} {about}")),
        Some(wanted) => {
            let found = all_presets().iter().find(|p| p.0 == wanted);
            print!("{}", found.expect("the parser knows the names").2);
        }
    }
    Ok(())
}

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl PlanArgs {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        let config = self.config.load()?;
        let gpu = global.open(Some(&config))?;
        let lowered = lower_config(&config, config.expected_classes(), &gpu.caps)?;
        if self.json {
            println!("{:#}", to_json(&lowered, &gpu.caps));
            return Ok(());
        }
        print_layers(&lowered);
        println!();
        print_costs(&Cost::of(&lowered.net, lowered.quant.as_ref()));
        println!();
        print_programs(&lowered);
        println!();
        print_totals(&lowered, &gpu.caps);
        Ok(())
    }
}

/// The kernels that work for a layer in the training step of the configured method, with their variants: `conv/lane-64x32`, or
/// `2 x conv/lane-64x32` for two dispatches.
fn kernels_of(lowered: &Lowered, layer: usize) -> Vec<String> {
    let train = lowered.quantized.unwrap_or(lowered.float).train;
    let of_layer = lowered.plan.programs[train.0].dispatches.iter().filter(|d| d.layer == Some(layer));
    let mut counted: Vec<(String, usize)> = Vec::new();
    for label in of_layer.map(|d| d.variant.label(d.kernel)) {
        match counted.iter_mut().find(|(known, _)| *known == label) {
            Some((_, count)) => *count += 1,
            None => counted.push((label, 1)),
        }
    }
    counted.into_iter().map(|(label, n)| if n == 1 { label } else { format!("{n} x {label}") }).collect()
}

fn bits(lowered: &Lowered, layer: usize) -> String {
    match lowered.quant.as_ref().and_then(|q| q.layer(layer)) {
        Some(q) => format!("{} bits", q.bits),
        None => String::new(),
    }
}

fn print_layers(lowered: &Lowered) {
    println!("{:24} {:22} {:8} kernels of the training step", "layer", "output", "");
    for (id, layer) in lowered.net.layers.iter().enumerate() {
        let kernels = kernels_of(lowered, id).join(", ");
        println!("{:24} {:22} {:8} {kernels}", layer.name(), layer.shape_text(), bits(lowered, id));
    }
}

/// What the layers with weights, and all of them, cost a picture.
fn print_costs(cost: &Cost) {
    println!(
        "{:24} {:>8} {:>7} {:>8} {:>9} {:>12} {:>10}",
        "cost of a picture", "MACs", "W x A", "BOPs", "weights", "accumulator", "energy*"
    );
    let bits = |b: u32| if b == FLOAT_BITS { "f32".to_string() } else { b.to_string() };
    let accumulator = |b: Option<u32>| b.map_or("f32".into(), |b| format!("{b} bits"));
    for l in cost.layers.iter().filter(|l| l.macs > 0) {
        println!(
            "{:24} {:>8} {:>7} {:>8} {:>9} {:>12} {:>10}",
            l.name,
            engineering(l.macs as f64),
            format!("{}x{}", bits(l.weight_bits), bits(l.input_bits)),
            engineering(l.bops as f64),
            bytes_text(l.weight_memory_bits),
            accumulator(l.accumulator_bits),
            energy_text(l.energy_pj)
        );
    }
    println!(
        "{:24} {:>8} {:>7} {:>8} {:>9} {:>12} {:>10}",
        "all",
        engineering(cost.macs as f64),
        "",
        engineering(cost.bops as f64),
        bytes_text(cost.weight_memory_bits),
        accumulator(cost.accumulator_bits),
        energy_text(cost.energy_pj)
    );
    let (largest, all) = (bytes_text(cost.largest_activation_bits), bytes_text(cost.activation_memory_bits));
    println!("activations of a picture {largest} the largest, {all} all together");
    println!("* {MODEL_LABEL}: {MODEL_SOURCE}");
}

fn print_programs(lowered: &Lowered) {
    for p in &lowered.plan.programs {
        let flops: u64 = p.dispatches.iter().map(|d| d.work.flops).sum();
        println!(
            "{:24} {:4} dispatches, {:.2} GFLOP in matrix products",
            p.name,
            p.dispatches.len(),
            flops as f64 / 1e9
        );
    }
}

fn print_totals(lowered: &Lowered, caps: &Caps) {
    let plan = &lowered.plan;
    println!("parameters               {}", lowered.net.parameters());
    println!("multiply-accumulates     {} a picture", lowered.net.macs());
    println!("buffers                  {:.1} MiB at batch {}", plan.bytes() as f64 / f64::from(1 << 20), lowered.batch);
    println!("  scratch slots          {:.1} MiB in {} slots", mib(plan.slots.iter().sum()), plan.slots.len());
    let scratch: usize = plan.lifetimes().iter().map(|(t, _)| plan.tensor(*t).words).sum();
    println!("  without reuse          {:.1} MiB", mib(scratch));
    println!("budget of this device    {} MiB", caps.budget_bytes >> 20);
}

fn mib(words: usize) -> f64 {
    words as f64 * 4.0 / f64::from(1 << 20)
}

fn to_json(lowered: &Lowered, caps: &Caps) -> serde_json::Value {
    let layers: Vec<_> = lowered
        .net
        .layers
        .iter()
        .enumerate()
        .map(|(id, l)| {
            let bits = lowered.quant.as_ref().and_then(|q| q.layer(id)).map(|q| q.bits);
            json!({ "name": l.name(), "output": l.shape_text(), "bits": bits, "kernels": kernels_of(lowered, id) })
        })
        .collect();
    json!({
        "layers": layers,
        "parameters": lowered.net.parameters(),
        "macs": lowered.net.macs(),
        "cost": Cost::of(&lowered.net, lowered.quant.as_ref()),
        "energy_is": format!("{MODEL_LABEL}; {MODEL_SOURCE}"),
        "batch": lowered.batch,
        "peak_buffer_bytes": lowered.plan.bytes(),
        "programs": lowered.plan.programs.iter().map(|p| json!({ "name": p.name, "dispatches": p.dispatches.len() })).collect::<Vec<_>>(),
        "device": caps,
    })
}
