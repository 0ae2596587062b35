//! What cannot be folded, and what it says.

use cqat::config::{FirstLast, InputQuant, Method, QuantConfig};
use cqat::data::Split;
use cqat::integer::Multiplier;
use cqat::kernels::range::RangeRow;
use cqat::safetensors_io::NamedTensor;
use cqat::tensors::insert_range;
use cqat::{Error, ErrorKind};

use super::Case;

fn case() -> Case {
    Case::new(8, 8, &QuantConfig::default(), 2)
}

fn refused(case: &Case) -> Error {
    case.fold(Multiplier::Bits32).expect_err("the fold must be refused")
}

fn expect(e: &Error, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(e.kind(), kind, "{e}");
    let hint = e.hint_text().expect("a refusal says what to do");
    for part in parts {
        assert!(format!("{e}\nhint: {hint}").contains(part), "`{part}` is not in: {e}\nhint: {hint}");
    }
}

/// The error after a change of one tensor.
fn damaged(name: &str, change: impl Fn(&mut Vec<f32>)) -> Error {
    let mut case = case();
    change(&mut case.tensors.get_mut(name).unwrap_or_else(|| panic!("{name}")).data);
    refused(&case)
}

#[test]
fn a_float_picture_is_refused() {
    let config = QuantConfig { input: InputQuant::None, ..QuantConfig::default() };
    let e = refused(&Case::new(8, 8, &config, 2));
    expect(&e, ErrorKind::Config, &["quant.input is none", "quant.input=signed8"]);
}

#[test]
fn float_layers_are_refused_by_name() {
    let config = QuantConfig { first_last: FirstLast::Float, ..QuantConfig::default() };
    expect(&refused(&Case::new(8, 8, &config, 2)), ErrorKind::Config, &["conv1 is not quantized", "first_last=eight"]);
    for name in ["layer2.0.relu1", "layer3.0.downsample.0", "fc"] {
        let mut case = case();
        let id = case.net.layers.iter().position(|l| l.name() == name).unwrap();
        case.spec.layers[id] = None;
        expect(&refused(&case), ErrorKind::Config, &[&format!("{name} is not quantized")]);
    }
}

#[test]
fn ranges_that_were_never_calibrated_are_refused() {
    let mut case = case();
    insert_range(&mut case.tensors, "layer1.0.relu1", &RangeRow::UNIT);
    let e = refused(&case);
    expect(&e, ErrorKind::Training, &["the range of layer1.0.relu1 was never calibrated", "quantized phase"]);
    let e = damaged("quant.stem.inv_scale", |t| t[0] = 0.0);
    expect(&e, ErrorKind::Training, &["the range of stem"]);
}

#[test]
fn missing_misshapen_and_broken_tensors_are_refused() {
    for name in ["quant.stem.range", "quant.conv1.weight.scale", "layer1.0.conv1.weight", "bn1.running_var", "fc.bias"]
    {
        let mut case = case();
        case.tensors.remove(name);
        expect(&refused(&case), ErrorKind::Training, &[&format!("no tensor {name}")]);
    }
    let mut case = case();
    case.tensors.get_mut("fc.weight").unwrap().shape = vec![32, 10];
    expect(&refused(&case), ErrorKind::Training, &["fc.weight has shape [32, 10], expected [10, 32]"]);
    let e = damaged("layer2.0.bn1.bias", |t| t[3] = f32::NAN);
    expect(&e, ErrorKind::Training, &["layer2.0.bn1.bias holds NaN", "diverged"]);
    let e = damaged("bn1.running_var", |t| t[0] = -1.0);
    expect(&e, ErrorKind::Training, &["bn1.running_var is negative"]);
    let e = damaged("quant.fc.weight.inv_scale", |t| t[1] = 0.0);
    expect(&e, ErrorKind::Training, &["a weight scale of fc is not positive"]);
}

#[test]
fn factors_beyond_32_bits_are_refused() {
    let e = damaged("layer1.0.bn2.weight", |t| t[0] = 1e13);
    expect(&e, ErrorKind::Training, &["layer1.0.relu2", "too large for 32-bit multipliers"]);
}

#[test]
fn pictures_and_labels_must_fit_the_network() {
    let net = case().folded();
    expect(&net.run(&[0; 100]).unwrap_err(), ErrorKind::Data, &["100 bytes", "multiple of 192", "(3, 8, 8)"]);
    let split = |label| Split { side: 32, images: vec![0; 3072], labels: vec![label] };
    expect(&net.evaluate(&split(0)).unwrap_err(), ErrorKind::Data, &["side 32, expected 8"]);
    let net = Case::new(8, 32, &QuantConfig::default(), 2).folded();
    expect(&net.evaluate(&split(10)).unwrap_err(), ErrorKind::Data, &["label 10, expected less than 10"]);
}

#[test]
fn an_offset_that_the_quantizer_cannot_have_is_refused() {
    let offset = |zero: f32, method: Method| {
        let mut case = Case::new(8, 8, &QuantConfig { method, ..QuantConfig::default() }, 2);
        let window = NamedTensor { shape: vec![2], data: vec![zero, 0.0] };
        case.tensors.insert("quant.layer1.0.relu1.window".into(), window);
        case.fold(Multiplier::Bits32)
    };
    assert!(offset(-7.0, Method::LsqPlus).is_ok());
    for (zero, method) in [(1e9, Method::LsqPlus), (-8.0, Method::LsqPlus), (0.5, Method::LsqPlus), (1.0, Method::Cqat)]
    {
        let e = offset(zero, method).expect_err("the fold must be refused");
        expect(&e, ErrorKind::Training, &["quant.layer1.0.relu1.window holds", "damaged"]);
    }
}
