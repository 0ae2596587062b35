//! The state of a network as torch has it: tensors by torchvision's names in one safetensors file, and what quantizers need under `quant.`.

use std::collections::BTreeSet;

use bytemuck::NoUninit;
use safetensors::tensor::{Dtype, SafeTensorError, TensorView};
use serde_json::{Value, json};

use super::Files;
use super::factors::{Units, base_scale, single, values};
use crate::evaluate::Loaded;
use crate::integer::{
    IntegerConv, IntegerInput, IntegerLayer, IntegerLinear, IntegerShortcut, IntegerWeights, Requantize, Window,
};
use crate::kernels::norm::{EPS, pow2_factor};
use crate::model::Model;
use crate::net::{Conv, Layer};
use crate::quant::Quantizer;
use crate::safetensors_io::{Tensors, expect};
use crate::{Error, Result, setup, tensors};

/// Key of the metadata.
const KEY: &str = "cqat_export";

/// Types of elements.
trait Element: NoUninit {
    const TYPE: Dtype;
}

impl Element for f32 {
    const TYPE: Dtype = Dtype::F32;
}
impl Element for i8 {
    const TYPE: Dtype = Dtype::I8;
}
impl Element for i32 {
    const TYPE: Dtype = Dtype::I32;
}
impl Element for i64 {
    const TYPE: Dtype = Dtype::I64;
}

/// Tensors in the order in which they were added.
#[derive(Default)]
struct State(Vec<(String, Dtype, Vec<usize>, Vec<u8>)>);

impl State {
    fn insert<T: Element>(&mut self, name: impl Into<String>, shape: &[usize], data: &[T]) {
        self.0.push((name.into(), T::TYPE, shape.to_vec(), bytemuck::cast_slice(data).to_vec()));
    }

    fn files(&self, metadata: &Value) -> Result<Files> {
        let bug = |e: SafeTensorError| {
            Error::training("the tensors cannot be encoded").hint("report this as a bug").caused_by(e)
        };
        let mut names = BTreeSet::new();
        if let Some((twice, ..)) = self.0.iter().find(|(name, ..)| !names.insert(name)) {
            return Err(Error::training(format!("two tensors are called {twice}, by torchvision's rules for names"))
                .hint("name convolutions as torchvision does, such as layer1.0.conv1 and layer2.0.downsample.0"));
        }
        let mut views = Vec::new();
        for (name, dtype, shape, bytes) in &self.0 {
            views.push((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).map_err(bug)?));
        }
        // Some readers want to know for which framework the tensors are.
        let metadata = [("format".to_string(), "pt".to_string()), (KEY.to_string(), metadata.to_string())];
        let bytes = safetensors::serialize(views, Some(metadata.into())).map_err(bug)?;
        let mut files = Files::default();
        files.insert("model.safetensors", bytes);
        Ok(files)
    }

    /// Codes of weights and their scales, one a row.
    fn weights(&mut self, name: &str, shape: &[usize], codes: &[i8], scales: &[f32]) -> Result<()> {
        scales.iter().try_for_each(|scale| single(name, f64::from(*scale)).map(|_| ()))?;
        self.insert(format!("quant.{name}.weight.codes"), shape, codes);
        self.insert(format!("quant.{name}.weight.scale"), &shape[..1], scales);
        Ok(())
    }

    /// The value of an activation's code, and how a base code becomes one.
    fn activation(&mut self, name: &str, scale: f32, window: &Window) -> Result<()> {
        let Window { base_lo, base_hi, shift, round, lo, hi } = *window;
        // Readers divide by the value of a base code.
        single(name, base_scale(scale, window))?;
        self.insert(format!("quant.{name}.scale"), &[1], &[scale]);
        let window = [base_lo, base_hi, shift as i32, round.into(), lo, hi];
        self.insert(format!("quant.{name}.window"), &[6], &window);
        Ok(())
    }

    fn input(&mut self, input: &IntegerInput) {
        self.insert("quant.input.codes", &[3, 256], input.codes.as_flattened());
        self.insert("quant.input.scale", &[1], &[input.scale]);
    }
}

/// Of a run: the float network, and the codes and scales of a quantized one.
///
/// # Errors
/// A checkpoint that lacks what its configuration needs.
pub(super) fn of_run(loaded: &Loaded) -> Result<Files> {
    let (all, meta) = (&loaded.checkpoint.tensors, &loaded.checkpoint.meta);
    let mut state = State::default();
    for (name, t) in all.iter().filter(|(name, _)| !tensors::is_training_state(name)) {
        state.insert(name, &t.shape, &t.data);
        if let Some(norm) = name.strip_suffix(".running_var") {
            state.insert(format!("{norm}.num_batches_tracked"), &[], &[meta.position.global_step as i64]);
        }
    }
    if loaded.quantized() {
        quantizers(loaded, &mut state)?;
    }
    state.files(&json!({
        "kind": "run",
        "program": meta.program,
        "config": meta.config,
        "data_sha256": meta.data_sha256,
        "classes": loaded.class_names(),
        "normalisation": meta.normalisation,
    }))
}

/// The codes and scales of every layer that has a quantizer.
fn quantizers(loaded: &Loaded, state: &mut State) -> Result<()> {
    let (net, spec) = setup::network(&loaded.config, loaded.class_names().len())?;
    let Some(spec) = spec else { return Ok(()) };
    let (all, normalisation) = (&loaded.checkpoint.tensors, &loaded.checkpoint.meta.normalisation);
    if let Some(input) = &spec.input {
        let scale = input.rule.scale(normalisation.range()).scale;
        state.input(&IntegerInput::new(normalisation.codes(input), scale));
    }
    for (id, layer) in net.layers.iter().enumerate() {
        if let Layer::Conv(c) = layer
            && spec.config.pow2_norm
        {
            state.insert(format!("quant.{}.factor", c.norm), &[c.to.c], &pow2_factors(all, c)?);
        }
        let Some(Quantizer { quant, .. }) = spec.layer(id) else { continue };
        let name = layer.name();
        let shape = match layer {
            Layer::Conv(c) => vec![c.to.c, c.real_in, c.kernel, c.kernel],
            Layer::Linear(l) => vec![l.classes, l.features],
            Layer::Activation(_) => {
                let row = tensors::range(all, name, quant)?;
                state.activation(name, row.scale, &Window::of(&row.offset(quant)))?;
                continue;
            }
            Layer::Input(_) | Layer::Pool(_) => continue,
        };
        let weights = expect(all, &format!("{name}.weight"), &shape)?;
        let [scales, inverse] = tensors::weight_scales(all, "", name, shape[0])?;
        state.weights(name, &shape, &tensors::weight_codes(weights, inverse, quant), scales)?;
    }
    Ok(())
}

/// What the quantized network has in the place of the factors `gamma / sqrt(var + eps)` behind a convolution: powers of two.
fn pow2_factors(all: &Tensors, conv: &Conv) -> Result<Vec<f32>> {
    let part = |part: &str| expect(all, &format!("{}.{part}", conv.norm), &[conv.to.c]);
    let rows = part("weight")?.iter().zip(part("running_var")?);
    let factor = |(gamma, variance): (&f32, &f32)| pow2_factor(*gamma, *variance);
    rows.map(factor).map(|factor| single(&conv.norm, f64::from(factor))).collect()
}

/// Of a model: weights are codes times scales, batch norms the factors and biases of the requantizations, and these beside them.
///
/// # Errors
/// Factors that 32-bit floating point does not hold.
pub(super) fn of_model(model: &Model) -> Result<Files> {
    let net = &model.net;
    let mut state = State::default();
    state.input(&net.input);
    let mut scales = vec![net.input.scale];
    for layer in &net.layers {
        state.layer(layer, &scales)?;
        scales.push(layer.scale);
    }
    state.linear(&net.classifier)?;
    state.files(&json!({
        "kind": "model",
        "program": model.source.program,
        "config": model.source.config,
        "data_sha256": model.source.data_sha256,
        "classes": model.class_names,
        "normalisation": model.normalisation,
        "fraction_bits": net.classifier.fraction_bits,
    }))
}

impl State {
    /// A layer that reads values of which codes are worth `scales`.
    fn layer(&mut self, layer: &IntegerLayer, scales: &[f32]) -> Result<()> {
        let units = Units::of_layer(layer)?;
        self.conv(&layer.conv, scales, &units.main, &units.bias)?;
        self.requantization(&layer.conv.name, &layer.channels);
        let factors: Vec<i32> = layer.channels.iter().map(|k| k.shortcut).collect();
        match &layer.shortcut {
            IntegerShortcut::None => {}
            IntegerShortcut::Identity(_) => {
                self.insert(format!("quant.{}.shortcut", layer.conv.name), &[factors.len()], &factors);
            }
            IntegerShortcut::Projection(conv) => {
                // The bias of the sum is that of the main branch.
                self.conv(conv, scales, &units.shortcut, &vec![0.0; conv.to.c])?;
                self.insert(format!("quant.{}.mul", conv.name), &[factors.len()], &factors);
            }
        }
        self.activation(&layer.name, layer.scale, &layer.window)
    }

    /// A convolution whose accumulators are worth `units`, and the batch norm that says so.
    fn conv(&mut self, conv: &IntegerConv, scales: &[f32], units: &[f64], bias: &[f32]) -> Result<()> {
        let shape = [conv.to.c, conv.real_in, conv.kernel, conv.kernel];
        self.real_weights(&conv.name, &shape, &conv.weights)?;
        let input = f64::from(scales[conv.input]);
        let factor = |(unit, scale): (&f64, &f32)| single(&conv.name, unit / (f64::from(*scale) * input));
        let factors = units.iter().zip(&conv.weights.scales).map(factor).collect::<Result<Vec<f32>>>()?;
        let (norm, count) = (norm_of(&conv.name), factors.len());
        self.insert(format!("{norm}.weight"), &[count], &factors);
        self.insert(format!("{norm}.bias"), &[count], bias);
        self.insert(format!("{norm}.running_mean"), &[count], &vec![0f32; count]);
        // Its square root is 1 once the epsilon is added.
        self.insert(format!("{norm}.running_var"), &[count], &vec![1.0 - EPS; count]);
        self.insert(format!("{norm}.num_batches_tracked"), &[], &[0i64]);
        Ok(())
    }

    fn linear(&mut self, linear: &IntegerLinear) -> Result<()> {
        self.real_weights(&linear.name, &[linear.classes, linear.features], &linear.weights)?;
        self.insert(format!("{}.bias", linear.name), &[linear.classes], &Units::of_linear(linear)?.bias);
        self.requantization(&linear.name, &linear.channels);
        Ok(())
    }

    fn real_weights(&mut self, name: &str, shape: &[usize], weights: &IntegerWeights) -> Result<()> {
        self.insert(format!("{name}.weight"), shape, &values(&weights.codes, &weights.scales));
        self.weights(name, shape, &weights.codes, &weights.scales)
    }

    fn requantization(&mut self, name: &str, channels: &[Requantize]) {
        let of = |f: fn(&Requantize) -> i32| channels.iter().map(f).collect::<Vec<i32>>();
        let shape = [channels.len()];
        self.insert(format!("quant.{name}.mul"), &shape, &of(|k| k.multiplier));
        self.insert(format!("quant.{name}.shift"), &shape, &of(|k| k.shift as i32));
        let bias: Vec<i64> = channels.iter().map(|k| k.offset).collect();
        self.insert(format!("quant.{name}.bias"), &shape, &bias);
    }
}

/// The batch norm behind a convolution, in torchvision's names.
fn norm_of(conv: &str) -> String {
    match conv.strip_suffix("downsample.0") {
        Some(block) => format!("{block}downsample.1"),
        None => conv.replace("conv", "bn"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Net;

    #[test]
    fn batch_norms_have_the_names_of_the_network() {
        let net = Net::resnet(10, 8, 10, 32).unwrap();
        for (_, conv) in net.convs() {
            assert_eq!(norm_of(&conv.name), conv.norm);
        }
    }
}
