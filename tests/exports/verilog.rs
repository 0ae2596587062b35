//! The Verilog layer in the tools that simulate, check and synthesize it.

use std::path::{Path, PathBuf};

use cqat::config::QuantConfig;
use cqat::export::Format;
use cqat::integer::{Accumulator, IntegerNet, Multiplier};
use tempfile::TempDir;

use super::common::random_net::Case;
use super::{files, flip, golden, model, networks, run, shifts};

fn folder(net: &IntegerNet) -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("v");
    files(net, Format::Verilog).write(&folder).unwrap();
    (place, folder)
}

/// ResNet-8 of width 8, W5A4 of the default method.
fn small() -> IntegerNet {
    Case::new(8, 8, &QuantConfig::default(), 1).folded()
}

fn narrow_multipliers() -> IntegerNet {
    Case::new(8, 8, &QuantConfig::default(), 6).folded_with(Multiplier::Bits16)
}

#[test]
fn accumulators_that_the_layer_does_not_have_are_refused() {
    let mut net = small();
    net.accumulator = Accumulator { bits: 12, saturates: true };
    let error = cqat::export::model(&model(net.clone()), &golden(&net), Format::Verilog).unwrap_err();
    assert!(error.to_string().contains("accumulators have 12 bits, expected 32"), "{error}");
    files(&net, Format::Hex);
}

#[test]
#[ignore = "needs iverilog: make test-exports"]
fn every_code_and_accumulator_is_equal() {
    for (name, net) in networks().into_iter().chain([("16-bit multipliers", narrow_multipliers())]) {
        let (_place, folder) = folder(&net);
        let (ok, text) = run(&folder, "make", &["check", "PICTURES=0 1 2"]);
        assert!(ok, "{name}: {text}");
        for layer in &net.layers {
            let all = layer.shape.len();
            for picture in 0..3 {
                let line = format!(
                    "{}: {all} of {all} codes equal, {all} of {all} accumulators, picture {picture}\n",
                    layer.name
                );
                assert!(text.contains(&line), "{name}: expected {line}{text}");
            }
        }
        let all = 3 * net.layers.iter().map(|l| l.shape.len()).sum::<usize>();
        assert!(text.contains(&format!("total: {all} of {all} codes equal\n")), "{name}: {text}");
    }
}

#[test]
#[ignore = "needs verilator: make test-exports"]
fn verilator_simulates_the_same() {
    let (_place, folder) = folder(&small());
    let (ok, text) = run(&folder, "make", &["check", "SIM=verilator", "PICTURES=0", "LAYERS=layer2.0.relu2"]);
    assert!(ok && text.contains("total: 256 of 256 codes equal"), "{text}");
    flip_digit(&folder, "hex/golden/0/layer2.0.relu2.hex", true);
    let (ok, text) = run(&folder, "make", &["check", "SIM=verilator", "PICTURES=0", "LAYERS=layer2.0.relu2"]);
    assert!(!ok && text.contains("total: 255 of 256 codes equal"), "{text}");
}

#[test]
#[ignore = "needs verilator and iverilog: make test-exports"]
fn no_tool_warns() {
    for (name, net) in networks() {
        let (_place, folder) = folder(&net);
        let (ok, text) = run(&folder, "make", &["lint"]);
        let want: String = net.layers.iter().map(|layer| format!("{}: no warnings\n", layer.name)).collect();
        assert!(ok && text == want, "{name}: {text}");
    }
}

/// The rows of `make area`: cells at the network's bits and at 8x8, and their ratio.
fn area(net: &IntegerNet) -> [[f64; 3]; 3] {
    let (_place, folder) = folder(net);
    let (ok, text) = run(&folder, "make", &["area"]);
    assert!(ok && text.contains("W5A4     W8A8  ratio"), "{text}");
    ["multiply, accumulate", "requantize, clip", "datapath"].map(|row| {
        let numbers = text.lines().find_map(|line| line.strip_prefix(row)).unwrap_or_else(|| panic!("{row}: {text}"));
        let numbers: Vec<f64> = numbers.split_whitespace().map(|n| n.parse().unwrap()).collect();
        numbers.try_into().unwrap_or_else(|_| panic!("{text}"))
    })
}

#[test]
#[ignore = "needs yosys: make test-exports"]
fn narrow_codes_take_fewer_cells() {
    let cells = area(&small());
    for ([narrow, wide, ratio], at_least) in cells.into_iter().zip([2.0, 1.0, 1.2]) {
        assert!(narrow > 100.0 && wide / narrow > at_least && (wide / narrow - ratio).abs() < 0.01, "{cells:?}");
    }
    let [_, [requantize, ..], _] = area(&shifts());
    assert!(100.0 < requantize && requantize < 0.7 * cells[1][0], "{requantize} {cells:?}");
}

/// Inverts the lowest bit of the first digit that stays one.
fn flip_digit(folder: &Path, file: &str, hashes_too: bool) {
    let text = std::fs::read(folder.join(file)).unwrap();
    let byte = text.iter().position(u8::is_ascii_digit).unwrap();
    flip(folder, file, byte, 0, hashes_too);
}

#[test]
#[ignore = "needs iverilog: make test-exports"]
fn a_flipped_bit_fails() {
    let (_place, folder) = folder(&small());
    let check = || run(&folder, "make", &["check", "PICTURES=0", "LAYERS=layer1.0.relu2 layer2.0.relu2"]);
    let all = 512 + 256;
    assert!(check().1.contains(&format!("total: {all} of {all} codes equal")));
    let manifest = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    for (file, always_counts) in [
        ("layer1.0.conv2.codes", true),
        ("layer1.0.conv2.shift", true),
        ("layer2.0.downsample.0.codes", true),
        ("golden/0/layer1.0.relu1", true),
        ("golden/0/layer1.0.conv2.acc", true),
        ("golden/0/layer2.0.downsample.0.acc", true),
        ("golden/0/layer2.0.relu2", true),
        // One of the 32 or 55 bits of a factor need not change a code.
        ("layer1.0.conv2.mul", false),
        ("layer1.0.conv2.bias", false),
        ("layer1.0.conv2.shortcut", false),
        ("layer2.0.downsample.0.mul", false),
    ] {
        let file = &format!("hex/{file}.hex");
        assert!(manifest.contains(file), "{file}");
        flip_digit(&folder, file, false);
        let (ok, text) = check();
        assert!(!ok && text.contains(&format!("{file}: FAILED")) && !text.contains("equal"), "{file}: {text}");
        flip_digit(&folder, file, false);
        if always_counts {
            flip_digit(&folder, file, true);
            let (ok, text) = check();
            assert!(!ok && text.contains("differs from the golden vectors"), "{file}: {text}");
            flip_digit(&folder, file, true);
        }
    }
    assert!(check().0);
}

/// Simulators go on without what is missing.
#[test]
#[ignore = "needs iverilog and verilator: make test-exports"]
fn what_is_missing_fails() {
    let (_place, folder) = folder(&small());
    let check = |simulator: &str, choice: &str| {
        let simulator = format!("SIM={simulator}");
        run(&folder, "make", &["check", &simulator, "LAYERS=layer3.0.relu1", choice])
    };
    for choice in ["LAYERS=", "PICTURES="] {
        let (ok, text) = check("icarus", choice);
        assert!(!ok && text.contains("nothing would be compared"), "{text}");
    }
    let last_line_lost = || {
        let file = folder.join("hex/golden/0/layer3.0.relu1.hex");
        let text = std::fs::read_to_string(&file).unwrap();
        let cut = text.trim_end().rfind('\n').unwrap();
        std::fs::write(&file, &text[..=cut]).unwrap();
        flip(&folder, "hex/golden/1/input.hex", 0, 0, true);
    };
    for simulator in ["icarus", "verilator"] {
        assert!(check(simulator, "PICTURES=0").0);
        assert!(!check(simulator, "PICTURES=9").0, "{simulator}");
    }
    last_line_lost();
    for simulator in ["icarus", "verilator"] {
        let (ok, text) = check(simulator, "PICTURES=0");
        assert!(!ok && text.contains("total: ") && !text.contains("total: 128 of 128"), "{simulator}: {text}");
    }
}
