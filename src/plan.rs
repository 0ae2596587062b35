//! The plan: every tensor, where it lives, and the dispatches of every program, decided before anything is allocated.
//!
//! A plan is plain data. The GPU executor and the CPU executor replay the same plan.

pub mod integer;
pub mod layout;
pub mod lower;
pub mod memory;

use bytemuck::Pod;

use crate::kernels::{Access, Caps, KernelDef, Variant};
use crate::net::LayerId;
use crate::{Error, Result};

/// Index into [`Plan::tensors`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub usize);

/// Tensors that share one buffer because they are read, written or copied together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arena {
    /// Trainable parameters; those that decay come first.
    Params,
    /// Their gradients, laid out alike.
    Grads,
    /// Their momentum, laid out alike.
    Velocity,
    /// Running batch-norm statistics.
    Norms,
    /// Weight codes, laid out like the decayed parameters.
    Codes,
    /// Transposed weight codes.
    Transposed,
    /// Weight scales.
    Scales,
    /// Partial statistics of activations, forward.
    Seen,
    /// The same, backward.
    Blocked,
    /// Losses and hits, of batches and of pictures.
    Scores,
}

/// Where a tensor lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// In an arena's buffer, at this word offset.
    Arena(Arena, usize),
    /// In a buffer of its own.
    Own,
    /// In a shared slot, alive only while a program needs it.
    Slot(usize),
}

/// A tensor: named words on the device.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Name, for messages and `cqat plan`.
    pub name: String,
    /// 32-bit words.
    pub words: usize,
    /// Where it lives.
    pub home: Home,
}

/// Workgroups in one dimension of a grid, WebGPU's default limit.
const MOST_WORKGROUPS: u32 = 65_535;

/// Arithmetic and traffic of a dispatch, for reports and for splitting long steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Floating-point operations (a multiply-add is two).
    pub flops: u64,
    /// Bytes read and written, each tensor once (of an arena, what the dispatch uses).
    pub bytes: u64,
}

/// One kernel launch.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// The kernel.
    pub kernel: &'static KernelDef,
    /// How it runs.
    pub variant: Variant,
    /// The uniform parameters.
    pub params: Vec<u8>,
    /// Tensors in [`KernelDef::bindings`] order.
    pub bind: Vec<TensorId>,
    /// Workgroups.
    pub grid: [u32; 3],
    /// The layer it works for.
    pub layer: Option<LayerId>,
    /// Whether it belongs to the backward pass.
    pub back: bool,
    /// Its work.
    pub work: Work,
}

/// A named list of dispatches.
#[derive(Debug, Clone)]
pub struct Program {
    /// Name, such as `train quantized`.
    pub name: &'static str,
    /// In order.
    pub dispatches: Vec<Dispatch>,
}

/// Index into [`Plan::programs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramId(pub usize);

/// Everything an executor needs.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The tensors.
    pub tensors: Vec<Tensor>,
    /// The programs.
    pub programs: Vec<Program>,
    /// Words of each shared slot.
    pub slots: Vec<usize>,
    /// Words of each arena, in order of creation.
    pub arenas: Vec<(Arena, usize)>,
}

/// The buffer behind a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BufferId {
    /// An arena's.
    Arena(Arena),
    /// A tensor's own.
    Own(TensorId),
    /// A slot.
    Slot(usize),
}

/// Words between tensors of one arena: 1 KiB, so that a workgroup of 64 vec4s never spans two tensors and offsets suit
/// every device.
pub const ALIGN_WORDS: usize = 256;

impl Plan {
    /// Adds a tensor with a buffer of its own.
    pub fn own(&mut self, name: impl Into<String>, words: usize) -> TensorId {
        self.push(name.into(), words, Home::Own)
    }

    /// Adds a tensor to an arena.
    pub fn member(&mut self, arena: Arena, name: impl Into<String>, words: usize) -> TensorId {
        let at = match self.arenas.iter().position(|(f, _)| *f == arena) {
            Some(at) => at,
            None => {
                self.arenas.push((arena, 0));
                self.arenas.len() - 1
            }
        };
        let end = &mut self.arenas[at].1;
        let offset = *end;
        *end += words.next_multiple_of(ALIGN_WORDS);
        self.push(name.into(), words, Home::Arena(arena, offset))
    }

    /// A tensor over all of an arena.
    pub fn whole(&mut self, arena: Arena) -> TensorId {
        let words = self.arena_words(arena);
        self.push(format!("{arena:?}"), words, Home::Arena(arena, 0))
    }

    /// Words of an arena.
    pub fn arena_words(&self, arena: Arena) -> usize {
        self.arenas.iter().find(|(f, _)| *f == arena).map_or(0, |(_, words)| *words)
    }

    /// Adds a tensor that lives in a slot while one program needs it. [`Plan::assign_slots`] decides which.
    pub fn scratch(&mut self, name: impl Into<String>, words: usize) -> TensorId {
        self.push(name.into(), words, Home::Slot(usize::MAX))
    }

    fn push(&mut self, name: String, words: usize, home: Home) -> TensorId {
        self.tensors.push(Tensor { name, words: words.max(4), home });
        TensorId(self.tensors.len() - 1)
    }

    /// Adds a program.
    pub fn program(&mut self, name: &'static str, dispatches: Vec<Dispatch>) -> ProgramId {
        self.programs.push(Program { name, dispatches });
        ProgramId(self.programs.len() - 1)
    }

    /// A forward dispatch of no layer in particular.
    pub fn dispatch<P: Pod>(
        &self,
        kernel: &'static KernelDef,
        variant: Variant,
        params: &P,
        bind: &[TensorId],
        grid: [u32; 3],
        flops: u64,
    ) -> Dispatch {
        let bytes = bind.iter().map(|&t| self.tensor(t).words as u64 * 4).sum();
        let (params, bind) = (bytemuck::bytes_of(params).to_vec(), bind.to_vec());
        Dispatch { kernel, variant, params, bind, grid, layer: None, back: false, work: Work { flops, bytes } }
    }

    /// The tensor.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.0]
    }

    /// The tensor of this name that a program binds.
    pub fn bound(&self, program: ProgramId, name: &str) -> Option<TensorId> {
        let mut bound = self.programs[program.0].dispatches.iter().flat_map(|d| &d.bind);
        bound.find(|t| self.tensor(**t).name == name).copied()
    }

    /// The first tensor with this name.
    pub fn find(&self, name: &str) -> Option<TensorId> {
        self.tensors.iter().position(|t| t.name == name).map(TensorId)
    }

    /// The buffer that holds a tensor.
    pub fn buffer(&self, id: TensorId) -> BufferId {
        match self.tensor(id).home {
            Home::Arena(f, _) => BufferId::Arena(f),
            Home::Own => BufferId::Own(id),
            Home::Slot(s) => BufferId::Slot(s),
        }
    }

    /// First word of a tensor in its buffer.
    pub fn offset(&self, id: TensorId) -> usize {
        match self.tensor(id).home {
            Home::Arena(_, offset) => offset,
            Home::Own | Home::Slot(_) => 0,
        }
    }

    /// Every buffer with its words.
    pub fn buffers(&self) -> Vec<(BufferId, usize)> {
        let arenas = self.arenas.iter().map(|&(arena, words)| (BufferId::Arena(arena), words));
        let own = self.tensors.iter().enumerate().filter(|(_, t)| t.home == Home::Own);
        let own = own.map(|(i, t)| (BufferId::Own(TensorId(i)), t.words));
        let slots = self.slots.iter().enumerate().map(|(i, &words)| (BufferId::Slot(i), words));
        arenas.chain(own).chain(slots).collect()
    }

    /// Bytes of all buffers, uniform parameters included.
    pub fn bytes(&self) -> u64 {
        let uniforms: usize = self.programs.iter().map(|p| p.dispatches.len() * 256).sum();
        self.buffers().iter().map(|(_, words)| *words as u64 * 4).sum::<u64>() + uniforms as u64
    }

    /// Asserts what the executors rely on.
    ///
    /// # Panics
    /// A dispatch whose bindings or parameters are not those of its kernel, or that binds one buffer for reading and writing
    /// at once: a bug of whoever made the plan.
    pub fn assert_sound(&self) {
        for (program, d) in self.programs.iter().flat_map(|p| p.dispatches.iter().map(move |d| (p, d))) {
            let at = format!("{} ({})", program.name, d.kernel.name);
            assert_eq!(d.bind.len(), d.kernel.bindings.len(), "{at}: bindings");
            assert_eq!(d.params.len(), d.kernel.params_bytes, "{at}: bytes of parameters");
            assert!(d.grid.iter().all(|&n| n > 0), "{at}: grid {:?}", d.grid);
            let buffers: Vec<BufferId> = d.bind.iter().map(|&t| self.buffer(t)).collect();
            for (a, (name, access)) in d.kernel.bindings.iter().enumerate() {
                let shared = buffers.iter().enumerate().any(|(b, id)| b != a && *id == buffers[a]);
                assert!(*access == Access::Read || !shared, "{at}: {name} shares its buffer with another binding");
            }
        }
    }

    /// Whether the plan fits a device.
    ///
    /// # Errors
    /// A device error that names the tensor or the total that is too large.
    pub fn fits(&self, caps: &Caps) -> Result<()> {
        // What is needed is rounded up, what is allowed down.
        let (mib, allowed) = (|b: u64| b.div_ceil(1 << 20), |b: u64| b >> 20);
        for (id, words) in self.buffers() {
            let bytes = words as u64 * 4;
            if bytes > caps.max_buffer_bytes {
                return Err(Error::device(format!(
                    "buffer {id:?} needs {} MiB, the device allows {} MiB in one buffer",
                    mib(bytes),
                    allowed(caps.max_buffer_bytes)
                )));
            }
        }
        for d in self.programs.iter().flat_map(|p| &p.dispatches) {
            if let Some(n) = d.grid.iter().find(|n| **n > MOST_WORKGROUPS) {
                return Err(Error::device(format!(
                    "{} needs {n} workgroups in one dimension, the device allows {MOST_WORKGROUPS}",
                    d.kernel.name
                )));
            }
            for &t in &d.bind {
                let bytes = self.tensor(t).words as u64 * 4;
                if bytes > caps.max_binding_bytes {
                    return Err(Error::device(format!(
                        "tensor {} needs {} MiB, the device binds at most {} MiB",
                        self.tensor(t).name,
                        mib(bytes),
                        allowed(caps.max_binding_bytes)
                    )));
                }
            }
        }
        if self.bytes() > caps.budget_bytes {
            return Err(Error::device(format!(
                "the step needs {} MiB of buffers, the budget is {} MiB",
                mib(self.bytes()),
                allowed(caps.budget_bytes)
            )));
        }
        Ok(())
    }
}
