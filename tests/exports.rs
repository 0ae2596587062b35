//! Exports, each opened by the tool that it is for. Tests of tools that a plain machine lacks are ignored: `make test-exports` installs
//! them and runs these.

#[path = "exports/c.rs"]
mod c;
mod common;
#[path = "exports/folders.rs"]
mod folders;
#[path = "exports/hex.rs"]
mod hex;
#[path = "exports/python.rs"]
mod python;
#[path = "exports/state.rs"]
mod state;
#[path = "exports/verilog.rs"]
mod verilog;

use std::path::Path;
use std::process::Command;

use common::random_net::{Case, NORMALISATION, Random};
use cqat::config::{Granularity, Method, QuantConfig, Reduce};
use cqat::export::{Files, Format, Golden};
use cqat::integer::{IntegerNet, Multiplier};
use cqat::model::{Model, Source};

/// The model of a network.
fn model(net: IntegerNet) -> Model {
    let class_names = (0..net.classifier.classes).map(|c| format!("class {c}")).collect();
    let source = Source { program: "1".into(), run: "r".into(), config: "{}".into(), data_sha256: "d".into() };
    Model { net, class_names, normalisation: NORMALISATION, source }
}

/// Networks that differ in what exports have to express: odd pictures, scales per channel, windows that drop bits, odd codes, all
/// widths of codes. Depth 8 has projections, depth 10 has identity shortcuts too.
fn networks() -> Vec<(&'static str, IntegerNet)> {
    let bits = |weight_bits, activation_bits| QuantConfig { weight_bits, activation_bits, ..QuantConfig::default() };
    let mut per_channel = bits(3, 2);
    per_channel.weights.granularity = Granularity::PerChannel;
    let dropped = QuantConfig { reduce: Reduce::DropLsbRound, ..QuantConfig::default() };
    let odd = QuantConfig { method: Method::Ewgs, ..QuantConfig::default() };
    vec![
        ("W5A4", Case::new(10, 8, &QuantConfig::default(), 1).folded()),
        ("W3A2 per channel, pictures of side 9", Case::new(8, 9, &per_channel, 2).folded()),
        ("W8A8", Case::new(8, 8, &bits(8, 8), 3).folded()),
        ("low bits dropped", Case::new(8, 8, &dropped, 4).folded()),
        ("odd codes", Case::new(10, 8, &odd, 5).folded()),
        ("shifts", shifts()),
    ]
}

/// A network whose factors are powers of two.
fn shifts() -> IntegerNet {
    let mut quant = QuantConfig { pow2_norm: true, ..QuantConfig::default() };
    (quant.weights.pow2, quant.activations.pow2) = (true, true);
    Case::new(10, 8, &quant, 6).folded_with(Multiplier::Shift)
}

/// Its golden vectors on three pictures of noise.
fn golden(net: &IntegerNet) -> Golden {
    let images = Random::new(7).bytes(3 * net.picture_bytes());
    let trace = net.run_layers(&images).unwrap();
    Golden { names: ["a", "b", "c"].map(String::from).to_vec(), images, trace }
}

/// Its files in a format.
fn files(net: &IntegerNet, format: Format) -> Files {
    cqat::export::model(&model(net.clone()), &golden(net), format).unwrap_or_else(|e| panic!("{e}"))
}

/// Runs a program in a folder: whether it succeeded, and what it printed.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    // A make that runs these tests would tell those that they run to say more.
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL"] {
        command.env_remove(variable);
    }
    let output = command.output();
    let output = output.unwrap_or_else(|e| panic!("{program} cannot be started ({e}): is it installed?"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Inverts one bit of a file, and writes the folder's hashes anew if wished.
fn flip(folder: &Path, file: &str, byte: usize, bit: u8, hashes_too: bool) {
    let path = folder.join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[byte] ^= 1 << bit;
    std::fs::write(&path, bytes).unwrap();
    if hashes_too {
        let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
        let names: Vec<&str> = sums.lines().map(|line| line.split_once("  ").unwrap().1).collect();
        let (ok, sums) = run(folder, "sha256sum", &names);
        assert!(ok);
        std::fs::write(folder.join("SHA256SUMS"), sums).unwrap();
    }
}
