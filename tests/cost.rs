//! What networks cost, against figures that were worked out elsewhere.

use cqat::config::Config;
use cqat::cost::{Cost, accumulator_bits, bytes_text, energy_text, engineering, integer_mac_pj};
use cqat::net::Net;
use cqat::setup::network;

/// ResNet-18 of width 64 on CIFAR-100 with the preset `cqat` and these changes.
fn resnet18(sets: &[&str]) -> Cost {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    let (net, spec) = network(&Config::load("cqat", &sets).unwrap(), 100).unwrap();
    Cost::of(&net, spec.as_ref())
}

const ALL_EIGHT: [&str; 2] = ["quant.weight_bits=8", "quant.activation_bits=8"];

/// 555.47 M multiply-accumulates and 11.21 M weights: 568.8 G bit operations in float, 35.6 G at 8 x 8 bits, 11.19 G at 5 x 4
/// with 8-bit first and last layers.
#[test]
fn bit_operations_and_weight_memory_of_resnet18() {
    let (float, w8a8, w5a4) = (resnet18(&["quant.method=none"]), resnet18(&ALL_EIGHT), resnet18(&[]));
    assert_eq!(float.macs, 555_468_800);
    assert_eq!(float.bops, 555_468_800 * 1024);
    assert_eq!(w8a8.bops, 555_468_800 * 64);
    // conv1: 32 * 32 * 27 * 64; fc: 512 * 100.
    let edges = 32 * 32 * 27 * 64 + 512 * 100;
    assert_eq!(w5a4.bops, (555_468_800 - edges) * 20 + edges * 64);
    assert_eq!([&float, &w8a8, &w5a4].map(|c| engineering(c.bops as f64)), ["569 G", "35.6 G", "11.2 G"]);
    assert!((w5a4.bops as f64 / 1e9 - 11.19).abs() < 0.005);
    assert_eq!([&float, &w5a4].map(|c| bytes_text(c.weight_memory_bits)), ["44.8 MB", "7.03 MB"]);
    assert_eq!(float.layers.iter().map(|l| l.weights).sum::<u64>(), 11_210_432);
}

/// One picture: the largest tensor is 32 x 32 x 64, of 4 bits each.
#[test]
fn activation_memory_is_that_of_tensors_between_layers() {
    let (float, w5a4) = (resnet18(&["quant.method=none"]), resnet18(&[]));
    assert_eq!((float.largest_activation_bits, w5a4.largest_activation_bits), (65_536 * 32, 65_536 * 4));
    // The picture, five activations of the first stage, and four of each other; the last one has 8 bits.
    let stages = 5 * 65_536 + 4 * (32_768 + 16_384 + 8_192);
    assert_eq!(float.activation_memory_bits, (3 * 1024 + stages) * 32);
    assert_eq!(w5a4.activation_memory_bits, 3 * 1024 * 8 + (stages - 8_192) * 4 + 8_192 * 8);
}

/// `ceil(log2(K |w| a + 1)) + 1`: 22 bits for K = 4608 at W5A4, 21 with symmetric codes.
#[test]
fn accumulators_hold_the_largest_sum() {
    assert_eq!((accumulator_bits(4608, 16, 15), accumulator_bits(4608, 15, 15)), (22, 21));
    assert_eq!([0, 1, 2, 3, 4].map(|n| accumulator_bits(n, 1, 1)), [1, 2, 3, 3, 4]);
    let of = |cost: &Cost, name: &str| cost.layers.iter().find(|l| l.name == name).unwrap().accumulator_bits;
    let w5a4 = resnet18(&[]);
    assert_eq!(of(&w5a4, "layer4.1.conv2"), Some(22));
    assert_eq!(of(&w5a4, "conv1"), Some(accumulator_bits(27, 127, 127)));
    // The classifier multiplies sums of 4 x 4 codes.
    assert_eq!(of(&w5a4, "fc"), Some(accumulator_bits(512, 127, 16 * 255)));
    assert_eq!(w5a4.accumulator_bits, of(&w5a4, "fc"));
    let float = resnet18(&["quant.method=none"]);
    assert_eq!((float.accumulator_bits, of(&float, "fc")), (None, None));
    // A picture in float leaves the first layer without integers.
    let float_input = resnet18(&["quant.input=none"]);
    assert_eq!(
        (of(&float_input, "conv1"), of(&float_input, "layer1.0.conv1")),
        (None, Some(of(&w5a4, "layer1.0.conv1").unwrap()))
    );
}

/// Horowitz 2014, 45 nm: an 8-bit multiplication 0.2 pJ, a 32-bit one 3.1; a 32-bit addition 0.1; f32: 3.7 + 0.9.
#[test]
fn the_energy_model_meets_its_constants() {
    assert!((integer_mac_pj(8, 8, 32) - (0.2 + 0.1)).abs() < 0.001);
    assert!((integer_mac_pj(32, 32, 32) - (3.1 + 0.1)).abs() < 0.01);
    let float = resnet18(&["quant.method=none"]);
    assert!((float.energy_pj - 555_468_800.0 * 4.6).abs() < 1.0);
    assert_eq!(energy_text(float.energy_pj), "2.56 mJ");
    let (w8a8, w5a4) = (resnet18(&ALL_EIGHT), resnet18(&[]));
    assert!(w5a4.energy_pj < w8a8.energy_pj && w8a8.energy_pj < float.energy_pj / 10.0);
}

#[test]
fn a_single_layer_in_more_bits_costs_its_own_share() {
    let net = Net::resnet(8, 8, 10, 32).unwrap();
    let cost = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        let spec = cqat::quant::QuantSpec::new(&Config::load("cqat", &sets).unwrap().quant, &net).unwrap();
        Cost::of(&net, spec.as_ref())
    };
    let (base, wider) = (cost(&[]), cost(&["quant.layers={layer1.0.conv1: {weight_bits: 7}}"]));
    let macs = 32 * 32 * 9 * 8 * 8;
    assert_eq!(wider.bops - base.bops, macs * 2 * 4);
    assert_eq!(wider.weight_memory_bits - base.weight_memory_bits, 9 * 8 * 8 * 2);
}

#[test]
fn numbers_are_rounded_to_three_digits() {
    assert_eq!(
        [0.0, 7.0, 999.0, 1234.0, 12_345.0, 5.688e11].map(engineering),
        ["0", "7.00", "999", "1.23 k", "12.3 k", "569 G"]
    );
    assert_eq!((bytes_text(8 * 999), bytes_text(8 * 7_026_000)), ("999 B".into(), "7.03 MB".into()));
}
