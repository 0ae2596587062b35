//! The classifier's end: logits, the loss and its gradient, and the network to learn from.

use super::{Mode, Pass};
use crate::kernels::head::{DISTILL, DistillParams, SOFTMAX_CE, SoftmaxParams};
use crate::net::{LayerId, Linear};
use crate::plan::TensorId;
use crate::plan::layout::{Layout, Teacher};

impl Pass<'_> {
    /// Emits the classifier and the loss, and returns the gradient of the logits; of a teacher the logits.
    pub(super) fn linear(&mut self, id: LayerId, l: &Linear) -> TensorId {
        let (g, input, layout) = (self.geometry(id), self.value(l.input), self.layout);
        let (choice, params) = self.forward_product(id, &g, input);
        self.emit_conv(id, choice, &params, [input.tensor, layout.codes, layout.logits], &[], g.flops());
        if self.mode == Mode::Teach {
            return layout.logits;
        }
        let dlogits = self.scratch("dlogits", g.batch * l.padded());
        let params = SoftmaxParams {
            batch: g.batch as u32,
            classes: l.classes as u32,
            cols4: l.padded() as u32 / 4,
            w_scale: u32::from(self.quantizer(id).is_some()),
            smoothing: if self.mode == Mode::Train { self.options.smoothing } else { 0.0 },
            samples4: self.plan.offset(layout.samples) as u32 / 4,
            backward: u32::from(self.mode == Mode::Train),
            pad: 0,
        };
        let scales = layout.weights_of(id).1.scales;
        let (bias, bias_grad) = layout.bias;
        let bind = [layout.logits, scales, bias, layout.labels, layout.step, dlogits, layout.scores, bias_grad];
        self.emit_only(&SOFTMAX_CE, &params, &bind, [1, 1, 1]);
        if let (Some(taught), Some(teacher)) = (self.taught, layout.teacher) {
            let params = DistillParams {
                batch: params.batch,
                classes: params.classes,
                cols4: params.cols4,
                w_scale: params.w_scale,
                weight: self.options.distill.weight,
                temperature: self.options.distill.temperature,
                bias4: self.plan.offset(bias) as u32 / 4,
                pad: 0,
            };
            let bind = [layout.logits, taught, teacher.params, scales, layout.step, dlogits, bias_grad];
            self.emit_only(&DISTILL, &params, &bind, [1, 1, 1]);
            self.leave_out(self.plan.tensor(teacher.params).words - l.padded());
        }
        dlogits
    }

    /// The teacher's forward pass, in float, on the pictures of the step.
    pub(super) fn teach(&mut self, teacher: Teacher) {
        let logits = self.plan.scratch("teacher logits", self.plan.tensor(self.layout.logits).words);
        let (params, running) = (teacher.params, teacher.running);
        let layout = Layout { params, codes: params, running, logits, ..self.layout.clone() };
        let mut pass = Pass::new(self.net, None, None, self.options, self.plan, &layout, Mode::Teach);
        self.taught = Some(pass.forward());
        self.list.append(&mut pass.list);
    }
}
