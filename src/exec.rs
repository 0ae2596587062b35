//! What an executor of a plan does. The GPU and the CPU reference are the two there are.

use bytemuck::Pod;

use crate::Result;
use crate::kernels::Caps;
use crate::plan::{Plan, ProgramId, TensorId};

/// What an adapter says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct AdapterSummary {
    /// Position in the list, for `--device INDEX`.
    pub index: usize,
    /// Name.
    pub name: String,
    /// Driver name.
    pub driver: String,
    /// Driver version text.
    pub driver_info: String,
    /// API behind it.
    pub backend: String,
    /// Discrete, integrated, virtual, software or other.
    pub kind: String,
    /// A CPU pretending to be a GPU.
    pub software: bool,
}

/// Where plans can run.
pub trait Device {
    /// What the kernel selection and the planner may use.
    fn caps(&self) -> &Caps;

    /// What it is.
    fn summary(&self) -> &AdapterSummary;

    /// Allocates a plan's memory, filled with zeros, and makes its programs ready.
    ///
    /// # Errors
    /// A device error.
    fn load<'a>(&'a self, plan: &'a Plan) -> Result<Box<dyn Executor + 'a>>;
}

/// Runs the programs of one plan over its tensors.
pub trait Executor {
    /// Writes words into a tensor, from its start, in order with the programs.
    ///
    /// # Panics
    /// More words than the tensor has.
    fn write(&mut self, tensor: TensorId, words: &[u32]);

    /// Runs a program. May return before it has finished.
    ///
    /// # Errors
    /// A device error: validation, out of memory, a lost device.
    fn run(&mut self, program: ProgramId) -> Result<()>;

    /// Reads a tensor after everything before it has finished.
    ///
    /// # Errors
    /// A device error.
    fn read(&mut self, tensor: TensorId) -> Result<Vec<u32>>;
}

/// Typed access on top of [`Executor`].
pub trait ExecutorExt: Executor {
    /// Writes values.
    fn write_as<T: Pod>(&mut self, tensor: TensorId, values: &[T]) {
        self.write(tensor, bytemuck::cast_slice(values));
    }

    /// Reads f32 values.
    ///
    /// # Errors
    /// As [`Executor::read`].
    fn read_f32(&mut self, tensor: TensorId) -> Result<Vec<f32>> {
        Ok(bytemuck::cast_vec(self.read(tensor)?))
    }
}

impl<E: Executor + ?Sized> ExecutorExt for E {}
