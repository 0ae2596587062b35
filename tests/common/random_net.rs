//! Quantized networks of random tensors, and what they fold to.

use cqat::config::{Granularity, QuantConfig};
use cqat::integer::{IntegerNet, Multiplier};
use cqat::kernels::input::random;
use cqat::kernels::range::RangeRow;
use cqat::net::{Layer, Net};
use cqat::normalisation::Normalisation;
use cqat::quant::QuantSpec;
use cqat::safetensors_io::{NamedTensor, Tensors};
use cqat::tensors::insert_range;

/// Numbers that depend on the seed and how many were drawn before.
pub struct Random {
    seed: u32,
    drawn: u32,
}

impl Random {
    pub fn new(seed: u32) -> Random {
        Random { seed, drawn: 0 }
    }

    pub fn word(&mut self) -> u32 {
        self.drawn += 1;
        random(self.seed, self.drawn, 0)
    }

    /// Uniform in `low..high`.
    pub fn real(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * (self.word() >> 8) as f32 / (1 << 24) as f32
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.word() >> 24) as u8).collect()
    }
}

/// A quantized network with random tensors.
pub struct Case {
    pub net: Net,
    pub spec: QuantSpec,
    pub tensors: Tensors,
    pub normalisation: Normalisation,
}

pub const NORMALISATION: Normalisation = Normalisation { mean: [0.51, 0.48, 0.44], std: [0.27, 0.25, 0.28] };

impl Case {
    /// Outputs of every convolution have a deviation near 1 and all ranges are 3, so that codes spread over their grid.
    /// Of the batch norms' gammas one in eight is 0 and three in eight are negative.
    pub fn new(depth: usize, size: usize, quant: &QuantConfig, seed: u32) -> Case {
        let net = Net::resnet(depth, 8, 10, size).unwrap();
        let spec = QuantSpec::new(quant, &net).unwrap().unwrap();
        let mut case = Case { net, spec, tensors: Tensors::new(), normalisation: NORMALISATION };
        let mut random = Random::new(seed);
        for id in 0..case.net.layers.len() {
            match case.net.layers[id].clone() {
                Layer::Conv(c) => {
                    case.weights(id, &[c.to.c, c.real_in, c.kernel, c.kernel], &mut random);
                    case.norm(&c.norm, c.to.c, &mut random);
                }
                Layer::Linear(l) => {
                    case.weights(id, &[l.classes, l.features], &mut random);
                    let bias = (0..l.classes).map(|_| random.real(-0.1, 0.1)).collect();
                    case.insert("fc.bias", &[l.classes], bias);
                }
                Layer::Activation(a) => {
                    if let Some(q) = case.spec.layer(id) {
                        let s = q.rule.scale(3.0);
                        let row = RangeRow { range: 3.0, scale: s.scale, inv_scale: s.inv_scale, ..RangeRow::UNIT };
                        insert_range(&mut case.tensors, &a.name, &row);
                    }
                }
                Layer::Input(_) | Layer::Pool(_) => {}
            }
        }
        case
    }

    pub fn insert(&mut self, name: &str, shape: &[usize], data: Vec<f32>) {
        self.tensors.insert(name.into(), NamedTensor { shape: shape.to_vec(), data });
    }

    pub fn weights(&mut self, id: usize, shape: &[usize], random: &mut Random) {
        let name = self.net.layers[id].name().to_string();
        let inputs: usize = shape[1..].iter().product();
        let bound = (3.0 / inputs as f32).sqrt();
        let data: Vec<f32> = (0..shape[0] * inputs).map(|_| random.real(-bound, bound)).collect();
        if let Some(q) = self.spec.layer(id) {
            let top = |row: &[f32]| row.iter().fold(0f32, |m, w| m.max(w.abs()));
            let per_channel = self.spec.config.weights.granularity == Granularity::PerChannel;
            let range = |c: usize| match per_channel {
                true => data.chunks(inputs).nth(c).map_or(0.0, top),
                false => top(&data),
            };
            let scales: Vec<_> = (0..shape[0]).map(|c| q.rule.scale(range(c))).collect();
            self.insert(&format!("quant.{name}.weight.scale"), &shape[..1], scales.iter().map(|s| s.scale).collect());
            let inverse = scales.iter().map(|s| s.inv_scale).collect();
            self.insert(&format!("quant.{name}.weight.inv_scale"), &shape[..1], inverse);
        }
        self.insert(&format!("{name}.weight"), shape, data);
    }

    pub fn norm(&mut self, name: &str, channels: usize, random: &mut Random) {
        let mut part = |what: &str, low, high| {
            let data = (0..channels).map(|_| random.real(low, high)).collect();
            self.insert(&format!("{name}.{what}"), &[channels], data);
        };
        part("bias", -0.3, 1.0);
        part("running_mean", -0.5, 0.5);
        part("running_var", 0.2, 2.0);
        part("weight", 0.4, 1.5);
        let gamma = &mut self.tensors.get_mut(&format!("{name}.weight")).unwrap().data;
        for (k, g) in gamma.iter_mut().enumerate() {
            *g *= [1.0, -1.0, 1.0, 0.0, -1.0, 1.0, 1.0, -1.0][k % 8];
        }
    }

    pub fn fold(&self, multiplier: Multiplier) -> cqat::Result<IntegerNet> {
        IntegerNet::fold(&self.net, &self.spec, &self.tensors, &self.normalisation, multiplier)
    }

    pub fn folded(&self) -> IntegerNet {
        self.folded_with(Multiplier::Bits32)
    }

    pub fn folded_with(&self, multiplier: Multiplier) -> IntegerNet {
        self.fold(multiplier).unwrap_or_else(|e| panic!("{e}\nhint: {}", e.hint_text().unwrap_or("none")))
    }

    pub fn tensor(&self, name: &str) -> &[f32] {
        &self.tensors[name].data
    }
}
