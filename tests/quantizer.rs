//! The quantizer against PyTorch's: codes, values and straight-through masks of one vector with ties and clip edges.
//!
//! `fakequant_unit.safetensors` is made by `assets/golden/make_golden.py`. Every x / s in it is exact, so the comparison
//! is with `==`.

use std::path::Path;

use cqat::ErrorKind;
use cqat::config::{ActivationQuantConfig, Mask, QuantConfig, WeightQuantConfig};
use cqat::net::{Layer, Net};
use cqat::quant::{QuantSpec, Quantizer};
use cqat::safetensors_io;
use cqat::safetensors_io::Tensors;

fn vector() -> Tensors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/golden/fakequant_unit.safetensors");
    safetensors_io::read(&path, ErrorKind::Data).unwrap().tensors
}

/// The quantizer of one layer of a ResNet-8 with literal ranges.
fn quantizer(layer: &str, mask: Mask) -> Quantizer {
    let config = QuantConfig {
        weights: WeightQuantConfig {
            range_factor: 1.0,
            scale_with_bits: false,
            mask: Some(mask),
            ..Default::default()
        },
        activations: ActivationQuantConfig {
            range_factor: 1.0,
            scale_with_bits: false,
            mask: Some(mask),
            ..Default::default()
        },
        ..QuantConfig::default()
    };
    let net = Net::resnet(8, 8, 10, 8).unwrap();
    let id = net.layers.iter().position(|l: &Layer| l.name() == layer).unwrap();
    *QuantSpec::new(&config, &net).unwrap().unwrap().layer(id).unwrap()
}

/// Name in the file, a layer that has this quantizer, lowest and highest code.
const QUANTIZERS: [(&str, &str, i32, i32); 4] = [
    ("w5", "layer1.0.conv1", -16, 15),
    ("a4", "layer1.0.relu1", 0, 15),
    ("w8", "conv1", -127, 127),
    ("a8", "layer3.0.relu2", 0, 255),
];

#[test]
fn values_equal_pytorchs() {
    let t = vector();
    for (name, layer, lo, hi) in QUANTIZERS {
        let q = quantizer(layer, Mask::Int);
        assert_eq!((q.quant.lo, q.quant.hi), (lo, hi), "{name}");
        let s = q.rule.scale(t["scale"].data[0] * q.rule.levels);
        assert_eq!((s.scale, s.inv_scale), (0.0625, 16.0), "{name}");
        for (x, y) in t["x"].data.iter().zip(&t[&format!("{name}.y")].data) {
            let code = q.quant.code(*x, s.inv_scale);
            assert_eq!(code as f32 * s.scale, *y, "{name} of {x}, code {code}");
        }
    }
}

#[test]
fn straight_through_gradients_equal_pytorchs() {
    let t = vector();
    for (mask, suffix) in [(Mask::Int, "dx_int"), (Mask::Real, "dx_real")] {
        for (name, layer, _, _) in QUANTIZERS {
            let q = quantizer(layer, mask).quant;
            let want = &t[&format!("{name}.{suffix}")].data;
            for ((x, dy), want) in t["x"].data.iter().zip(&t["dy"].data).zip(want) {
                let dx = if q.passes(*x, 16.0) { *dy } else { 0.0 };
                assert_eq!(dx, *want, "{name}.{suffix} at x / s = {}", x * 16.0);
            }
        }
    }
}

#[test]
fn the_vector_tells_the_masks_apart() {
    let t = vector();
    for (name, ..) in QUANTIZERS {
        let [int, real] = ["dx_int", "dx_real"].map(|m| &t[&format!("{name}.{m}")].data);
        assert_ne!(int, real, "{name}");
    }
}
