//! Which real numbers are multiplied on matrix units, and the maxima that this needs ([`crate::kernels::maxima`]).

use std::ops::Range;

use super::{Mode, Pass, Value};
use crate::config::Precision;
use crate::kernels::maxima::{CLEAR, ClearParams};
use crate::kernels::select::KernelFamily;
use crate::kernels::{Format, flat_grid};
use crate::net::{Layer, LayerId};

impl Pass<'_> {
    /// Terms of f16 that real operands have on matrix units, in this pass and direction; 0: they are not multiplied there.
    ///
    /// In a quantized network the gradients are the only real operands of note: two terms of them, times codes, err no more than f32 does.
    pub(super) fn terms(&self, backward: bool) -> u32 {
        // A teacher's weights have no maxima of their own.
        let none =
            self.options.caps.matrix == 0 || self.options.family != KernelFamily::Tiled || self.mode == Mode::Teach;
        if none {
            return 0;
        }
        match self.options.precision {
            Precision::F32 if self.quant.is_some() && backward => 2,
            Precision::F32 => 0,
            Precision::F16x3 => 2,
            Precision::F16 => 1,
        }
    }

    /// Whether the pass keeps the maxima of real operands.
    pub(super) fn keeps_maxima(&self) -> bool {
        self.terms(false) > 0 || (self.mode == Mode::Train && self.terms(true) > 0)
    }

    /// Whether it keeps those of values and of weights: codes have none. Gradients' begin anew in `norm_bwd_merge`.
    pub(super) fn keeps_maxima_of(&self, layer: LayerId) -> bool {
        self.keeps_maxima() && self.quantizer(layer).is_none()
    }

    /// Forgets the maxima of some rows of values and weights, where any are kept.
    pub(super) fn clear_maxima(&mut self, rows: Range<u32>) {
        let real = |(id, layer): (LayerId, &Layer)| {
            !matches!(layer, Layer::Input(_) | Layer::Pool(_)) && self.keeps_maxima_of(id)
        };
        if self.net.layers.iter().enumerate().any(real) {
            let params = ClearParams { first: rows.start, count: rows.len() as u32, pad: [0; 2] };
            self.emit_only(&CLEAR, &params, &[self.layout.maxima], flat_grid(rows.len()));
        }
    }

    /// Whether a convolution's input can be lifted: the maxima of the network's input and of pooled values are not kept.
    pub(super) fn has_maximum(&self, input: Value) -> bool {
        input.format != Format::F32 || matches!(self.net.layers[input.layer], Layer::Activation(_))
    }
}
