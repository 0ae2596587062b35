//! The kernels: every shader with its parameters, bindings, variants and CPU twin.
//!
//! A kernel is five things with one name: `shaders/NAME.wgsl`, its `Params` struct, its [`KernelDef`], its twin, and its
//! test cases. Binding 0 is the uniform `Params`; storage bindings follow in [`KernelDef::bindings`] order.

pub mod activation;
pub mod ceiling;
pub mod conv;
pub mod head;
pub mod input;
pub mod maxima;
pub mod norm;
pub mod optimizer;
pub mod range;
pub mod requantize;
pub mod select;
pub mod source;
pub mod weights;
pub mod wgrad;
pub mod winograd;

use bytemuck::{Pod, Zeroable};

/// What a kernel does with a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// A kernel: one shader interface with one CPU twin, in one or several variants.
pub struct KernelDef {
    /// Name; the shader of the default variant is `shaders/NAME.wgsl`.
    pub name: &'static str,
    /// Storage bindings 1.. in order: WGSL name and access.
    pub bindings: &'static [(&'static str, Access)],
    /// Bytes of the uniform `Params`.
    pub params_bytes: usize,
    /// The same computation on the CPU.
    pub twin: fn(&mut Twin),
}

impl std::fmt::Debug for KernelDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// All kernels, for tests and `cqat selftest`.
pub static REGISTRY: &[&KernelDef] = &[
    &input::AUGMENT,
    &weights::STATS,
    &weights::SCALE,
    &weights::PREPARE,
    &conv::CONV,
    &conv::CONV_NORM,
    &conv::CONV_ACT,
    &wgrad::WGRAD,
    &winograd::WEIGHTS,
    &winograd::IN,
    &winograd::OUT,
    &weights::REDUCE,
    &weights::STEP,
    &weights::STEP_MERGE,
    &norm::STATS,
    &norm::MERGE,
    &norm::BWD_MERGE,
    &norm::BWD,
    &activation::FORWARD,
    &activation::BACKWARD,
    &range::UPDATE,
    &range::LEARNED,
    &range::HISTOGRAM,
    &head::SOFTMAX_CE,
    &head::DISTILL,
    &optimizer::GRAD_NORM,
    &optimizer::GRAD_CLIP,
    &optimizer::AVERAGE,
    &optimizer::SGD,
    &maxima::CLEAR,
    &requantize::REQUANTIZE,
    &requantize::POOL_SUM,
    &ceiling::COPY,
    &ceiling::MULTIPLY_ADD,
];

/// One way to run a kernel: a shader with a generated prelude. Two dispatches with equal variants share a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variant {
    /// Name, as `cqat plan` prints it.
    pub name: String,
    /// Shader file stem under `shaders/`.
    pub shader: &'static str,
    /// Shared files that come first, by stem (operand, sum and output formats).
    pub files: Vec<&'static str>,
    /// Generated WGSL: `const NAME = value;` lines.
    pub prelude: Vec<String>,
    /// Of a matrix product: rows and columns of the result that a workgroup computes.
    pub tile: Option<[u32; 2]>,
}

impl Variant {
    /// The only variant of a kernel.
    pub fn only(shader: &'static str) -> Variant {
        Variant { name: "portable".into(), shader, files: vec![], prelude: vec![], tile: None }
    }

    /// The kernel and, where it has several, the variant with its tile, such as `conv/tiled-64x64`: how reports name it.
    pub fn label(&self, kernel: &KernelDef) -> String {
        if self.name == "portable" { kernel.name.to_string() } else { format!("{}/{}", kernel.name, self.title()) }
    }

    /// The variant with its tile.
    pub fn title(&self) -> String {
        let tile = self.tile.map_or(String::new(), |[m, n]| format!("-{m}x{n}"));
        format!("{}{tile}", self.name)
    }

    /// The variant with all its constants: which of a kernel's variants this is.
    pub fn settings(&self) -> String {
        let constants = self.prelude.iter().filter_map(|line| line.strip_prefix("const ")?.strip_suffix(';'));
        let constants: String = constants.map(|c| format!(" {}", c.replace(" = ", "="))).collect();
        format!("{}{constants}", self.title())
    }

    /// Adds shared format files.
    pub fn with_files(mut self, files: &[&'static str]) -> Variant {
        self.files.extend_from_slice(files);
        self
    }

    /// Adds a line of WGSL.
    pub fn with_line(mut self, line: impl Into<String>) -> Variant {
        self.prelude.push(line.into());
        self
    }

    /// Adds `const NAME = VALUEu;`.
    pub fn with_const(mut self, name: &str, value: u32) -> Variant {
        self.prelude.push(format!("const {name} = {value}u;"));
        self
    }

    /// Adds `const NAME = true;` or `false`.
    pub fn with_flag(mut self, name: &str, value: bool) -> Variant {
        self.prelude.push(format!("const {name} = {value};"));
        self
    }
}

/// How the values of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Format {
    /// One f32 a value.
    F32 = 0,
    /// Unsigned 8-bit codes, four channels a word.
    U8 = 1,
    /// Signed 8-bit codes, four channels a word.
    I8 = 2,
    /// Unsigned 4-bit codes, eight channels a word.
    U4 = 3,
    /// Signed 4-bit codes, eight channels a word.
    I4 = 4,
}

impl Format {
    /// The shared shader file that reads this format.
    pub fn operand(self) -> &'static str {
        match self {
            Format::F32 => "operand_f32",
            Format::U8 => "operand_u8",
            Format::I8 => "operand_i8",
            Format::U4 => "operand_u4",
            Format::I4 => unreachable!("4-bit codes of values have no sign"),
        }
    }

    /// The shared shader file that reads weights of this format.
    pub fn weights(self) -> &'static str {
        match self {
            Format::F32 => "weights_f32",
            Format::I8 => "weights_i8",
            Format::I4 => "weights_i4",
            Format::U8 | Format::U4 => unreachable!("codes of weights have a sign"),
        }
    }

    /// u32 words of `values` values.
    pub fn words(self, values: usize) -> usize {
        match self {
            Format::F32 => values,
            Format::U8 | Format::I8 => values.div_ceil(4),
            Format::U4 | Format::I4 => values.div_ceil(8),
        }
    }

    /// Whole numbers in this format, of which codes keep the low bits.
    pub fn store(self, values: &[f32]) -> Vec<u32> {
        let bits = match self {
            Format::F32 => return values.iter().map(|v| v.to_bits()).collect(),
            Format::U8 | Format::I8 => 8,
            Format::U4 | Format::I4 => 4,
        };
        let code = |v: &f32| (*v as i32 as u32) & ((1 << bits) - 1);
        values.chunks(32 / bits).map(|some| some.iter().rev().fold(0, |word, v| word << bits | code(v))).collect()
    }

    /// Value `i` of a tensor.
    pub fn load(self, data: &[u32], i: usize) -> f32 {
        match self {
            Format::F32 => f32::from_bits(data[i]),
            Format::U8 => f32::from((data[i / 4] >> (8 * (i % 4))) as u8),
            Format::I8 => f32::from((data[i / 4] >> (8 * (i % 4))) as u8 as i8),
            Format::U4 => (data[i / 8] >> (4 * (i % 8)) & 15) as f32,
            Format::I4 => ((data[i / 8] << (28 - 4 * (i % 8))) as i32 >> 28) as f32,
        }
    }

    /// The format with this number.
    pub fn from_number(n: u32) -> Format {
        match n {
            1 => Format::U8,
            2 => Format::I8,
            3 => Format::U4,
            4 => Format::I4,
            _ => Format::F32,
        }
    }
}

/// What the kernel selection knows of a device; plain data, so that tests invent devices.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Caps {
    /// A CPU pretending to be a GPU.
    pub software: bool,
    /// Bytes of the largest storage binding.
    pub max_binding_bytes: u64,
    /// Storage buffers that a shader may bind.
    pub max_storage_buffers: u32,
    /// Bytes of the largest buffer.
    pub max_buffer_bytes: u64,
    /// Bytes the planner may use in all.
    pub budget_bytes: u64,
    /// Invocations in a subgroup, where every subgroup of the device has that many; 0: not known or not usable.
    pub subgroup: u32,
    /// Side of the matrices that a subgroup multiplies at once, of f16 into f32: 16 or 8; 0: no matrix units, or not to be trusted.
    pub matrix: u32,
    /// Whether four products of codes at a time are worth a try (dot4I8Packed).
    pub dot4: bool,
    /// Floating-point operations that one submission may hold.
    pub submission_flops: u64,
    /// What `cqat tune` found for the device.
    pub tuned: select::Choices,
}

impl Caps {
    /// WebGPU's default limits on a made-up device with `budget_mib` of memory.
    pub fn portable(software: bool, budget_mib: u64) -> Caps {
        Caps {
            software,
            max_binding_bytes: 128 << 20,
            max_storage_buffers: 8,
            max_buffer_bytes: 256 << 20,
            budget_bytes: budget_mib << 20,
            subgroup: if software { 8 } else { 32 },
            matrix: 0,
            dot4: !software,
            submission_flops: u64::MAX,
            tuned: select::Choices::new(),
        }
    }
}

/// What changes from step to step (`Step` in `shared/step.wgsl`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct Step {
    /// Seed of this step's augmentation.
    pub seed: u32,
    /// Global step number.
    pub index: u32,
    /// Row of the metrics ring.
    pub ring_slot: u32,
    /// Pictures of the batch that count.
    pub valid: u32,
    /// 1: ranges stay as they are.
    pub frozen: u32,
    /// Learning rate.
    pub lr: f32,
    /// Decay of the moving averages; 1: they stay as they are.
    pub ema_decay: f32,
    /// Decay of the mean of the gradients of several batches: k / (k + 1) for batch k of a step.
    pub gradient_decay: f32,
}

/// A buffer as a twin sees it.
pub enum TwinBuffer<'a> {
    /// Bound for reading.
    Read(&'a [u32]),
    /// Bound for writing; `None` once taken.
    Write(Option<&'a mut [u32]>),
}

/// Arguments of a twin: the parameters and the bindings, in shader order (binding 1 is index 0).
pub struct Twin<'a> {
    params: &'a [u8],
    buffers: Vec<TwinBuffer<'a>>,
}

impl<'a> Twin<'a> {
    /// Wraps one dispatch's arguments.
    pub fn new(params: &'a [u8], buffers: Vec<TwinBuffer<'a>>) -> Self {
        Twin { params, buffers }
    }

    /// The parameters.
    pub fn params<P: Pod>(&self) -> P {
        bytemuck::pod_read_unaligned(self.params)
    }

    /// Storage binding `i` as words.
    pub fn words(&self, i: usize) -> &'a [u32] {
        match &self.buffers[i] {
            TwinBuffer::Read(b) => b,
            TwinBuffer::Write(_) => panic!("binding {i} is bound for writing"),
        }
    }

    /// Storage binding `i` as f32.
    pub fn f32(&self, i: usize) -> &'a [f32] {
        bytemuck::cast_slice(self.words(i))
    }

    /// The step's uniform at storage binding `i`.
    pub fn step(&self, i: usize) -> Step {
        bytemuck::pod_read_unaligned(&bytemuck::cast_slice(self.words(i))[..size_of::<Step>()])
    }

    /// Writable storage binding `i` as words.
    pub fn words_mut(&mut self, i: usize) -> &'a mut [u32] {
        match &mut self.buffers[i] {
            TwinBuffer::Write(b) => b.take().expect("a binding is taken once"),
            TwinBuffer::Read(_) => panic!("binding {i} is bound for reading"),
        }
    }

    /// Writable storage binding `i` as f32.
    pub fn f32_mut(&mut self, i: usize) -> &'a mut [f32] {
        bytemuck::cast_slice_mut(self.words_mut(i))
    }
}

/// Workgroups for `invocations` in workgroups of 64, folded to at most 32,768 in x.
pub fn flat_grid(invocations: usize) -> [u32; 3] {
    let groups = invocations.div_ceil(64).max(1);
    let x = groups.min(32_768);
    [x as u32, groups.div_ceil(x) as u32, 1]
}

/// Rows that one invocation of a row-reducing kernel handles, of four channels each: few invocations on software adapters, whose
/// partial sums cost more than they gain, and enough to keep a real GPU busy. It depends on nothing else, so that results repeat.
pub fn row_chunk(rows: usize, cols4: usize, software: bool) -> usize {
    match software {
        true => rows.div_ceil(256).max(32),
        false => (rows * cols4).div_ceil(1 << 17).clamp(8, 256),
    }
}
