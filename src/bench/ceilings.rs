//! What a device can do at most, measured with kernels that do nothing else.

use std::time::Duration;

use crate::Result;
use crate::gpu::{Gpu, GpuProgram};
use crate::kernels::ceiling::{COPY, CopyParams, MULTIPLY_ADD, MultiplyAddParams};
use crate::kernels::{KernelDef, Variant, flat_grid};
use crate::plan::{Dispatch, Plan, ProgramId, TensorId, Work};

/// Lengths of the chains of multiply-adds; the first that runs for [`LONG_ENOUGH`] is taken.
const TURNS: [u32; 5] = [4, 32, 256, 2048, 16384];
const LONG_ENOUGH: Duration = Duration::from_millis(10);
/// Chains of multiply-adds: enough to fill any device.
const CHAINS: usize = 1 << 18;
/// Bytes that are copied, as far as the device has room: more than its caches hold.
const COPIED_BYTES: u64 = 256 << 20;
/// Runs, of which the fastest counts.
const RUNS: usize = 3;

/// The most that a device does a second.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Ceilings {
    /// f32 operations (a multiply-add is two), in units of 1e9.
    pub gflops: f64,
    /// Bytes read and written, in units of 1e9.
    pub gbs: f64,
}

impl Ceilings {
    /// Measures those of a device that has timestamps.
    ///
    /// # Errors
    /// A device error.
    pub fn measure(gpu: &Gpu) -> Result<Ceilings> {
        let mut plan = Plan::default();
        let bytes = COPIED_BYTES.min(gpu.caps.max_binding_bytes).min(gpu.caps.budget_bytes / 16);
        let words = bytes as usize / 16 * 4;
        let (x, out) = (plan.own("x", words), plan.own("out", words));
        let params = CopyParams { words4: words as u32 / 4, pad: [0; 3] };
        let work = Work { flops: 0, bytes: 8 * words as u64 };
        let copy = plan.program("copy", vec![dispatch(&COPY, &params, &[x, out], words / 4, work)]);
        let sums = plan.own("sums", 4 * CHAINS);
        let chains = TURNS.map(|turns| {
            let params = MultiplyAddParams { words4: CHAINS as u32, turns, factor: 0.5, pad: 0 };
            let work = Work { flops: params.flops(), bytes: 0 };
            let list = vec![dispatch(&MULTIPLY_ADD, &params, &[sums], CHAINS, work)];
            (plan.program("multiply_add", list), work.flops)
        });
        let mut exec = GpuProgram::new(gpu, &plan)?;
        let mut fastest = |program: ProgramId| -> Result<f64> {
            let mut best = f64::INFINITY;
            for _ in 0..RUNS {
                best = best.min(exec.run_profiled(program)?[0].length.as_secs_f64());
            }
            Ok(best)
        };
        let gbs = work.bytes as f64 / fastest(copy)? / 1e9;
        let mut gflops = 0f64;
        for (program, flops) in chains {
            let seconds = fastest(program)?;
            gflops = flops as f64 / seconds / 1e9;
            if seconds >= LONG_ENOUGH.as_secs_f64() {
                break;
            }
        }
        Ok(Ceilings { gflops, gbs })
    }

    /// The least seconds that some work takes.
    pub fn seconds(&self, work: Work) -> f64 {
        (work.flops as f64 / self.gflops / 1e9).max(work.bytes as f64 / self.gbs / 1e9)
    }
}

fn dispatch<P: bytemuck::Pod>(
    kernel: &'static KernelDef,
    params: &P,
    bind: &[TensorId],
    invocations: usize,
    work: Work,
) -> Dispatch {
    Dispatch {
        kernel,
        variant: Variant::only(kernel.name),
        params: bytemuck::bytes_of(params).to_vec(),
        bind: bind.to_vec(),
        grid: flat_grid(invocations),
        layer: None,
        back: false,
        work,
    }
}
