//! Device objects of a plan: memory, pipelines, layouts and bind groups, each made once.

use std::collections::HashMap;

use super::Gpu;
use crate::kernels::{Access, KernelDef, Variant, source};
use crate::plan::{BufferId, Dispatch, Plan};

/// Distance between parameter blocks in the uniform buffer.
const UNIFORM_STRIDE: u64 = 256;

/// A dispatch, ready to be encoded.
pub(super) struct Bound {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    grid: [u32; 3],
    pub(super) flops: u64,
}

impl Bound {
    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(self.grid[0], self.grid[1], self.grid[2]);
    }
}

/// Two timestamps and the buffer that receives them.
pub(super) struct Timer {
    pub(super) set: wgpu::QuerySet,
    pub(super) resolve: wgpu::Buffer,
}

/// Makes device objects, each pipeline and layout once.
pub(super) struct Builder<'a> {
    gpu: &'a Gpu,
    pipelines: HashMap<(&'static str, Variant), wgpu::ComputePipeline>,
    layouts: HashMap<&'static str, wgpu::BindGroupLayout>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(gpu: &'a Gpu) -> Self {
        Builder { gpu, pipelines: HashMap::new(), layouts: HashMap::new() }
    }

    pub(super) fn buffer(&self, label: &str, words: usize) -> wgpu::Buffer {
        self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: (words as u64 * 4).next_multiple_of(16),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })
    }

    pub(super) fn timer(&self) -> Timer {
        let device = &self.gpu.device;
        let set = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("step"),
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let resolve = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("step time"),
            size: 16,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        Timer { set, resolve }
    }

    fn layout(&mut self, kernel: &'static KernelDef) -> wgpu::BindGroupLayout {
        let device = &self.gpu.device;
        let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty,
            count: None,
        };
        let buffer = |ty, bytes| wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: false,
            min_binding_size: std::num::NonZeroU64::new(bytes),
        };
        let make = || {
            let mut entries = vec![entry(0, buffer(wgpu::BufferBindingType::Uniform, kernel.params_bytes as u64))];
            for (i, (_, access)) in kernel.bindings.iter().enumerate() {
                let read_only = *access == Access::Read;
                entries.push(entry(i as u32 + 1, buffer(wgpu::BufferBindingType::Storage { read_only }, 0)));
            }
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(kernel.name),
                entries: &entries,
            })
        };
        self.layouts.entry(kernel.name).or_insert_with(make).clone()
    }

    fn pipeline(&mut self, kernel: &'static KernelDef, variant: &Variant) -> wgpu::ComputePipeline {
        let key = (kernel.name, variant.clone());
        if let Some(p) = self.pipelines.get(&key) {
            return p.clone();
        }
        let group = self.layout(kernel);
        let device = &self.gpu.device;
        let text = source::compose(variant).text;
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(variant.shader), source: wgpu::ShaderSource::Wgsl(text.into()) };
        let module = if self.gpu.checked {
            device.create_shader_module(descriptor)
        } else {
            // SAFETY: the shaders are this crate's own; every index lies within the extents in their parameters or is
            // replaced by one that does, loops end, divisors are extents. The kernel tests also run them with checks on.
            unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
        };
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(kernel.name),
            bind_group_layouts: &[Some(&group)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(variant.shader),
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false, // every kernel writes before it reads
                ..Default::default()
            },
            cache: None,
        });
        self.pipelines.insert(key, pipeline.clone());
        pipeline
    }

    pub(super) fn program(
        &mut self,
        plan: &Plan,
        buffers: &HashMap<BufferId, wgpu::Buffer>,
        list: &[Dispatch],
    ) -> Vec<Bound> {
        let uniforms = self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("parameters"),
            size: list.len().max(1) as u64 * UNIFORM_STRIDE,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut bytes = vec![0u8; list.len() * UNIFORM_STRIDE as usize];
        for (slot, d) in bytes.chunks_exact_mut(UNIFORM_STRIDE as usize).zip(list) {
            slot[..d.params.len()].copy_from_slice(&d.params);
        }
        self.gpu.queue.write_buffer(&uniforms, 0, &bytes);
        let bind = |buffer, offset, size| {
            let size = std::num::NonZeroU64::new(size);
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
        };
        list.iter()
            .enumerate()
            .map(|(i, d)| {
                let mut entries = vec![wgpu::BindGroupEntry {
                    binding: 0,
                    resource: bind(&uniforms, i as u64 * UNIFORM_STRIDE, d.params.len() as u64),
                }];
                for (k, &t) in d.bind.iter().enumerate() {
                    let bytes = (plan.tensor(t).words as u64 * 4).next_multiple_of(16);
                    let resource = bind(&buffers[&plan.buffer(t)], plan.offset(t) as u64 * 4, bytes);
                    entries.push(wgpu::BindGroupEntry { binding: k as u32 + 1, resource });
                }
                let layout = self.layout(d.kernel);
                let group = self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some(d.kernel.name),
                    layout: &layout,
                    entries: &entries,
                });
                let pipeline = self.pipeline(d.kernel, &d.variant);
                Bound { pipeline, group, grid: d.grid, flops: d.work.flops }
            })
            .collect()
    }
}
