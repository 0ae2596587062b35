//! Comparison with reference dumps: three SGD steps of a small ResNet computed elsewhere in float64.
//!
//! A dump is a safetensors file with `inputs` (N, 3, H, H), `labels`, `init.*` and results: `logits`, `loss`, `act.*`,
//! `scale.*` (of a quantized run), `grad.*`, `bn_after1.*`, `after1.*`, `losses` of three steps, and, of a float run after
//! these, `after3.*` and `eval_logits`. Depth, width, picture size, classes, batch and method are inferred from names and
//! shapes, the straight-through mask from the metadata entry `mask` (`int` without one). `assets/golden/` has such files
//! and the script that makes them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use crate::check::{Check, relative_l2};
use crate::config::{
    ActivationQuantConfig, Estimator, FirstLast, InputQuant, Mask, Method, OptimizerConfig, QuantConfig, RangeSource,
    WeightQuantConfig,
};
use crate::exec::{Executor, ExecutorExt};
use crate::kernels::range::RANGE_WORDS;
use crate::kernels::select::KernelFamily;
use crate::kernels::{Caps, Format, Step};
use crate::net::{DEPTHS, Layer, Net};
use crate::normalisation::Normalisation;
use crate::plan::ProgramId;
use crate::plan::lower::{Lowered, Options, lower};
use crate::quant::QuantSpec;
use crate::safetensors_io::{self, NamedTensor, Tensors};
use crate::session::{load_parameters, upload_constants};
use crate::tensors;
use crate::{Error, ErrorKind, Result};

/// A dump and the network it belongs to.
pub struct Oracle {
    tensors: Tensors,
    net: Net,
    depth: usize,
    quant: Option<QuantSpec>,
    batch: usize,
    mask: Mask,
}

/// Limit of everything but the later losses of a quantized run.
const LIMIT: f64 = 2e-5;
/// Limit of losses 2 and 3 of a quantized run: one element that crosses a rounding edge changes single gradients freely.
const LOSS_LIMIT: f64 = 0.02;

/// What to do about a file that is no dump.
const HINT: &str = "a dump holds inputs, labels, init.* and results of a ResNet that this program builds, with \
    torchvision's names, all in one file; assets/golden/make_golden.py makes such files";

impl Oracle {
    /// Reads a dump.
    ///
    /// # Errors
    /// A data error: a file that cannot be read, or that is no dump of a network that [`Net::resnet`] builds.
    pub fn read(path: &Path) -> Result<Oracle> {
        let file = safetensors_io::read(path, ErrorKind::Data).map_err(|e| e.hint(HINT))?;
        let tensors = file.tensors;
        let fail = |what: String| Error::data(format!("{} is no reference dump: {what}", path.display())).hint(HINT);
        let shape = |name: &str, rank: usize| match tensors.get(name) {
            Some(t) if t.shape.len() == rank => Ok(t.shape.as_slice()),
            Some(t) => Err(fail(format!("tensor {name} has shape {:?}, expected {rank} extents", t.shape))),
            None => Err(fail(format!("it has no tensor {name}"))),
        };
        let (inputs, labels) = (shape("inputs", 4)?, shape("labels", 1)?);
        let (width, classes) = (shape("init.conv1.weight", 4)?[0], shape("init.fc.weight", 2)?[0]);
        let (batch, size) = (inputs[0], inputs[2]);
        if batch == 0 || size == 0 || inputs != [batch, 3, size, size] {
            return Err(fail(format!("inputs has shape {inputs:?}, expected (N, 3, H, H)")));
        }
        if labels != [batch] || tensors["labels"].data.iter().any(|&v| v < 0.0 || v >= classes as f32) {
            return Err(fail(format!("labels has shape {labels:?}, expected {batch} labels below {classes}")));
        }
        let depth = depth_of(&tensors);
        let net = Net::resnet(depth, width, classes, size)
            .map_err(|e| fail(format!("there is no ResNet-{depth} of width {width}")).caused_by(e))?;
        let mask =
            mask_of(&file.metadata).map_err(|other| fail(format!("its mask is `{other}`, expected int or real")))?;
        let quantized = tensors.keys().any(|k| k.starts_with("scale."));
        let quant = if quantized { QuantSpec::new(&oracle_quant(mask), &net)? } else { None };
        Ok(Oracle { net, depth, quant, batch, mask, tensors })
    }

    /// The network and method that were inferred.
    pub fn describe(&self) -> String {
        let width = self.net.convs().next().map_or(0, |(_, c)| c.to.c);
        let (depth, size, classes, batch) = (self.depth, self.net.size, self.net.classes, self.batch);
        let method = match (&self.quant, self.mask) {
            (None, _) => "float",
            (Some(_), Mask::Real) => "cqat W5A4, mask real",
            (Some(_), _) => "cqat W5A4, mask int",
        };
        format!("ResNet-{depth} width {width}, {size}x{size} pictures, {classes} classes, batch {batch}, {method}")
    }

    /// Lowers the network as the dump has it.
    ///
    /// # Errors
    /// As [`lower`].
    pub fn lower(&self, caps: &Caps, family: KernelFamily) -> Result<Lowered> {
        let options = Options {
            family,
            optimizer: OptimizerConfig {
                momentum: 0.9,
                nesterov: false,
                weight_decay: 5e-4,
                clip_norm: None,
                ema_decay: None,
                decay_norms_and_biases: true,
            },
            host_input: true,
            keep_all: true,
            ..Options::new(self.batch, caps.clone())
        };
        lower(&self.net, self.quant.as_ref(), &options)
    }

    /// Runs the steps on an executor of [`Oracle::lower`]'s plan and compares.
    ///
    /// # Errors
    /// A device error, or a dump that lacks a tensor.
    pub fn run(&self, lowered: &Lowered, exec: &mut dyn Executor) -> Result<Vec<Check>> {
        let mut compare = Compare {
            oracle: &self.tensors,
            groups: BTreeMap::new(),
            seen: BTreeSet::new(),
            quantized: self.quant.is_some(),
        };
        let (plan, layout) = (&lowered.plan, &lowered.layout);
        upload_constants(lowered, exec, &Normalisation::NEUTRAL);
        load_parameters(lowered, exec, &self.tensors, "init.")
            .map_err(|e| Error::data(format!("the dump's init.* do not make a network: {e}")).hint(HINT))?;
        let labels: Vec<u32> = self.get("labels")?.data.iter().map(|v| *v as u32).collect();
        exec.write(layout.labels, &labels);
        let input = plan.find("input (host)").expect("the plan was lowered with host input");
        exec.write_as(input, &nhwc4(self.get("inputs")?));
        let programs = lowered.quantized.unwrap_or(lowered.float);
        let mut losses = Vec::new();
        for step in 0..3 {
            let uniform = Step { index: step, valid: self.batch as u32, lr: 0.1, ..Step::default() };
            exec.write_as(layout.step, &[uniform]);
            exec.run(programs.train)?;
            let ring = exec.read_f32(layout.ring)?;
            losses.push(ring[0] / ring[3]);
            if step == 0 {
                self.first_step(lowered, exec, &mut compare, losses[0])?;
            }
        }
        compare.losses(&losses)?;
        if self.quant.is_none() {
            let params = exec.read_f32(layout.params)?;
            compare.all("after3.", &tensors::extract(plan, layout, &params))?;
            let running = exec.read_f32(layout.running)?;
            compare.all("after3.", &tensors::extract_running(plan, layout, &running))?;
            exec.run(programs.weights)?;
            exec.run(programs.evaluate)?;
            compare.one("eval_logits", &self.logits(lowered, exec)?)?;
        }
        self.all_was_compared(&compare.seen)?;
        Ok(compare.groups.into_values().collect())
    }

    /// A result that nothing was compared with would pass unseen.
    fn all_was_compared(&self, seen: &BTreeSet<String>) -> Result<()> {
        let later = |name: &str| name.starts_with("after3.") || name == "eval_logits"; // a rounding edge decides them
        let apart = |name: &str| {
            let input = ["inputs", "labels", "losses"].contains(&name) || name.starts_with("init.");
            input || name.ends_with(".num_batches_tracked") || (self.quant.is_some() && later(name))
        };
        match self.tensors.keys().find(|name| !seen.contains(*name) && !apart(name)) {
            None => Ok(()),
            Some(name) => {
                let what = self.describe();
                Err(Error::data(format!("the dump has a tensor {name}, with which nothing of a {what} compares"))
                    .hint(HINT))
            }
        }
    }

    fn get(&self, name: &str) -> Result<&NamedTensor> {
        self.tensors.get(name).ok_or_else(|| missing(name))
    }

    fn logits(&self, lowered: &Lowered, exec: &mut dyn Executor) -> Result<Vec<f32>> {
        let cols = self.net.linear().1.padded();
        let all = exec.read_f32(lowered.layout.logits)?;
        Ok(all.chunks(cols).flat_map(|row| row[..self.net.classes].to_vec()).collect())
    }

    fn first_step(&self, lowered: &Lowered, exec: &mut dyn Executor, compare: &mut Compare, loss: f32) -> Result<()> {
        let (plan, layout) = (&lowered.plan, &lowered.layout);
        compare.one("logits", &self.logits(lowered, exec)?)?;
        compare.one("loss", &[loss])?;
        let ranges = exec.read_f32(layout.ranges)?;
        let program = if self.quant.is_some() { "train quantized" } else { "train float" };
        for (id, layer) in self.net.layers.iter().enumerate() {
            let Layer::Activation(a) = layer else { continue };
            let row = layout.range_rows[id].expect("an activation has a row of ranges") as usize * RANGE_WORDS;
            let quantized = self.quant.as_ref().is_some_and(|q| q.layer(id).is_some());
            if quantized {
                compare.one(&format!("scale.{}.s_a", a.name), &[ranges[row + 1]])?;
            }
            let name = match a.name.strip_suffix(".relu2") {
                Some(block) => format!("act.{block}"),
                None if a.name == "stem" => "act.stem".to_string(),
                None => continue,
            };
            let words = exec.read(scratch(lowered, program, &format!("{}.value", a.name)))?;
            let (format, scale) = if quantized { (Format::U8, ranges[row + 1]) } else { (Format::F32, 1.0) };
            let values: Vec<f32> = (0..self.batch * a.shape.len()).map(|i| format.load(&words, i) * scale).collect();
            compare.one(&name, &nchw(&values, self.batch, a.shape.pixels(), a.shape.c))?;
        }
        if self.quant.is_some() {
            let scales = exec.read_f32(layout.scales)?;
            for w in &layout.weights {
                compare.one(&format!("scale.{}.s_w", w.name), &[scales[plan.offset(w.scales)]])?;
            }
        }
        self.stem(lowered, exec, compare, program)?;
        let last = self.net.layers[self.net.last_activation()].name();
        let pooled = exec.read_f32(scratch(lowered, program, &format!("{last}.pooled")))?;
        compare.one("act.pool", &pooled)?;
        let grads = exec.read_f32(layout.grads)?;
        compare.all("grad.", &tensors::extract(plan, layout, &grads))?;
        let params = exec.read_f32(layout.params)?;
        compare.all("after1.", &tensors::extract(plan, layout, &params))?;
        let running = exec.read_f32(layout.running)?;
        compare.all("bn_after1.", &tensors::extract_running(plan, layout, &running))
    }

    /// `act.conv1` and `act.bn1` from the convolution's output and the batch norm's context.
    fn stem(&self, lowered: &Lowered, exec: &mut dyn Executor, compare: &mut Compare, program: &str) -> Result<()> {
        let (_, conv) = self.net.convs().next().expect("a network has convolutions");
        let c = conv.to.c;
        let y = exec.read_f32(scratch(lowered, program, "conv1.y"))?;
        let context = exec.read_f32(scratch(lowered, program, "stem.context"))?;
        let scale = match &self.quant {
            Some(_) => exec.read_f32(lowered.layout.weights[0].scales)?[0],
            None => 1.0,
        };
        let values = |f: &dyn Fn(usize, f32) -> f32| {
            let v: Vec<f32> = y.iter().enumerate().map(|(i, v)| f(i % c, *v)).collect();
            nchw(&v, self.batch, conv.to.pixels(), c)
        };
        compare.one("act.conv1", &values(&|_, v| v * scale))?;
        compare.one("act.bn1", &values(&|k, v| v.mul_add(context[k], context[c + k])))
    }
}

fn missing(name: &str) -> Error {
    Error::data(format!("the dump has no tensor {name}")).hint(HINT)
}

/// Depth of the network by the blocks that have weights, see [`DEPTHS`]; 0 where there is none with such.
fn depth_of(tensors: &Tensors) -> usize {
    let has = |stage: usize, block: usize| tensors.contains_key(&format!("init.layer{stage}.{block}.conv1.weight"));
    let blocks = |stage: usize| (0..).take_while(|&block| has(stage, block)).count();
    let stages: Vec<usize> = (1..).map(blocks).take_while(|&blocks| blocks > 0).collect();
    DEPTHS.iter().find(|(_, known)| **known == stages[..]).map_or(0, |(depth, _)| *depth)
}

/// The straight-through mask; the error is what stands there instead.
fn mask_of(metadata: &HashMap<String, String>) -> std::result::Result<Mask, &str> {
    match metadata.get("mask").map_or("int", String::as_str) {
        "int" => Ok(Mask::Int),
        "real" => Ok(Mask::Real),
        other => Err(other),
    }
}

/// The scratch tensor `name` of a program that was lowered with `keep_all`.
fn scratch(lowered: &Lowered, program: &str, name: &str) -> crate::plan::TensorId {
    let found = lowered.plan.programs.iter().position(|p| p.name == program).expect("the program exists");
    lowered.plan.bound(ProgramId(found), name).unwrap_or_else(|| panic!("{program} has no tensor {name}"))
}

/// The quantizers of the dumps: literal ranges of the current batch, no input quantizer.
fn oracle_quant(mask: Mask) -> QuantConfig {
    QuantConfig {
        method: Method::Cqat,
        first_last: FirstLast::Eight,
        input: InputQuant::None,
        weights: WeightQuantConfig {
            range_factor: 1.0,
            scale_with_bits: false,
            mask: Some(mask),
            ..WeightQuantConfig::default()
        },
        activations: ActivationQuantConfig {
            estimator: Some(Estimator::Max),
            range_factor: 1.0,
            scale_with_bits: false,
            source: RangeSource::Batch,
            mask: Some(mask),
            ..ActivationQuantConfig::default()
        },
        ..QuantConfig::default()
    }
}

fn nhwc4(t: &NamedTensor) -> Vec<f32> {
    let [n, c, pixels] = [t.shape[0], t.shape[1], t.shape[2] * t.shape[3]];
    let mut out = vec![0.0; n * pixels * 4];
    for (i, v) in t.data.iter().enumerate() {
        let (image, channel, pixel) = (i / (c * pixels), i / pixels % c, i % pixels);
        out[(image * pixels + pixel) * 4 + channel] = *v;
    }
    out
}

fn nchw(v: &[f32], batch: usize, pixels: usize, channels: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(v.len());
    for n in 0..batch {
        for c in 0..channels {
            out.extend((0..pixels).map(|p| v[(n * pixels + p) * channels + c]));
        }
    }
    out
}

struct Compare<'o> {
    oracle: &'o Tensors,
    groups: BTreeMap<String, Check>,
    /// Names of the tensors that were compared.
    seen: BTreeSet<String>,
    quantized: bool,
}

impl<'o> Compare<'o> {
    fn one(&mut self, name: &str, got: &[f32]) -> Result<()> {
        self.seen.insert(name.into());
        let want = self.expected(name, got.len())?;
        self.note(name.split('.').next().unwrap_or(name), name, relative_l2(got, want), LIMIT);
        Ok(())
    }

    /// The `count` values of a tensor of the dump.
    fn expected(&self, name: &str, count: usize) -> Result<&'o [f32]> {
        let oracle: &'o Tensors = self.oracle;
        let want = oracle.get(name).ok_or_else(|| missing(name))?;
        match want.data.len() == count {
            true => Ok(&want.data),
            false => Err(Error::data(format!("{name} has {} values, expected {count}", want.data.len())).hint(HINT)),
        }
    }

    fn all(&mut self, prefix: &str, got: &Tensors) -> Result<()> {
        got.iter().try_for_each(|(name, t)| self.one(&format!("{prefix}{name}"), &t.data))
    }

    fn losses(&mut self, got: &[f32]) -> Result<()> {
        let want = self.expected("losses", got.len())?;
        // A loss that has fallen to nothing is no measure of its own: a tensor is, as everywhere.
        if self.quantized {
            self.note("losses", "losses[0]", relative_l2(&got[..1], &want[..1]), LIMIT);
            self.note("losses 2 and 3", "losses[1..3]", relative_l2(&got[1..], &want[1..]), LOSS_LIMIT);
        } else {
            self.note("losses", "losses", relative_l2(got, want), LIMIT);
        }
        Ok(())
    }

    fn note(&mut self, group: &str, name: &str, error: f64, limit: f64) {
        let fresh = || Check { name: group.into(), error: 0.0, limit, detail: name.into() };
        let entry = self.groups.entry(group.into()).or_insert_with(fresh);
        if error > entry.error || error.is_nan() {
            (entry.error, entry.detail) = (error, name.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of the groups that fail where the dump has these losses.
    fn failing(want: [f32; 3], got: [f32; 3], quantized: bool) -> Vec<String> {
        let dump = [("losses".to_string(), NamedTensor { shape: vec![3], data: want.to_vec() })].into();
        let mut compare = Compare { oracle: &dump, groups: BTreeMap::new(), seen: BTreeSet::new(), quantized };
        compare.losses(&got).unwrap();
        compare.groups.into_values().filter(|g| !g.passed()).map(|g| g.name).collect()
    }

    #[test]
    fn a_loss_that_has_fallen_to_nothing_is_measured_with_the_others() {
        let want = [2.3658, 0.0525, 0.000358];
        for quantized in [false, true] {
            assert!(failing(want, [2.3658, 0.0525, 0.000359], quantized).is_empty());
            assert_eq!(failing(want, [2.3659, 0.0525, 0.000358], quantized), ["losses"]);
        }
        assert_eq!(failing(want, [2.3658, 0.0526, 0.000358], false), ["losses"]);
        assert_eq!(failing(want, [2.3658, 0.0536, 0.000358], true), ["losses 2 and 3"]);
        assert!(failing(want, [2.3658, 0.0526, 0.000358], true).is_empty());
    }
}
