//! The C engine: integer for integer equal, and a check that sees differences.

use cqat::export::Format;
use cqat::integer::Accumulator;

use super::{files, flip, networks, run};

#[test]
fn every_integer_is_equal() {
    for (name, net) in networks() {
        let place = tempfile::tempdir().unwrap();
        files(&net, Format::C).write(&place.path().join("c")).unwrap();
        for target in ["check", "sanitize"] {
            let (ok, text) = run(&place.path().join("c"), "make", &["CC=gcc", target]);
            assert!(ok, "{name}: {text}");
            let vectors = 3 * (4 + net.layers.iter().map(|l| 2 + usize::from(l.projection().is_some())).sum::<usize>());
            assert!(text.contains(&format!("integers equal: {vectors} vectors of 3 pictures")), "{name}: {text}");
        }
    }
}

#[test]
fn narrow_accumulators_wrap_or_saturate_as_here() {
    let (_, mut net) = networks().remove(0);
    for saturates in [false, true] {
        net.accumulator = Accumulator { bits: 9, saturates };
        let place = tempfile::tempdir().unwrap();
        files(&net, Format::C).write(&place.path().join("c")).unwrap();
        let (ok, text) = run(&place.path().join("c"), "make", &["check"]);
        assert!(ok, "{text}");
    }
}

/// By its hash first; by the values that it changes, once the hashes are made anew.
#[test]
fn a_flipped_bit_fails() {
    let (_, net) = networks().remove(0);
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("c");
    files(&net, Format::C).write(&folder).unwrap();
    let file = "vectors/layer1.0.relu1.codes.bin";
    flip(&folder, file, 100, 2, false);
    let (ok, text) = run(&folder, "make", &["check"]);
    assert!(!ok && text.contains("layer1.0.relu1.codes.bin: FAILED") && !text.contains("equal"), "{text}");
    flip(&folder, file, 100, 2, false);
    flip(&folder, file, 100, 1, true);
    let (ok, text) = run(&folder, "make", &["check"]);
    assert!(!ok && text.contains("layer1.0.relu1.codes: element 100 is"), "{text}");
    flip(&folder, file, 100, 1, true);
    let source = std::fs::read_to_string(folder.join("model.c")).unwrap();
    let table = source.find("weights_3[] = {").unwrap() + "weights_3[] = {".len();
    // A digit that is still one with its lowest bit inverted.
    let digit = table + 2 + source[table..].find("0x").unwrap();
    let digit = digit + source[digit..].find(|c: char| c.is_ascii_digit()).unwrap();
    flip(&folder, "model.c", digit, 0, true);
    let (ok, text) = run(&folder, "make", &["check"]);
    assert!(!ok && text.contains("layer2.0.relu1.accumulators: element"), "{text}");
}
