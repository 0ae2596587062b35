//! The memory plan and the choice of kernels, on made-up devices. No device.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cqat::ErrorKind;
use cqat::config::{Config, Kernels, QuantConfig};
use cqat::cpu::CpuProgram;
use cqat::exec::{Executor, ExecutorExt};
use cqat::kernels::input::random;
use cqat::kernels::select::KernelFamily;
use cqat::kernels::{Access, Caps, Step};
use cqat::net::Net;
use cqat::normalisation::Normalisation;
use cqat::plan::lower::{Lowered, Options, lower, lower_fitting};
use cqat::plan::{BufferId, Home, Plan, Program, TensorId};
use cqat::quant::QuantSpec;
use cqat::session::{load_parameters, upload_constants};
use cqat::setup::lower_for_training;
use cqat::tensors;
use proptest::prelude::*;

/// A network, its quantizers and what it is lowered with.
#[derive(Debug, Clone)]
struct Case {
    net: Net,
    quant: Option<QuantSpec>,
    options: Options,
}

impl Case {
    fn new(depth: usize, width: usize, size: usize, batch: usize, preset: &str, caps: Caps) -> Case {
        let net = Net::resnet(depth, width, 10, size).unwrap();
        let quant = QuantSpec::new(&Config::load(preset, &[]).unwrap().quant, &net).unwrap();
        Case { net, quant, options: Options::new(batch, caps) }
    }

    fn lower(&self) -> Lowered {
        lower(&self.net, self.quant.as_ref(), &self.options).unwrap()
    }

    fn with_batch(&self, batch: usize) -> Case {
        Case { options: Options { batch, ..self.options.clone() }, ..self.clone() }
    }

    fn with_budget(&self, budget_bytes: u64) -> Case {
        let caps = Caps { budget_bytes, ..self.options.caps.clone() };
        Case { options: Options { caps, ..self.options.clone() }, ..self.clone() }
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let depths = prop::sample::select(vec![8, 10, 18, 20, 32, 34, 44, 56]);
    let presets = prop::sample::select(vec!["float", "cqat", "cqat-literal"]);
    let sizes = prop::sample::select(vec![8, 16, 32]);
    let fused = (8..10u32, prop::sample::select(vec![8, usize::MAX]));
    (depths, 1..5usize, sizes, 1..40usize, presets, any::<bool>(), fused).prop_map(
        |(depth, width, size, batch, preset, software, (max_storage_buffers, winograd_channels))| {
            let caps = Caps { max_storage_buffers, ..Caps::portable(software, 64 << 10) };
            let mut case = Case::new(depth, 8 * width, size, batch, preset, caps);
            case.options.winograd_channels = winograd_channels;
            case
        },
    )
}

/// Replays a program's bindings: each scratch tensor is written before it is read, and nothing else has taken its slot
/// in between.
fn replay(plan: &Plan, program: &Program) -> Result<(), TestCaseError> {
    let mut holder: HashMap<usize, TensorId> = HashMap::new();
    for (at, d) in program.dispatches.iter().enumerate() {
        for (&t, (binding, access)) in d.bind.iter().zip(d.kernel.bindings) {
            let Home::Slot(slot) = plan.tensor(t).home else { continue };
            let held = *access == Access::ReadWrite || holder.get(&slot) == Some(&t);
            let name = &plan.tensor(t).name;
            prop_assert!(held, "{} dispatch {at} ({}): {binding} reads {name}", program.name, d.kernel.name);
        }
        for (&t, (_, access)) in d.bind.iter().zip(d.kernel.bindings) {
            if let (Home::Slot(slot), Access::ReadWrite) = (plan.tensor(t).home, access) {
                holder.insert(slot, t);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn scratch_tensors_are_written_before_they_are_read_and_never_share_a_slot_in_time(case in cases()) {
        let plan = case.lower().plan;
        for program in &plan.programs {
            replay(&plan, program)?;
        }
        let lives = plan.lifetimes();
        for (i, (a, life)) in lives.iter().enumerate() {
            for (b, other) in &lives[i + 1..] {
                let shared = plan.buffer(*a) == plan.buffer(*b);
                let together = life.program == other.program && life.first <= other.last && other.first <= life.last;
                prop_assert!(!(shared && together), "{} and {}", plan.tensor(*a).name, plan.tensor(*b).name);
            }
        }
    }

    #[test]
    fn every_tensor_lies_inside_its_buffer_and_members_of_an_arena_apart(case in cases()) {
        let plan = case.lower().plan;
        let buffers: BTreeMap<BufferId, usize> = plan.buffers().into_iter().collect();
        for (i, t) in plan.tensors.iter().enumerate() {
            if t.home == Home::Slot(usize::MAX) {
                continue; // bound by no dispatch
            }
            let id = TensorId(i);
            let words = buffers[&plan.buffer(id)];
            prop_assert!(plan.offset(id) + t.words <= words, "{} ends at {} of {words}", t.name, plan.offset(id) + t.words);
        }
        let layout = case.lower().layout;
        let mut members: Vec<(BufferId, usize, usize)> = layout
            .weights
            .iter()
            .flat_map(|w| [w.weight, w.grad, w.scales])
            .chain(layout.norms.iter().flat_map(|n| [n.affine, n.grad, n.running]))
            .chain([layout.bias.0, layout.bias.1])
            .map(|t| (plan.buffer(t), plan.offset(t), plan.offset(t) + plan.tensor(t).words))
            .collect();
        members.sort();
        for pair in members.windows(2) {
            prop_assert!(pair[0].0 != pair[1].0 || pair[0].2 <= pair[1].1, "{:?}", pair);
        }
    }

    #[test]
    fn the_budget_counts_every_buffer_once(case in cases()) {
        let lowered = case.lower();
        let known: BTreeMap<BufferId, usize> = lowered.plan.buffers().into_iter().collect();
        let buffers: usize = known.values().map(|words| 4 * words).sum();
        let parameters: usize = lowered.plan.programs.iter().map(|p| 256 * p.dispatches.len()).sum();
        let bytes = lowered.plan.bytes();
        prop_assert_eq!(bytes, (buffers + parameters) as u64);
        let used: BTreeSet<BufferId> =
            lowered.plan.programs.iter().flat_map(|p| &p.dispatches).flat_map(|d| &d.bind).map(|&t| lowered.plan.buffer(t)).collect();
        prop_assert!(used.iter().all(|b| known.contains_key(b)));
        let caps = |budget_bytes| Caps { budget_bytes, ..case.options.caps.clone() };
        prop_assert!(lowered.plan.fits(&caps(bytes)).is_ok());
        let error = lowered.plan.fits(&caps(bytes - 1)).unwrap_err();
        prop_assert!(error.to_string().contains("the budget is"), "{error}");
    }

    #[test]
    fn a_refusal_names_the_largest_batch_that_fits(case in cases(), share in 0.0..1.0f64) {
        let case = case.with_batch(case.options.batch + 1);
        let at = |batch| case.with_batch(batch).lower().plan.bytes();
        let (least, most) = (at(1), at(case.options.batch));
        let budget = least + ((most - least) as f64 * share) as u64;
        let case = case.with_budget(budget);
        let error = lower_fitting(&case.net, case.quant.as_ref(), &case.options).unwrap_err();
        prop_assert_eq!(error.kind(), ErrorKind::Device);
        let hint = error.hint_text().unwrap();
        let named: usize = hint.split("--set train.batch=").nth(1).and_then(|s| s.split(' ').next()).unwrap().parse().unwrap();
        prop_assert!(hint.starts_with(&format!("the largest batch that fits is {named}: ")), "{hint}");
        prop_assert!(at(named) <= budget && at(named + 1) > budget, "{named}: {} and {}, {budget}", at(named), at(named + 1));
        let fitting = case.with_batch(named);
        prop_assert!(lower_fitting(&fitting.net, fitting.quant.as_ref(), &fitting.options).is_ok());
    }
}

#[test]
fn a_network_that_never_fits_is_told_so() {
    let case = Case::new(18, 64, 32, 8, "cqat", Caps::portable(false, 1));
    let error = lower_fitting(&case.net, case.quant.as_ref(), &case.options).unwrap_err();
    assert!(error.to_string().starts_with("the network does not fit this device: the step needs"), "{error}");
    assert!(
        error
            .hint_text()
            .unwrap()
            .starts_with("not even one picture fits: choose a smaller network.width, or another device")
    );
}

#[test]
fn a_batch_of_too_many_workgroups_is_told_the_largest_that_fits() {
    let generous = Caps { max_buffer_bytes: u64::MAX, max_binding_bytes: u64::MAX, ..Caps::portable(false, 1 << 20) };
    let case = Case::new(8, 16, 32, 65_536, "cqat", generous);
    let error = lower_fitting(&case.net, case.quant.as_ref(), &case.options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
    let message = "workgroups in one dimension, the device allows 65535";
    assert!(error.to_string().starts_with("a batch of 65536 does not fit this device"), "{error}");
    assert!(error.to_string().ends_with(message), "{error}");
    assert!(error.hint_text().unwrap().contains("--set train.batch="), "{:?}", error.hint_text());
}

/// Sums that may pass 2^24 are added as integers; the others, among them all of W5A4, as f32.
#[test]
fn sums_are_integers_where_f32_would_round() {
    let integer_layers = |weight_bits, activation_bits, width| {
        let net = Net::resnet(18, width, 100, 32).unwrap();
        let config = QuantConfig { weight_bits, activation_bits, ..QuantConfig::default() };
        let quant = QuantSpec::new(&config, &net).unwrap();
        let caps = Caps { dot4: false, ..Caps::portable(false, 4096) }; // which always adds them as integers
        let lowered = lower(&net, quant.as_ref(), &Options::new(2, caps)).unwrap();
        let step = &lowered.plan.programs[lowered.quantized.unwrap().train.0].dispatches;
        let exact = step.iter().filter(|d| d.variant.files.contains(&"sums_i32"));
        exact.map(|d| net.layers[d.layer.unwrap()].name().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(integer_layers(5, 4, 64), [""; 0]);
    // 9 * 512 * 16 * 255 = 18.8 million; half as many channels stay below 16.8.
    assert_eq!(integer_layers(5, 8, 64), ["layer4.0.conv2", "layer4.1.conv1", "layer4.1.conv2"]);
    assert_eq!(integer_layers(8, 8, 16).first().unwrap(), "layer3.0.conv2"); // 9 * 64 * 127 * 255
}

#[test]
fn sums_beyond_32_bits_are_refused() {
    let net = Net::resnet(18, 1024, 10, 32).unwrap();
    let config = QuantConfig { weight_bits: 8, activation_bits: 8, ..QuantConfig::default() };
    let quant = QuantSpec::new(&config, &net).unwrap();
    let error = lower(&net, quant.as_ref(), &Options::new(1, Caps::portable(false, 4096))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().starts_with("sums of layer4.0.conv2 can reach 2387681280, expected at most"), "{error}");
}

/// A step over slots full of garbage gives the bits of a step over slots of zeros: no kernel reads what none has written.
#[test]
fn garbage_in_the_slots_changes_nothing() {
    for (software, max_storage_buffers) in [(false, 8), (false, 9), (true, 8)] {
        let caps = Caps { max_storage_buffers, ..Caps::portable(software, 1024) };
        let mut case = Case::new(8, 8, 16, 3, "cqat", caps);
        case.options.winograd_channels = 8;
        let lowered = case.lower();
        let step = |garbage: bool| {
            let (plan, layout) = (&lowered.plan, &lowered.layout);
            let mut exec = CpuProgram::new(plan);
            upload_constants(&lowered, &mut exec, &Normalisation::NEUTRAL);
            load_parameters(&lowered, &mut exec, &tensors::initialise(layout, 3), "").unwrap();
            let words = |t| plan.tensor(t).words;
            let pictures: Vec<u32> = (0..words(layout.images) as u32).map(|i| random(5, i, 0)).collect();
            exec.write(layout.images, &pictures);
            exec.write(layout.labels, &[1, 2, 3]);
            exec.write_as(layout.step, &[Step { seed: 9, valid: 3, lr: 0.1, ..Step::default() }]);
            let (observe, count) = lowered.calibrate.unwrap();
            let programs = lowered.quantized.unwrap();
            for program in [observe, count, lowered.float.train, programs.train, programs.weights, programs.evaluate] {
                if garbage {
                    fill_slots(plan, &mut exec);
                }
                exec.run(program).unwrap();
            }
            [layout.grads, layout.params, layout.running, layout.ranges, layout.ring, layout.logits]
                .map(|t| exec.read(t).unwrap())
        };
        assert!(step(false) == step(true), "software {software}");
    }
}

fn fill_slots(plan: &Plan, exec: &mut CpuProgram) {
    for (t, _) in plan.lifetimes() {
        exec.write(t, &vec![0x7fc0_dead; plan.tensor(t).words]); // a NaN
    }
}

/// Kernels of the quantized training step that have a variant of their own on devices that nobody here has; the others
/// run alike everywhere.
#[test]
fn variants_on_made_up_devices() {
    let devices = [
        ("software, subgroups of 8", Caps::portable(true, 4096)),
        ("software, subgroups of 16", Caps { subgroup: 16, ..Caps::portable(true, 4096) }),
        ("software without subgroups", Caps { subgroup: 0, ..Caps::portable(true, 4096) }),
        ("GPU at WebGPU's default limits", Caps::portable(false, 4096)),
        ("GPU that binds more", Caps { max_storage_buffers: 9, ..Caps::portable(false, 4096) }),
        ("GPU without subgroups", Caps { subgroup: 0, ..Caps::portable(false, 4096) }),
    ];
    let mut text = String::new();
    for (name, caps) in devices {
        let case = Case::new(18, 16, 32, 32, "cqat", caps);
        let lowered = lower_fitting(&case.net, case.quant.as_ref(), &case.options).unwrap();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let step = &lowered.plan.programs[lowered.quantized.unwrap().train.0].dispatches;
        for d in step.iter().filter(|d| d.variant.name != "portable") {
            let tile: Vec<&str> =
                d.variant.prelude.iter().filter(|line| line.starts_with("const")).map(|s| s.as_str()).collect();
            let line = format!("{} {} {} {}", d.kernel.name, d.variant.name, d.variant.files.join(" "), tile.join(" "));
            *counts.entry(line.trim_end().replace(['\n', ';'], "").replace("const ", "")).or_default() += 1;
        }
        text += &format!("{name}\n");
        counts.iter().for_each(|(line, n)| text += &format!("  {n:3} {line}\n"));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_family_of_kernels_can_be_forced() {
    for (software, wanted, variant) in [(true, Kernels::Tiled, "tiled"), (false, Kernels::Lane, "lane")] {
        let caps = Caps { subgroup: 8, ..Caps::portable(software, 1024) };
        let mut case = Case::new(8, 8, 32, 2, "cqat", caps.clone());
        case.options.family = KernelFamily::choose(wanted, &caps).unwrap();
        let plan = case.lower().plan;
        let products = plan.programs.iter().flat_map(|p| &p.dispatches).filter(|d| d.work.flops > 0);
        let names: BTreeSet<&str> = products.map(|d| d.variant.name.as_str()).collect();
        assert_eq!(names, [variant].into());
    }
    let error = KernelFamily::choose(Kernels::Lane, &Caps { subgroup: 0, ..Caps::portable(true, 64) }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
}

/// The largest step that the project promises to fit: W5A4, width 64, batch 128, 1.2 GiB of buffers.
#[test]
fn a_step_of_width_64_and_batch_128_stays_under_its_bound() {
    for software in [false, true] {
        let case = Case::new(18, 64, 32, 128, "cqat", Caps::portable(software, 4096));
        let bytes = case.lower().plan.bytes();
        assert!(bytes < 12 * (1 << 30) / 10, "{bytes} bytes");
    }
}

/// The same, batch 512: 4 GiB, where a device binds as much.
#[test]
fn a_step_of_width_64_and_batch_512_stays_under_its_bound() {
    for software in [false, true] {
        let max_binding_bytes = (4 << 30) - 1;
        let case = Case::new(18, 64, 32, 512, "cqat", Caps { max_binding_bytes, ..Caps::portable(software, 4096) });
        let bytes = case.lower().plan.bytes();
        assert!(bytes < 4 << 30, "{bytes} bytes");
    }
}

/// What WebGPU lets a shader bind, 128 MiB, is enough for all parameters of ResNet-18 up to width 104, and what is made of them.
#[test]
fn a_wide_network_fits_small_bindings() {
    let config = Config::load("cqat", &[]).unwrap();
    for (width, fits) in [(64, true), (104, true), (112, false)] {
        let net = Net::resnet(18, width, 100, 32).unwrap();
        let quant = QuantSpec::new(&config.quant, &net).unwrap();
        for software in [true, false] {
            let caps = Caps { budget_bytes: u64::MAX, max_buffer_bytes: u64::MAX, ..Caps::portable(software, 0) };
            let lowered = lower(&net, quant.as_ref(), &Options::new(128, caps.clone())).unwrap();
            assert_eq!(lowered.plan.fits(&caps).is_ok(), fits, "{width}: {:?}", lowered.plan.fits(&caps));
        }
    }
}

#[test]
fn training_pictures_lie_on_a_gpu_where_they_fit() {
    let place = |software, binding_mib: u64, pictures: &str| {
        let sets = ["network.width=16".into(), "train.batch=32".into(), format!("device.pictures={pictures}")];
        let config = Config::load("cqat", &sets).unwrap();
        let caps = Caps { max_binding_bytes: binding_mib << 20, ..Caps::portable(software, 4096) };
        lower_for_training(&config, 100, &caps, 50_000).map(|lowered| lowered.layout.resident.is_some())
    };
    assert!(place(false, 128, "auto").unwrap() && place(true, 128, "device").unwrap());
    for (software, binding_mib, pictures) in [(true, 128, "auto"), (false, 64, "auto"), (false, 128, "host")] {
        assert!(!place(software, binding_mib, pictures).unwrap(), "{software} {binding_mib} {pictures}");
    }
    let error = place(false, 64, "device").unwrap_err();
    assert!(error.hint_text().unwrap().contains("device.pictures=host"), "{error}: {:?}", error.hint_text());
}

/// What docs/performance.md says.
#[test]
fn dispatches_of_a_training_step() {
    let config = Config::load("cqat", &[]).unwrap();
    let net = Net::resnet(18, 64, 100, 32).unwrap();
    let quant = QuantSpec::new(&config.quant, &net).unwrap();
    for (software, matrix, max_storage_buffers, expected) in
        [(false, 0, 9, 139), (false, 16, 9, 139), (false, 0, 8, 155), (true, 0, 8, 195)]
    {
        let caps = Caps { matrix, max_storage_buffers, ..Caps::portable(software, 4096) };
        let options = Options { winograd_channels: usize::MAX, ..Options::new(128, caps) };
        let lowered = lower(&net, quant.as_ref(), &options).unwrap();
        let step = lowered.quantized.unwrap().train;
        assert_eq!(
            lowered.plan.programs[step.0].dispatches.len(),
            expected,
            "software {software}, matrices of {matrix}"
        );
    }
}
