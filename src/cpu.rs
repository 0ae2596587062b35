//! The CPU reference: replays a plan through the twins. Slow, plain, and what every kernel is tested against.

use std::collections::HashMap;

use crate::Result;
use crate::exec::{AdapterSummary, Device, Executor};
use crate::kernels::{Access, Caps, Twin, TwinBuffer};
use crate::plan::{BufferId, Dispatch, Plan, ProgramId, TensorId};

/// The reference as a device.
pub struct CpuDevice {
    caps: Caps,
    summary: AdapterSummary,
}

impl CpuDevice {
    /// One whose plans are made for `caps`.
    pub fn new(caps: Caps) -> CpuDevice {
        let (name, none) = ("CPU reference".to_string(), String::new());
        let (driver, driver_info, backend, kind) = (none.clone(), none, "cpu".to_string(), "software".to_string());
        CpuDevice {
            caps,
            summary: AdapterSummary { index: 0, name, driver, driver_info, backend, kind, software: true },
        }
    }
}

impl Device for CpuDevice {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn summary(&self) -> &AdapterSummary {
        &self.summary
    }

    fn load<'a>(&'a self, plan: &'a Plan) -> Result<Box<dyn Executor + 'a>> {
        Ok(Box::new(CpuProgram::new(plan)))
    }
}

/// A plan with its memory on the host.
pub struct CpuProgram {
    plan: Plan,
    buffers: HashMap<BufferId, Vec<u32>>,
}

impl CpuProgram {
    /// Allocates the plan's buffers, filled with zeros.
    pub fn new(plan: &Plan) -> CpuProgram {
        let buffers = plan.buffers().into_iter().map(|(id, words)| (id, vec![0; words])).collect();
        CpuProgram { plan: plan.clone(), buffers }
    }

    fn dispatch(&mut self, d: &Dispatch) {
        // Written buffers are taken out of the map; a plan never binds one buffer both ways.
        let place = |t: TensorId| (self.plan.buffer(t), self.plan.offset(t), self.plan.tensor(t).words);
        let places: Vec<_> = d.bind.iter().map(|&t| place(t)).collect();
        let mut written: HashMap<BufferId, Vec<u32>> = HashMap::new();
        for ((id, _, _), (_, access)) in places.iter().zip(d.kernel.bindings) {
            if *access == Access::ReadWrite {
                written.insert(*id, self.buffers.remove(id).expect("a buffer is written once in a dispatch"));
            }
        }
        let mut open: HashMap<BufferId, &mut Vec<u32>> = written.iter_mut().map(|(id, b)| (*id, b)).collect();
        let buffers = places
            .iter()
            .map(|(id, offset, words)| match open.remove(id) {
                Some(b) => TwinBuffer::Write(Some(&mut b[*offset..offset + words])),
                None => TwinBuffer::Read(&self.buffers[id][*offset..offset + words]),
            })
            .collect();
        (d.kernel.twin)(&mut Twin::new(&d.params, buffers));
        self.buffers.extend(written);
    }
}

impl Executor for CpuProgram {
    fn write(&mut self, tensor: TensorId, words: &[u32]) {
        assert!(words.len() <= self.plan.tensor(tensor).words, "{} is smaller", self.plan.tensor(tensor).name);
        let offset = self.plan.offset(tensor);
        let buffer = self.buffers.get_mut(&self.plan.buffer(tensor)).expect("a tensor has a buffer");
        buffer[offset..offset + words.len()].copy_from_slice(words);
    }

    fn run(&mut self, program: ProgramId) -> Result<()> {
        let dispatches = self.plan.programs[program.0].dispatches.clone();
        dispatches.iter().for_each(|d| self.dispatch(d));
        Ok(())
    }

    fn read(&mut self, tensor: TensorId) -> Result<Vec<u32>> {
        let offset = self.plan.offset(tensor);
        let words = self.plan.tensor(tensor).words;
        Ok(self.buffers[&self.plan.buffer(tensor)][offset..offset + words].to_vec())
    }
}
