//! Pipelines, made in the background in the order of their first use; one that a dispatch needs sooner is made by that.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use super::Gpu;
use crate::kernels::{Variant, source};
use crate::{Error, Result};

/// Threads that make pipelines beside the one that runs them.
const MOST_WORKERS: usize = 8;

/// A pipeline, made once.
pub(super) struct Pipeline {
    device: wgpu::Device,
    group: wgpu::BindGroupLayout,
    variant: Variant,
    checked: bool,
    /// What the driver said where it refused.
    made: OnceLock<std::result::Result<wgpu::ComputePipeline, String>>,
}

impl Pipeline {
    pub(super) fn new(gpu: &Gpu, group: wgpu::BindGroupLayout, variant: Variant) -> Pipeline {
        Pipeline { device: gpu.device.clone(), group, variant, checked: gpu.checked, made: OnceLock::new() }
    }

    /// The pipeline; waits where somebody is making it.
    ///
    /// # Errors
    /// The driver refuses the kernel.
    pub(super) fn get(&self) -> Result<&wgpu::ComputePipeline> {
        self.made.get_or_init(|| self.make()).as_ref().map_err(|e| {
            Error::device(format!("the driver refuses the kernel {}", self.variant.shader))
                .hint("`cqat selftest` checks them all; an update of the driver may help, or another adapter with --device")
                .caused_by(e.clone())
        })
    }

    fn make(&self) -> std::result::Result<wgpu::ComputePipeline, String> {
        let (device, label) = (&self.device, Some(self.variant.shader));
        // Of this thread. What a driver's compiler refuses is an internal error.
        let scopes = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation]
            .map(|filter| device.push_error_scope(filter));
        let text = source::compose(&self.variant).text;
        let descriptor = wgpu::ShaderModuleDescriptor { label, source: wgpu::ShaderSource::Wgsl(text.into()) };
        let module = if self.checked {
            device.create_shader_module(descriptor)
        } else {
            // SAFETY: the shaders are this crate's own; every index lies within the extents in their parameters or is
            // replaced by one that does, loops end, divisors are extents. The kernel tests also run them with checks on.
            unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
        };
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&self.group)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false, // every kernel writes before it reads
                ..Default::default()
            },
            cache: None,
        });
        let refused = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).last();
        refused.map_or(Ok(pipeline), |e| Err(e.to_string()))
    }
}

/// Threads that make pipelines, until all are made or nobody needs them any more.
pub(super) struct Workers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Begins with the first of `pipelines`. On a software adapter one processor is enough: the others compute.
    pub(super) fn start(pipelines: Vec<Arc<Pipeline>>, software: bool) -> Workers {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if software { 1 } else { processors.min(MOST_WORKERS) };
        let (pipelines, next, stop) =
            (Arc::new(pipelines), Arc::new(AtomicUsize::new(0)), Arc::<AtomicBool>::default());
        let start = || {
            let (pipelines, next, stop) = (pipelines.clone(), next.clone(), stop.clone());
            std::thread::spawn(move || {
                while let Some(pipeline) = pipelines.get(next.fetch_add(1, Ordering::Relaxed))
                    && !stop.load(Ordering::Relaxed)
                {
                    let _ = pipeline.get(); // a refusal is told by the dispatch that needs it
                }
            })
        };
        let threads = (0..count).map(|_| start()).collect();
        Workers { stop, threads }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a panic has been printed
        }
    }
}
