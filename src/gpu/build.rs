//! Device objects of a plan: memory, pipelines, layouts and bind groups, each made once.

use std::collections::HashMap;
use std::sync::Arc;

use super::Gpu;
use super::pipelines::{Pipeline, Workers};
use crate::Result;
use crate::kernels::{Access, KernelDef, Variant};
use crate::plan::{BufferId, Dispatch, Plan};

/// Distance between parameter blocks in the uniform buffer.
const UNIFORM_STRIDE: u64 = 256;

/// A dispatch, ready to be encoded.
pub(super) struct Bound {
    pipeline: Arc<Pipeline>,
    group: wgpu::BindGroup,
    grid: [u32; 3],
    pub(super) flops: u64,
}

impl Bound {
    /// Appends it to `pass`.
    ///
    /// # Errors
    /// As [`Pipeline::get`].
    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass) -> Result<()> {
        pass.set_pipeline(self.pipeline.get()?);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(self.grid[0], self.grid[1], self.grid[2]);
        Ok(())
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
    pipelines: HashMap<(&'static str, Variant), Arc<Pipeline>>,
    in_order: Vec<Arc<Pipeline>>,
    layouts: HashMap<&'static str, wgpu::BindGroupLayout>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(gpu: &'a Gpu) -> Self {
        Builder { gpu, pipelines: HashMap::new(), in_order: Vec::new(), layouts: HashMap::new() }
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

    fn pipeline(&mut self, kernel: &'static KernelDef, variant: &Variant) -> Arc<Pipeline> {
        let key = (kernel.name, variant.clone());
        if let Some(pipeline) = self.pipelines.get(&key) {
            return pipeline.clone();
        }
        let pipeline = Arc::new(Pipeline::new(self.gpu, self.layout(kernel), variant.clone()));
        self.pipelines.insert(key, pipeline.clone());
        self.in_order.push(pipeline.clone());
        pipeline
    }

    /// All pipelines in the order of their first use, made in the background from here on.
    pub(super) fn make_pipelines(self) -> Workers {
        log::debug!("{} pipelines", self.in_order.len());
        Workers::start(self.in_order, self.gpu.caps.software)
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
