//! The engine on devices against the one on the CPU, code for code: through the kernels' twins for every family of kernels, and on
//! this machine's adapter.

use cqat::config::{FirstLast, Granularity, QuantConfig};
use cqat::cpu::CpuDevice;
use cqat::exec::Device;
use cqat::integer::{Accumulator, IntegerNet, IntegerSession};
use cqat::kernels::Caps;
use cqat::kernels::select::KernelFamily;
use cqat::plan::integer::lower_integers;
use cqat::plan::lower::Options;

use super::{Case, Random};
use crate::common;

/// Networks of 4-bit and 8-bit codes, of sums beyond 24 bits, odd sides, and weights that fit in 4 bits.
fn nets() -> Vec<(&'static str, IntegerNet)> {
    let bits = |weight_bits, activation_bits| QuantConfig { weight_bits, activation_bits, ..QuantConfig::default() };
    let mut per_channel = bits(5, 4);
    per_channel.weights.granularity = Granularity::PerChannel;
    let alike = QuantConfig { first_last: FirstLast::Same, ..bits(4, 3) };
    vec![
        ("W5A4", Case::new(8, 8, &per_channel, 1).folded()),
        ("W8A8", Case::new(10, 9, &bits(8, 8), 2).folded()),
        ("W4A3 throughout", Case::new(8, 9, &alike, 3).folded()),
        ("W2A8", Case::new(8, 16, &bits(2, 8), 4).folded()),
    ]
}

/// More pictures than a batch, and a rest.
const PICTURES: usize = 5;
const BATCH: usize = 2;

fn equal(name: &str, net: &IntegerNet, device: &dyn Device, options: &Options) {
    let images = Random::new(6).bytes(PICTURES * net.picture_bytes());
    let trace = net.run_layers(&images).unwrap();
    let lowered = lower_integers(net, &Options { keep_all: true, ..options.clone() });
    let mut session = IntegerSession::new(net, &lowered, device.load(&lowered.plan).unwrap()).unwrap();
    for (k, batch) in images.chunks(BATCH * net.picture_bytes()).enumerate() {
        let pictures = batch.len() / net.picture_bytes();
        let classes = net.classifier.classes;
        let logits = session.run(batch).unwrap();
        assert_eq!(logits, trace.logits[k * BATCH * classes..][..pictures * classes], "{name}: logits of batch {k}");
        for (number, layer) in trace.layers.iter().enumerate() {
            let codes = session.codes(number + 1).unwrap();
            let one = net.layers[number].shape.len();
            let want: Vec<i32> =
                layer.codes[k * BATCH * one..][..pictures * one].iter().map(|q| i32::from(*q)).collect();
            assert!(codes[..pictures * one] == want, "{name}: codes of {} in batch {k}", net.layers[number].name);
        }
    }
    // The same without a word kept.
    let lowered = lower_integers(net, options);
    let mut session = IntegerSession::new(net, &lowered, device.load(&lowered.plan).unwrap()).unwrap();
    assert_eq!(session.run(&images).unwrap(), trace.logits, "{name}: slots");
    assert!(session.run(&[]).unwrap().is_empty());
}

#[test]
fn every_family_of_kernels_gives_the_integers_of_the_cpu() {
    let software = Caps::portable(true, 1024);
    let real = Caps::portable(false, 1024);
    for (name, net) in nets() {
        for caps in
            [software.clone(), real.clone(), Caps { dot4: false, ..real.clone() }, Caps { matrix: 16, ..real.clone() }]
        {
            let device = CpuDevice::new(caps.clone());
            equal(&format!("{name}, {caps:?}"), &net, &device, &Options::new(BATCH, caps));
        }
    }
}

#[test]
fn this_adapter_gives_the_integers_of_the_cpu() {
    let gpu = common::gpu(true);
    for (name, net) in nets() {
        let own = || gpu.caps.clone();
        let by_fours = Caps { dot4: true, matrix: 0, ..own() };
        let tiled = KernelFamily::Tiled;
        for (family, caps) in [(KernelFamily::of(&gpu.caps), own()), (tiled, own()), (tiled, by_fours)] {
            let options = Options { family, winograd_channels: 8, ..Options::new(BATCH, caps.clone()) };
            equal(&format!("{name}, {family:?}, {caps:?}"), &net, &gpu, &options);
        }
    }
}

/// Accumulators of too few bits, on both sides alike; and enough bits change nothing.
#[test]
fn narrow_accumulators_wrap_or_saturate() {
    let whole = Case::new(8, 8, &QuantConfig::default(), 7).folded();
    let images = Random::new(8).bytes(PICTURES * whole.picture_bytes());
    let want = whole.run(&images).unwrap();
    let caps = Caps::portable(true, 1024);
    let device = CpuDevice::new(caps.clone());
    for saturates in [false, true] {
        let with = |bits| IntegerNet { accumulator: Accumulator { bits, saturates }, ..whole.clone() };
        assert_eq!(with(24).run(&images).unwrap(), want);
        let narrow = with(9);
        assert_ne!(narrow.run(&images).unwrap(), want);
        equal("narrow", &narrow, &device, &Options::new(BATCH, caps.clone()));
    }
}
