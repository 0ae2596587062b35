//! A plan on a device: buffers, pipelines, bind groups made once; programs replayed for every step.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Gpu;
use super::build::{Bound, Builder, Timer};
use super::pipelines::Workers;
use crate::exec::Executor;
use crate::plan::{BufferId, Plan, ProgramId, TensorId};
use crate::{Error, Result};

/// Steps the host may be ahead of the device.
const IN_FLIGHT: usize = 2;

/// Time of one program run.
#[derive(Debug, Clone, Copy)]
pub struct StepTiming {
    /// From the first command to the end of the last, on the host's clock.
    pub wall: Duration,
    /// On the device, between the first dispatch and the last; `None` where the device cannot measure.
    pub device: Option<Duration>,
}

/// When a dispatch ran, on the device's clock.
#[derive(Debug, Clone, Copy)]
pub struct Interval {
    /// From the beginning of the first.
    pub begin: Duration,
    /// How long.
    pub length: Duration,
}

/// The plan, ready to run on a [`Gpu`].
pub struct GpuProgram<'a> {
    gpu: &'a Gpu,
    plan: Plan,
    buffers: HashMap<BufferId, wgpu::Buffer>,
    programs: Vec<Vec<Bound>>,
    in_flight: VecDeque<wgpu::SubmissionIndex>,
    timer: Option<Timer>,
    _workers: Workers,
}

impl<'a> GpuProgram<'a> {
    /// Allocates the plan's buffers (zeroed) and begins to make its pipelines, in the order of the programs.
    ///
    /// # Errors
    /// A plan that does not fit the device, or a driver error. A kernel that the driver refuses is an error of the programs that need it.
    pub fn new(gpu: &'a Gpu, plan: &Plan) -> Result<GpuProgram<'a>> {
        plan.fits(&gpu.caps)?;
        let memory = gpu.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let mut build = Builder::new(gpu);
        let buffers: HashMap<BufferId, wgpu::Buffer> =
            plan.buffers().into_iter().map(|(id, words)| (id, build.buffer(&format!("{id:?}"), words))).collect();
        let mut programs = Vec::new();
        for program in &plan.programs {
            programs.push(build.program(plan, &buffers, &program.dispatches));
        }
        let timer = gpu.timestamps.then(|| build.timer());
        let workers = build.make_pipelines();
        let refused = pollster::block_on(validation.pop());
        if let Some(e) = pollster::block_on(memory.pop()) {
            return Err(Error::device(format!("the device has no room for {} MiB of buffers", plan.bytes() >> 20))
                .hint("lower train.batch or network.width")
                .caused_by(e));
        }
        if let Some(e) = refused {
            return Err(Error::device("the driver refuses a buffer or its use")
                .hint("an update of the driver may help, or another adapter with --device")
                .caused_by(e));
        }
        gpu.faults.check()?;
        Ok(GpuProgram {
            gpu,
            plan: plan.clone(),
            buffers,
            programs,
            in_flight: VecDeque::new(),
            timer,
            _workers: workers,
        })
    }

    /// Runs a program alone and measures it.
    ///
    /// # Errors
    /// A device error.
    pub fn run_timed(&mut self, program: ProgramId) -> Result<StepTiming> {
        self.gpu.wait(None)?;
        let start = Instant::now();
        self.submit(program, true)?;
        self.gpu.wait(None)?;
        let wall = start.elapsed();
        let device = match &self.timer {
            Some(t) => self.intervals(&t.resolve, 1)?.pop().map(|i| i.length),
            None => None,
        };
        self.in_flight.clear();
        Ok(StepTiming { wall, device })
    }

    /// Runs a program with every dispatch in a pass of its own and returns when each ran on the device.
    ///
    /// # Errors
    /// A device error, or an adapter without timestamps.
    pub fn run_profiled(&mut self, program: ProgramId) -> Result<Vec<Interval>> {
        if !self.gpu.timestamps {
            return Err(Error::device("this adapter has no timestamps, so kernels cannot be timed one by one"));
        }
        let list = &self.programs[program.0];
        let device = &self.gpu.device;
        let count = 2 * list.len() as u32;
        let of_set = |first: u32| (count - first).min(wgpu::QUERY_SET_MAX_QUERIES);
        let firsts = (0..count).step_by(wgpu::QUERY_SET_MAX_QUERIES as usize);
        let sets: Vec<(u32, wgpu::QuerySet)> = firsts
            .map(|first| {
                let (label, ty) = (Some("profile"), wgpu::QueryType::Timestamp);
                (first, device.create_query_set(&wgpu::QuerySetDescriptor { label, ty, count: of_set(first) }))
            })
            .collect();
        let resolve = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("profile"),
            size: u64::from(count) * 8,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        for part in self.submissions(list) {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None });
            for i in part.clone() {
                let (first, set) = &sets[2 * i / wgpu::QUERY_SET_MAX_QUERIES as usize];
                let begin = 2 * i as u32 - first;
                let writes = wgpu::ComputePassTimestampWrites {
                    query_set: set,
                    beginning_of_pass_write_index: Some(begin),
                    end_of_pass_write_index: Some(begin + 1),
                };
                let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(writes) };
                list[i].encode(&mut encoder.begin_compute_pass(&descriptor))?;
            }
            if part.end == list.len() {
                for (first, set) in &sets {
                    encoder.resolve_query_set(set, 0..of_set(*first), &resolve, u64::from(*first) * 8);
                }
            }
            self.gpu.queue.submit([encoder.finish()]);
        }
        self.intervals(&resolve, list.len() as u64)
    }

    /// The times between pairs of timestamps in a buffer.
    fn intervals(&self, ticks: &wgpu::Buffer, pairs: u64) -> Result<Vec<Interval>> {
        let words = self.download(ticks, 0, 16 * pairs)?;
        let ticks: Vec<u64> = words.chunks_exact(2).map(|w| u64::from(w[0]) | u64::from(w[1]) << 32).collect();
        let period = f64::from(self.gpu.queue.get_timestamp_period());
        let first = ticks[0];
        let time = |from: u64, to: u64| Duration::from_nanos((to.saturating_sub(from) as f64 * period) as u64);
        let interval = |t: &[u64]| Interval { begin: time(first, t[0]), length: time(t[0], t[1]) };
        Ok(ticks.chunks_exact(2).map(interval).collect())
    }

    /// The dispatches of each submission: as many as [`crate::kernels::Caps::submission_flops`] allows, at least one.
    fn submissions(&self, list: &[Bound]) -> Vec<Range<usize>> {
        let limit = self.gpu.caps.submission_flops;
        let (mut parts, mut first, mut flops) = (Vec::new(), 0, 0);
        for (i, b) in list.iter().enumerate() {
            if i > first && b.flops > limit.saturating_sub(flops) {
                parts.push(first..i);
                (first, flops) = (i, 0);
            }
            flops += b.flops;
        }
        parts.push(first..list.len());
        parts
    }

    fn submit(&mut self, program: ProgramId, timed: bool) -> Result<()> {
        let list = &self.programs[program.0];
        let timer = self.timer.as_ref().filter(|_| timed);
        let mut last = None;
        for part in self.submissions(list) {
            let (begins, ends) = (part.start == 0, part.end == list.len());
            let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None });
            {
                let writes = timer.filter(|_| begins || ends).map(|t| wgpu::ComputePassTimestampWrites {
                    query_set: &t.set,
                    beginning_of_pass_write_index: begins.then_some(0),
                    end_of_pass_write_index: ends.then_some(1),
                });
                let mut pass =
                    encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes: writes });
                list[part].iter().try_for_each(|b| b.encode(&mut pass))?;
            }
            if let Some(t) = timer.filter(|_| ends) {
                encoder.resolve_query_set(&t.set, 0..2, &t.resolve, 0);
            }
            last = Some(self.gpu.queue.submit([encoder.finish()]));
        }
        self.in_flight.extend(last);
        self.gpu.faults.check()
    }

    fn download(&self, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<u32>> {
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None });
        let staging = self.staging(bytes);
        encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, bytes);
        self.gpu.queue.submit([encoder.finish()]);
        self.map(&staging)
    }

    fn staging(&self, bytes: u64) -> wgpu::Buffer {
        self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read back"),
            size: bytes,
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        })
    }

    fn map(&self, staging: &wgpu::Buffer) -> Result<Vec<u32>> {
        let (send, receive) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |r| {
            let _ = send.send(r);
        });
        self.gpu.wait(None)?;
        let failed = |e| Error::device("reading a buffer back failed").caused_by(e);
        match receive.recv() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(failed(Box::<dyn std::error::Error + Send + Sync>::from(e))),
            Err(e) => return Err(failed(e.into())),
        }
        let view = staging.get_mapped_range(..).map_err(|e| failed(e.into()))?;
        Ok(bytemuck::cast_slice(&view).to_vec())
    }
}

impl Executor for GpuProgram<'_> {
    fn write(&mut self, tensor: TensorId, words: &[u32]) {
        let offset = self.plan.offset(tensor) as u64 * 4;
        assert!(words.len() <= self.plan.tensor(tensor).words, "{} is smaller", self.plan.tensor(tensor).name);
        self.gpu.queue.write_buffer(&self.buffers[&self.plan.buffer(tensor)], offset, bytemuck::cast_slice(words));
    }

    fn run(&mut self, program: ProgramId) -> Result<()> {
        while self.in_flight.len() >= IN_FLIGHT {
            let oldest = self.in_flight.pop_front();
            self.gpu.wait(oldest)?;
        }
        self.submit(program, false)
    }

    fn read(&mut self, tensor: TensorId) -> Result<Vec<u32>> {
        let buffer = &self.buffers[&self.plan.buffer(tensor)];
        let words = self.plan.tensor(tensor).words as u64;
        let data = self.download(buffer, self.plan.offset(tensor) as u64 * 4, words * 4)?;
        self.in_flight.clear();
        Ok(data)
    }
}
