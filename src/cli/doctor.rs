//! `cqat doctor`.

mod drivers;

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use crate::exec::AdapterSummary;
use crate::gpu::{self, Gpu, OpenOptions};
use crate::kernels::select::KernelFamily;
use crate::run::Versions;
use crate::{Error, Result};
use drivers::Driver;

use super::Global;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// An adapter, and the device that it gives or why it gives none.
struct Examined {
    summary: AdapterSummary,
    device: std::result::Result<Gpu, Error>,
}

impl DoctorArgs {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        let examined: Vec<Examined> = gpu::list().into_iter().map(examine).collect();
        let chosen = Gpu::open(&OpenOptions { device: global.device.clone(), ..OpenOptions::default() });
        let index = chosen.as_ref().ok().map(|g| g.summary.index);
        let drivers = drivers::drivers();
        let advice = advice(&examined, &drivers);
        match self.json {
            true => println!("{:#}", to_json(&examined, index, global.device.as_deref(), &drivers, &advice)),
            false => print(&examined, index, global.device.as_deref(), &drivers, &advice),
        }
        chosen.map(|_| ())
    }
}

fn examine(summary: AdapterSummary) -> Examined {
    let options = OpenOptions { device: Some(summary.index.to_string()), ..OpenOptions::default() };
    Examined { device: Gpu::open(&options), summary }
}

/// Why the adapter is not the one that is taken: `wanted` is what `--device` says.
fn not_chosen(adapter: &Examined, all: &[Examined], chosen: Option<usize>, wanted: Option<&str>) -> Option<String> {
    let chosen = chosen.filter(|index| *index != adapter.summary.index)?;
    let taken = &all.iter().find(|e| e.summary.index == chosen)?.summary;
    Some(match wanted {
        Some(wanted) => format!("--device {wanted} means adapter {chosen}"),
        None if taken.kind == adapter.summary.kind => format!("adapter {chosen} comes first of its kind"),
        None => format!("adapter {chosen} is {}, which goes before {}", taken.kind, adapter.summary.kind),
    })
}

/// Variables that decide which drivers are seen, where they are set.
fn environment() -> Vec<(&'static str, String)> {
    let names = drivers::HIDING.into_iter().chain([drivers::ADDING, "VK_LOADER_DRIVERS_DISABLE", "CQAT_DATA"]);
    names.filter_map(|name| Some((name, std::env::var(name).ok()?))).collect()
}

/// What to do, in the order of what matters.
fn advice(examined: &[Examined], drivers: &[Driver]) -> Vec<String> {
    let mut advice = Vec::new();
    if let Some(error) = drivers::loader_error() {
        advice
            .push(format!("the Vulkan loader cannot be loaded ({error}): install it (Debian and Ubuntu: libvulkan1)"));
    }
    let variable = environment().into_iter().find(|(name, value)| drivers::HIDING.contains(name) && !value.is_empty());
    if let Some((name, files)) = &variable {
        let missing = std::env::split_paths(files).find(|file| !file.as_os_str().is_empty() && !file.exists());
        if let Some(file) = missing {
            let file = file.display();
            advice.push(format!("{name} names {file}, which does not exist: unset it, or correct it"));
        } else {
            advice.push(format!("{name} hides all other drivers than those it names; unset it to see them"));
        }
    }
    for Driver { manifest, error } in drivers {
        if let Some(error) = error {
            let manifest = manifest.display();
            advice.push(format!(
                "{manifest}: this driver cannot be loaded ({error}): install what it lacks, or remove it"
            ));
        }
    }
    if examined.is_empty() && variable.is_none() && drivers.iter().any(|driver| driver.error.is_none()) {
        advice.push("drivers can be loaded, but none offers an adapter: there is no GPU that they know".into());
    }
    for e in examined {
        if let Err(error) = &e.device {
            let hint = error.hint_text().map_or(String::new(), |hint| format!(" ({hint})"));
            advice.push(format!("adapter {}: {error}{hint}", e.summary.index));
        }
    }
    for e in examined.iter().filter(|e| takes_longer_vectors(e)) {
        advice.push(format!(
            "adapter {}: this processor has vectors of 512 bits, and Mesa takes 256; it is faster with LP_NATIVE_VECTOR_WIDTH=512",
            e.summary.index
        ));
    }
    let real = examined.iter().any(|e| !e.summary.software);
    if !real && cfg!(target_os = "linux") {
        for (marker, vendor, what) in [
            (
                "/proc/driver/nvidia/version",
                "an NVIDIA",
                "its user-space driver with Vulkan (Debian: nvidia-driver and nvidia-vulkan-icd)",
            ),
            (
                "/dev/dri/renderD128",
                "a",
                "mesa-vulkan-drivers for AMD and Intel; and the right to open /dev/dri/renderD128 (group render)",
            ),
        ] {
            if Path::new(marker).exists() {
                advice
                    .push(format!("{vendor} GPU seems to be there ({marker}) but no driver offers it: install {what}"));
            }
        }
    }
    if !examined.is_empty() && !real {
        advice.push("only software adapters were found: training works, many times slower than on a GPU".into());
    }
    advice
}

/// Whether a software adapter would gain by longer vectors. Older versions of Mesa lose by them.
fn takes_longer_vectors(e: &Examined) -> bool {
    #[cfg(target_arch = "x86_64")]
    let has_512 = std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    let has_512 = false;
    let mesa = e.summary.driver_info.strip_prefix("Mesa ").and_then(|v| v.split('.').next()?.parse::<u32>().ok());
    let has_256 = e.device.as_ref().is_ok_and(|gpu| gpu.caps.subgroup == 8);
    has_512 && e.summary.driver == "llvmpipe" && mesa.is_some_and(|v| v >= 25) && has_256
}

fn to_json(
    examined: &[Examined],
    chosen: Option<usize>,
    wanted: Option<&str>,
    drivers: &[Driver],
    advice: &[String],
) -> Value {
    let adapter = |e: &Examined| {
        let (caps, error) = match &e.device {
            Ok(gpu) => (json!(gpu.caps), Value::Null),
            Err(error) => (Value::Null, json!(error.to_string())),
        };
        json!({
            "adapter": e.summary, "chosen": chosen == Some(e.summary.index), "not_chosen": not_chosen(e, examined, chosen, wanted),
            "caps": caps, "error": error,
            "timestamps": e.device.as_ref().ok().map(|g| g.timestamps),
            "features": e.device.as_ref().ok().map(|g| g.features.clone()),
            "kernels": e.device.as_ref().ok().map(|g| family(g)),
        })
    };
    json!({
        "versions": Versions::now(), "adapters": examined.iter().map(adapter).collect::<Vec<_>>(),
        "drivers": drivers, "environment": environment().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "advice": advice,
    })
}

fn family(gpu: &Gpu) -> &'static str {
    match KernelFamily::of(&gpu.caps) {
        KernelFamily::Lane => "lane",
        KernelFamily::Tiled => "tiled",
    }
}

fn or_none(names: String) -> String {
    if names.is_empty() { "none".into() } else { names }
}

fn print(examined: &[Examined], chosen: Option<usize>, wanted: Option<&str>, drivers: &[Driver], advice: &[String]) {
    let Versions { program, wgpu, naga, system } = Versions::now();
    println!("{program}, wgpu {wgpu}, naga {naga}, {system}");
    for (name, value) in environment() {
        println!("{name}={value}");
    }
    if cfg!(target_os = "linux") {
        println!("Vulkan drivers{}", if drivers.is_empty() { ": none" } else { "" });
    }
    for Driver { manifest, error } in drivers {
        println!("  {}{}", manifest.display(), if error.is_some() { ", which cannot be loaded" } else { "" });
    }
    for e in examined {
        let a = &e.summary;
        println!(
            "\nadapter {}: {} ({}) over {}, driver {} {}",
            a.index, a.name, a.kind, a.backend, a.driver, a.driver_info
        );
        match &e.device {
            Err(error) => println!("  cannot be used: {error}"),
            Ok(gpu) => {
                let c = &gpu.caps;
                let mib = |bytes: u64| bytes >> 20;
                println!(
                    "  memory that is used at most {} MiB; in one buffer {} MiB, in one binding {} MiB",
                    mib(c.budget_bytes),
                    mib(c.max_buffer_bytes),
                    mib(c.max_binding_bytes)
                );
                let subgroup = if c.subgroup == 0 { "of no fixed size".into() } else { format!("of {}", c.subgroup) };
                let matrix = match c.matrix {
                    0 => "no matrix units of use".into(),
                    side => format!("matrix units of {side} x {side}"),
                };
                let time = if gpu.timestamps { "measured" } else { "not measured (no timestamps)" };
                println!("  subgroups {subgroup}; {matrix}; device time {time}; kernels {}", family(gpu));
                let offered = |wanted: bool| {
                    let names = gpu.features.iter().filter(|(_, offered)| **offered == wanted).map(|(name, _)| *name);
                    names.collect::<Vec<_>>().join(", ")
                };
                println!("  features offered: {}; not offered: {}", or_none(offered(true)), or_none(offered(false)));
            }
        }
        match not_chosen(e, examined, chosen, wanted) {
            Some(why) => println!("  not taken: {why}"),
            None if chosen == Some(a.index) => match wanted {
                None => println!("  taken without --device"),
                Some(wanted) => println!("  taken with --device {wanted}"),
            },
            None => {}
        }
    }
    if !advice.is_empty() {
        println!();
        advice.iter().for_each(|line| println!("{line}"));
    }
    if chosen.is_some() {
        println!("\n`cqat selftest` checks every kernel on it");
    }
}
