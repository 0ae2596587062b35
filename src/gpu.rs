//! The GPU host: the only place that knows wgpu. Finds an adapter, opens a device, turns its limits into [`Caps`].

mod build;
mod memory;
mod pipelines;
mod program;

pub use program::{GpuProgram, Interval, StepTiming};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::exec::{AdapterSummary, Device, Executor};
use crate::kernels::Caps;
use crate::kernels::select::Choices;
use crate::plan::Plan;
use crate::{Error, Result};

/// An open device.
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    /// The adapter behind it.
    pub summary: AdapterSummary,
    /// What the kernel selection may use.
    pub caps: Caps,
    /// Whether device time can be measured.
    pub timestamps: bool,
    /// The features of WebGPU and beyond that are of use, and whether the adapter offers them.
    pub features: BTreeMap<&'static str, bool>,
    checked: bool,
    faults: Arc<Faults>,
}

/// Errors that the driver reports outside of any call.
#[derive(Default)]
struct Faults {
    lost: Mutex<Option<String>>,
    error: Mutex<Option<String>>,
}

impl Faults {
    fn check(&self) -> Result<()> {
        if let Some(reason) = self.lost.lock().expect("no panic holds this lock").as_ref() {
            return Err(Error::device(format!("the device was lost: {reason}")).hint(LOST_HINT));
        }
        match self.error.lock().expect("no panic holds this lock").take() {
            Some(e) => Err(Error::device(format!("the driver reported an error: {e}"))
                .hint("`cqat selftest` checks this device and driver kernel by kernel")),
            None => Ok(()),
        }
    }
}

/// How a device is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// `INDEX`, part of a name, `cpu` or `gpu`; empty: the best adapter.
    pub device: Option<String>,
    /// Memory the planner may use, in MiB; default: what the device or the machine has.
    pub memory_mib: Option<u64>,
    /// Keep the driver-side bounds checks in the shaders.
    pub checked: bool,
}

fn instance() -> wgpu::Instance {
    let mut d = wgpu::InstanceDescriptor::new_without_display_handle();
    d.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    d.flags = wgpu::InstanceFlags::from_build_config().with_env();
    d.memory_budget_thresholds.for_resource_creation = Some(97);
    wgpu::Instance::new(d)
}

fn adapters() -> Vec<wgpu::Adapter> {
    pollster::block_on(instance().enumerate_adapters(wgpu::Backends::all()))
}

/// Kinds of adapters, the better ones first.
pub const KINDS: [&str; 5] = ["discrete", "integrated", "virtual", "other", "software"];

/// Position in [`KINDS`].
fn rank(t: wgpu::DeviceType) -> usize {
    match t {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

fn summary(index: usize, info: &wgpu::AdapterInfo) -> AdapterSummary {
    AdapterSummary {
        index,
        name: info.name.clone(),
        driver: info.driver.clone(),
        driver_info: info.driver_info.clone(),
        backend: info.backend.to_string(),
        kind: KINDS[rank(info.device_type)].to_string(),
        software: info.device_type == wgpu::DeviceType::Cpu,
    }
}

/// Every adapter, in `--device INDEX` order.
pub fn list() -> Vec<AdapterSummary> {
    adapters().iter().enumerate().map(|(i, a)| summary(i, &a.get_info())).collect()
}

/// Index of the adapter that [`OpenOptions::device`] means.
///
/// # Errors
/// No adapter, or none that matches.
pub fn find(wanted: Option<&str>) -> Result<usize> {
    choose(&adapters(), wanted)
}

fn choose(adapters: &[wgpu::Adapter], wanted: Option<&str>) -> Result<usize> {
    let infos: Vec<AdapterSummary> = adapters.iter().enumerate().map(|(i, a)| summary(i, &a.get_info())).collect();
    let names = || infos.iter().map(|i| format!("{}: {} ({})", i.index, i.name, i.kind)).collect::<Vec<_>>().join("; ");
    if infos.is_empty() {
        return Err(Error::device("no Vulkan, Metal or DX12 adapter was found").hint(
            "install a GPU driver, or a software adapter (Debian and Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1; \
             Fedora: dnf install mesa-vulkan-drivers vulkan-loader)",
        ));
    }
    let best = |software: Option<bool>| {
        (0..infos.len())
            .filter(|&i| software.is_none_or(|s| infos[i].software == s))
            .min_by_key(|&i| (rank(adapters[i].get_info().device_type), i))
    };
    let found = match wanted.map(str::trim) {
        None | Some("") => best(None),
        Some("cpu") => best(Some(true)),
        Some("gpu") => best(Some(false)),
        Some(w) => match w.parse::<usize>() {
            Ok(index) if index < infos.len() => Some(index),
            Ok(_) => infos.iter().position(|i| i.name.split_whitespace().any(|word| word == w)), // 4090 is a name too
            Err(_) => infos.iter().position(|i| i.name.to_lowercase().contains(&w.to_lowercase())),
        },
    };
    found.ok_or_else(|| {
        Error::device(format!("no adapter matches --device {}", wanted.unwrap_or_default()))
            .hint(format!("the adapters are: {}", names()))
    })
}

/// Floating-point operations in one submission on a real GPU: under half a second where the kernels reach 50 GFLOP/s, as on a
/// slow integrated one, because some systems reset a driver whose work takes two seconds. One dispatch is not split: the
/// largest of ResNet-18 at width 64 and batch 128 has 9.7 GFLOP.
const SUBMISSION_FLOPS: u64 = 20_000_000_000;

/// Features that are used where an adapter has them: device-time measurements, lane kernels.
const WANTED: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::SUBGROUP);
/// What matrix units need.
const MATRIX: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16);
/// The most that a kernel binds (`conv_act`).
const MOST_STORAGE_BUFFERS: u32 = 9;
/// Workgroup memory of `conv_coop` with matrices of side 16, both operands in two terms, and statistics.
const COOP_BYTES: u32 = 24 << 10;

/// [`Caps::matrix`] as the adapter has it.
fn matrix_side(adapter: &wgpu::Adapter, subgroup: u32) -> u32 {
    use wgpu::CooperativeScalarType::{F16, F32};
    // lavapipe 26.1 crashes with matrices in subgroups of 16.
    let crashes = adapter.get_info().device_type == wgpu::DeviceType::Cpu && subgroup > 8;
    if !adapter.features().contains(MATRIX) || subgroup == 0 || crashes {
        return 0;
    }
    let all = adapter.cooperative_matrix_properties();
    let has =
        |side| all.iter().any(|m| [m.m_size, m.n_size, m.k_size] == [side; 3] && m.ab_type == F16 && m.cr_type == F32);
    let room = adapter.limits().max_compute_workgroup_storage_size;
    if has(16) && room >= COOP_BYTES {
        16
    } else if has(8) {
        8
    } else {
        0
    }
}

/// Subgroup size, where all subgroups of the adapter have it.
fn subgroup_size(features: wgpu::Features, info: &wgpu::AdapterInfo) -> u32 {
    let fixed = info.subgroup_min_size == info.subgroup_max_size;
    if features.contains(wgpu::Features::SUBGROUP) && fixed { info.subgroup_min_size } else { 0 }
}

impl Gpu {
    /// Opens a device.
    ///
    /// # Errors
    /// No adapter, none that matches, or a driver that refuses a device.
    pub fn open(options: &OpenOptions) -> Result<Gpu> {
        let adapters = adapters();
        let index = choose(&adapters, options.device.as_deref())?;
        let adapter = &adapters[index];
        let summary = summary(index, &adapter.get_info());
        let has = adapter.limits();
        let limits = wgpu::Limits {
            max_storage_buffer_binding_size: has.max_storage_buffer_binding_size,
            max_buffer_size: has.max_buffer_size,
            max_storage_buffers_per_shader_stage: has
                .max_storage_buffers_per_shader_stage
                .clamp(8, MOST_STORAGE_BUFFERS),
            ..wgpu::Limits::default()
        };
        let mut features = adapter.features() & WANTED;
        let timestamps = features.contains(wgpu::Features::TIMESTAMP_QUERY);
        let info = adapter.get_info();
        let matrix = matrix_side(adapter, subgroup_size(features, &info));
        let limits = match matrix {
            0 => limits,
            _ => {
                features |= MATRIX;
                let room = limits.max_compute_workgroup_storage_size.max(COOP_BYTES);
                wgpu::Limits {
                    max_compute_workgroup_storage_size: room.min(has.max_compute_workgroup_storage_size),
                    ..limits
                }
            }
        };
        // SAFETY: of what is experimental, matrix units alone are used, by two kernels of this crate, whose tiles and strides lie within
        // their workgroup memory, in workgroups of whole subgroups.
        let experimental_features = match matrix {
            0 => wgpu::ExperimentalFeatures::disabled(),
            _ => unsafe { wgpu::ExperimentalFeatures::enabled() },
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("cqat"),
            required_features: features,
            required_limits: limits.clone(),
            experimental_features,
            ..Default::default()
        }))
        .map_err(|e| {
            Error::device(format!("{} refuses a device with WebGPU's default limits", summary.name))
                .hint("update its driver, or choose another adapter: `cqat devices` lists them")
                .caused_by(e)
        })?;
        let faults = Arc::new(Faults::default());
        let report = faults.clone();
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            log::error!("driver: {e}");
            report.error.lock().expect("no panic holds this lock").get_or_insert(e.to_string());
        }));
        let report = faults.clone();
        device.set_device_lost_callback(move |_, message| {
            report.lost.lock().expect("no panic holds this lock").get_or_insert(message);
        });
        let budget = match options.memory_mib {
            Some(mib) => mib.saturating_mul(1 << 20),
            None => memory::budget(adapter, summary.software),
        };
        let caps = Caps {
            software: summary.software,
            max_binding_bytes: limits.max_storage_buffer_binding_size.min(u64::from(u32::MAX)), // shaders count bytes in 32 bits
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            max_buffer_bytes: limits.max_buffer_size,
            budget_bytes: budget,
            subgroup: subgroup_size(features, &info),
            matrix,
            // Metal has no such instruction, software adapters have slow ones.
            dot4: !summary.software && info.backend != wgpu::Backend::Metal,
            submission_flops: if summary.software { u64::MAX } else { SUBMISSION_FLOPS },
            tuned: Choices::new(),
        };
        let offered = adapter.features();
        let features = (WANTED | MATRIX).iter_names().map(|(name, flag)| (name, offered.contains(flag))).collect();
        log::info!("{} ({}), {} {}", summary.name, summary.backend, summary.driver, summary.driver_info);
        Ok(Gpu { device, queue, summary, caps, timestamps, features, checked: options.checked, faults })
    }

    /// Loses the device, as a driver's reset would: what comes after it fails with a device error.
    pub fn destroy(&self) {
        self.device.destroy();
    }

    fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let wait = wgpu::PollType::Wait { submission_index: submission, timeout: None };
        let poll = unless_lost(|| self.device.poll(wait));
        self.faults.check()?;
        poll?.map(|_| ()).map_err(|e| Error::device("waiting for the device failed").hint(LOST_HINT).caused_by(e))
    }
}

/// How the panic begins with which wgpu reports that the device was lost during a wait; `main` prints it as an error alone.
pub const LOST_PANIC: &str = "Error in Device::poll";

/// wgpu panics where the device is lost during a wait, after it has called the callback for that.
fn unless_lost<T>(wait: impl FnOnce() -> T) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(wait)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        Error::device(format!("the device was lost: {text}")).hint(LOST_HINT)
    })
}

const LOST_HINT: &str =
    "resume the run with `cqat train --resume RUN`; a smaller train.batch shortens the device's longest work";

impl Device for Gpu {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn summary(&self) -> &AdapterSummary {
        &self.summary
    }

    fn load<'a>(&'a self, plan: &'a Plan) -> Result<Box<dyn Executor + 'a>> {
        Ok(Box::new(GpuProgram::new(self, plan)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_lost_device_and_a_driver_error_are_errors_with_hints() {
        let faults = Faults::default();
        assert!(faults.check().is_ok());
        *faults.error.lock().unwrap() = Some("out of resources".into());
        let e = faults.check().unwrap_err();
        assert_eq!(
            (e.kind(), e.to_string()),
            (ErrorKind::Device, "the driver reported an error: out of resources".into())
        );
        assert!(e.hint_text().unwrap().contains("selftest"));
        *faults.lost.lock().unwrap() = Some("unplugged".into());
        for _ in 0..2 {
            let e = faults.check().unwrap_err();
            assert_eq!(e.to_string(), "the device was lost: unplugged");
            assert!(e.hint_text().unwrap().contains("--resume"));
        }
        assert_eq!(unless_lost(|| 7).unwrap(), 7);
        let e = unless_lost(|| panic!("{LOST_PANIC}: {}", "parent device is lost")).unwrap_err();
        assert_eq!(e.to_string(), "the device was lost: Error in Device::poll: parent device is lost");
        assert_eq!(e.kind(), ErrorKind::Device);
    }
}
