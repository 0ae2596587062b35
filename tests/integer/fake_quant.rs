//! Folded codes against the fake-quantized network on the CPU reference: both round the same reals, one in 32-bit
//! floating point half to even, the other in integers half up, so only values on a rounding edge may differ.

use cqat::config::{Granularity, QuantConfig, Reduce};
use cqat::cpu::CpuProgram;
use cqat::data::{DataSet, EMBEDDED, Split, in_order, load};
use cqat::exec::ExecutorExt;
use cqat::integer::{IntegerNet, Multiplier};
use cqat::kernels::{Caps, Format, Step};
use cqat::net::Net;
use cqat::normalisation::Normalisation;
use cqat::plan::TensorId;
use cqat::plan::lower::{Lowered, Options, lower};
use cqat::quant::QuantSpec;
use cqat::session::{Form, Session};
use cqat::tensors;

use super::Random;

const BATCH: usize = 16;
/// Differing codes allowed, one in this many: those next to a rounding edge. A channel whose gamma is 0 has few different
/// values, so that many of its codes may lie there at once.
const RARE: usize = 1000;

#[test]
fn codes_and_logits_follow_fake_quantization() {
    let data = load(EMBEDDED, 0, 1).unwrap();
    let mut per_channel = QuantConfig { weight_bits: 8, activation_bits: 8, ..QuantConfig::default() };
    per_channel.weights.granularity = Granularity::PerChannel;
    let floor = QuantConfig { reduce: Reduce::DropLsbFloor, ..QuantConfig::default() };
    for (name, config) in [("W5A4", QuantConfig::default()), ("W8A8", per_channel), ("drop_lsb_floor", floor)] {
        compare(name, &config, &data);
    }
}

fn compare(name: &str, config: &QuantConfig, data: &DataSet) {
    let net = Net::resnet(8, 8, 10, 32).unwrap();
    let spec = QuantSpec::new(config, &net).unwrap().unwrap();
    let options = Options { keep_all: true, ..Options::new(BATCH, Caps::portable(false, 1024)) };
    let lowered = lower(&net, Some(&spec), &options).unwrap();
    let normalisation = Normalisation::of(data);
    let mut session = Session::new(&lowered, Box::new(CpuProgram::new(&lowered.plan)), &normalisation);
    prepare(&lowered, &mut session, data);
    let split = Split {
        side: 32,
        images: data.test.images[..BATCH * 3072].to_vec(),
        labels: data.test.labels[..BATCH].to_vec(),
    };
    let fake = session.evaluate(Form::Quantized, &split, true).unwrap();

    let folded = IntegerNet::fold(&net, &spec, &session.state().unwrap(), &normalisation, Multiplier::Bits32).unwrap();
    let trace = folded.run_layers(&split.images).unwrap();
    for (layer, got) in folded.layers.iter().zip(&trace.layers) {
        let words = session.executor().read(scratch(&lowered, &format!("{}.value", layer.name))).unwrap();
        let want: Vec<i32> = (0..got.codes.len()).map(|i| Format::U8.load(&words, i) as i32).collect();
        let differences: Vec<u32> = got.codes.iter().zip(&want).map(|(g, w)| w.abs_diff(i32::from(*g))).collect();
        let count = differences.iter().filter(|d| **d > 0).count();
        let used = got.codes.iter().filter(|q| **q > 0).count();
        assert!(
            used * 10 > got.codes.len(),
            "{name}, {}: only {used} codes of {} are used",
            layer.name,
            got.codes.len()
        );
        assert!(differences.iter().all(|d| *d <= 1), "{name}, {}: a code differs by more than one", layer.name);
        assert!(count * RARE <= got.codes.len(), "{name}, {}: {count} of {} differ", layer.name, got.codes.len());
    }
    let logits = session.executor().read_f32(lowered.layout.logits).unwrap();
    let spread = logits.iter().fold(0f32, |m, v| m.max(v.abs()));
    for (got, want) in folded.numbers(&trace.logits).chunks(10).zip(logits.chunks(net.linear().1.padded())) {
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() <= 0.01 * spread, "{name}: logit {g}, fake quantization has {w}");
        }
    }
    let evaluation = folded.evaluate(&split).unwrap();
    let equal = evaluation.predictions.iter().zip(&fake.predictions).filter(|(a, b)| a == b).count();
    assert!(equal + 1 >= BATCH, "{name}: {equal} of {BATCH} predictions are equal");
    assert!((evaluation.totals.loss - fake.totals.loss).abs() < 0.01 * fake.totals.loss, "{name}: losses differ");
}

/// Random weights, some gammas negative or zero, running statistics of one batch, calibrated ranges.
fn prepare(lowered: &Lowered, session: &mut Session, data: &DataSet) {
    let mut state = tensors::initialise(&lowered.layout, 3);
    let mut random = Random::new(8);
    for norm in &lowered.layout.norms {
        let gamma = &mut state.get_mut(&format!("{}.weight", norm.name)).unwrap().data;
        gamma.iter_mut().enumerate().for_each(|(k, g)| *g = [1.0, -1.0, 1.0, 0.0][k % 4] * random.real(0.6, 1.4));
        let beta = &mut state.get_mut(&format!("{}.bias", norm.name)).unwrap().data;
        beta.iter_mut().for_each(|b| *b = random.real(-0.2, 0.6));
    }
    session.set_state(&state).unwrap();
    // A step of length 0 moves the running statistics a tenth of the way to the batch's.
    let order = in_order(data.train.len());
    session.train_step(Form::Float, &data.train, &order[..BATCH], Step::default()).unwrap();
    let mut after = session.state().unwrap();
    for (name, t) in after.iter_mut().filter(|(name, _)| name.contains(".running_")) {
        let old = &state[name].data;
        t.data.iter_mut().zip(old).for_each(|(new, old)| *new = (*new - 0.9 * old) * 10.0);
    }
    after.retain(|name, _| !name.starts_with("quant.") && !name.starts_with("momentum."));
    session.set_state(&after).unwrap();
    session.calibrate(&data.train, &order, 1).unwrap();
}

/// A scratch tensor of the quantized evaluation.
fn scratch(lowered: &Lowered, name: &str) -> TensorId {
    lowered.plan.bound(lowered.quantized.unwrap().evaluate, name).unwrap_or_else(|| panic!("no tensor {name}"))
}
