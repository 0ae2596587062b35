//! What an executor of a plan does. The GPU and the CPU reference are the two there are.

use bytemuck::Pod;

use crate::Result;
use crate::plan::{ProgramId, TensorId};

/// Runs the programs of one plan over its tensors.
pub trait Executor {
    /// Writes words into a tensor, from its start, in order with the programs.
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
