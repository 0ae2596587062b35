//! Tensors that belong together.

use crate::net::LayerId;
use crate::plan::TensorId;

/// Tensors of a layer with weights.
#[derive(Debug, Clone)]
pub struct Weights {
    /// The layer.
    pub layer: LayerId,
    /// Name of the weight tensor's module, such as `layer1.0.conv1`.
    pub name: String,
    /// Kernel positions.
    pub taps: usize,
    /// Input channels as stored.
    pub c_in: usize,
    /// Input channels that carry data.
    pub real_in: usize,
    /// Output channels as stored.
    pub c_out: usize,
    /// Output channels that carry data.
    pub real_out: usize,
    /// `(taps, c_in, c_out)` f32.
    pub weight: TensorId,
    /// Its gradient.
    pub grad: TensorId,
    /// First vec4 of the weights in [`super::Layout::codes`] and [`super::Layout::transposed`].
    pub offset4: u32,
    /// `c_out` scales, `c_out` inverse scales, `c_out` steps of the 8-bit grid where windows are counted in them.
    pub scales: TensorId,
}

impl Weights {
    /// Words of the weight tensor.
    pub fn words(&self) -> usize {
        self.taps * self.c_in * self.c_out
    }

    /// Whether word `i` of the weight tensor carries data; the others are padding.
    pub fn is_real(&self, i: usize) -> bool {
        i / self.c_out % self.c_in < self.real_in && i % self.c_out < self.real_out
    }
}

/// Tensors of a batch norm.
#[derive(Debug, Clone)]
pub struct Norm {
    /// The convolution it belongs to.
    pub layer: LayerId,
    /// Name, such as `layer1.0.bn1`.
    pub name: String,
    /// Channels.
    pub channels: usize,
    /// gamma, beta.
    pub affine: TensorId,
    /// Their gradients.
    pub grad: TensorId,
    /// Running mean and variance.
    pub running: TensorId,
}

/// What learning changes of a network: laid out like the arenas of those names.
#[derive(Debug, Clone, Copy)]
pub struct Values {
    /// All parameters.
    pub params: TensorId,
    /// Running statistics of all norms.
    pub running: TensorId,
    /// Scales of all weights.
    pub scales: TensorId,
}

impl Values {
    /// All three.
    pub fn all(self) -> [TensorId; 3] {
        [self.params, self.running, self.scales]
    }
}

/// Partial statistics of an activation, which `range_update` merges.
#[derive(Debug, Clone, Copy)]
pub struct Statistics {
    /// Rows that an invocation of `act_fwd` handles: of the activation before the pool a picture's.
    pub chunk: usize,
    /// Of `act_fwd`.
    pub seen: TensorId,
    /// Of `norm_bwd_merge`.
    pub blocked: TensorId,
    /// Row of [`super::Layout::range_table`], where it is quantized.
    pub entry: Option<u32>,
}

/// Training pictures on the device, in two parts: on many devices 50,000 of CIFAR's are more than one binding may hold.
#[derive(Debug, Clone, Copy)]
pub struct Resident {
    /// Raw pictures, u8.
    pub parts: [TensorId; 2],
    /// Pictures of the first part.
    pub first: usize,
    /// Which of them are the batch.
    pub picks: TensorId,
}

/// A float network to learn from, laid out like the one that is trained.
#[derive(Debug, Clone, Copy)]
pub struct Teacher {
    /// Parameters.
    pub params: TensorId,
    /// Running statistics.
    pub running: TensorId,
}
