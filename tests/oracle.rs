//! Training steps against dumps that PyTorch computed in float64 (`assets/golden/`), and proof that the comparison fails
//! when it should.

mod common;

use std::path::{Path, PathBuf};

use cqat::check::Check;
use cqat::config::Kernels;
use cqat::cpu::CpuProgram;
use cqat::exec::Executor;
use cqat::gpu::{Gpu, GpuProgram};
use cqat::kernels::Caps;
use cqat::kernels::select::KernelFamily;
use cqat::net::DEPTHS;
use cqat::oracle::Oracle;
use cqat::plan::lower::Lowered;
use cqat::safetensors_io::NamedTensor;
use cqat::safetensors_io::{self, File};
use cqat::{Error, ErrorKind};

const DUMPS: [&str; 3] = ["fp32", "cqat", "cqat_maskreal"];
const FAMILIES: [Kernels; 2] = [Kernels::Lane, Kernels::Tiled];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/golden").join(format!("{name}.safetensors"))
}

/// Lowers with one family of matrix kernels. A GPU whose subgroups do not fit the lane kernels runs the tiled ones twice.
fn lower(oracle: &Oracle, caps: &Caps, kernels: Kernels) -> Lowered {
    let family = KernelFamily::choose(kernels, caps);
    assert!(family.is_ok() || !caps.software, "a software adapter runs both families");
    oracle.lower(caps, family.unwrap_or(KernelFamily::Tiled)).unwrap()
}

fn on_cpu(oracle: &Oracle, kernels: Kernels) -> cqat::Result<Vec<Check>> {
    let lowered = lower(oracle, &Caps::portable(true, 4096), kernels);
    oracle.run(&lowered, &mut CpuProgram::new(&lowered.plan))
}

fn on_gpu(oracle: &Oracle, gpu: &Gpu, kernels: Kernels) -> Vec<Check> {
    let lowered = lower(oracle, &gpu.caps, kernels);
    let exec: &mut dyn Executor = &mut GpuProgram::new(gpu, &lowered.plan).unwrap();
    oracle.run(&lowered, exec).unwrap()
}

/// Every group was compared and is within its limit.
fn assert_passes(what: &str, dump: &str, groups: &[Check]) {
    let expected: &[&str] = match dump {
        "fp32" => &["act", "after1", "after3", "bn_after1", "eval_logits", "grad", "logits", "loss", "losses"],
        _ => &["act", "after1", "bn_after1", "grad", "logits", "loss", "losses", "losses 2 and 3", "scale"],
    };
    assert_eq!(groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(), expected, "{what}");
    for g in groups {
        assert!(g.passed(), "{what}: {} is off by {:e}, limit {:e}", g.detail, g.error, g.limit);
        assert!(
            g.limit <= if g.name == "losses 2 and 3" { 0.02 } else { 2e-5 },
            "{what}: {} has limit {}",
            g.name,
            g.limit
        );
    }
}

#[test]
fn the_cpu_reference_equals_pytorch() {
    for dump in DUMPS {
        let oracle = Oracle::read(&golden(dump)).unwrap();
        for kernels in FAMILIES {
            assert_passes(&format!("{dump}, {kernels:?}, cpu"), dump, &on_cpu(&oracle, kernels).unwrap());
        }
    }
}

#[test]
fn the_device_equals_pytorch() {
    let gpu = common::gpu(false);
    for dump in DUMPS {
        let oracle = Oracle::read(&golden(dump)).unwrap();
        for kernels in FAMILIES {
            assert_passes(&format!("{dump}, {kernels:?}, device"), dump, &on_gpu(&oracle, &gpu, kernels));
        }
    }
}

/// A dump with changes, in a folder that lives as long as the result.
struct Altered {
    folder: tempfile::TempDir,
}

impl Altered {
    fn new(dump: &str, change: impl FnOnce(&mut File)) -> Altered {
        let mut file = safetensors_io::read(&golden(dump), ErrorKind::Data).unwrap();
        change(&mut file);
        let altered = Altered { folder: tempfile::tempdir().unwrap() };
        safetensors_io::write(&altered.path(), &file).unwrap();
        altered
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("altered.safetensors")
    }

    fn read_error(&self) -> Error {
        Oracle::read(&self.path()).err().expect("the file is no dump")
    }

    fn run_error(&self) -> Error {
        on_cpu(&Oracle::read(&self.path()).unwrap(), Kernels::Tiled).expect_err("the dump does not fit")
    }

    fn failures(&self) -> Vec<String> {
        let groups = on_cpu(&Oracle::read(&self.path()).unwrap(), Kernels::Tiled).unwrap();
        groups.into_iter().filter(|g| !g.passed()).map(|g| g.name).collect()
    }
}

/// Moves one value of a tensor by a thousandth of its largest.
fn nudge(file: &mut File, name: &str) {
    let data = &mut file.tensors.get_mut(name).unwrap_or_else(|| panic!("the dump has {name}")).data;
    let largest = data.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
    let middle = data.len() / 2;
    data[middle] += 1e-3 * largest;
}

#[test]
fn one_wrong_value_fails_its_group_and_no_other() {
    for (dump, tensor, group) in [
        ("fp32", "grad.layer2.0.conv1.weight", "grad"),
        ("fp32", "grad.layer3.0.downsample.1.bias", "grad"),
        ("fp32", "logits", "logits"),
        ("fp32", "after1.layer1.0.conv2.weight", "after1"),
        ("fp32", "after3.fc.weight", "after3"),
        ("fp32", "bn_after1.layer2.0.bn2.running_var", "bn_after1"),
        ("fp32", "eval_logits", "eval_logits"),
        ("fp32", "losses", "losses"),
        ("cqat", "act.layer2.0", "act"),
        ("cqat", "grad.conv1.weight", "grad"),
        ("cqat", "loss", "loss"),
        ("cqat", "scale.layer3.0.relu2.s_a", "scale"),
        ("cqat", "scale.fc.s_w", "scale"),
    ] {
        assert_eq!(Altered::new(dump, |f| nudge(f, tensor)).failures(), [group], "{dump}: {tensor}");
    }
}

#[test]
fn a_wrong_initial_weight_shows_wherever_it_acts() {
    let failures = Altered::new("fp32", |f| nudge(f, "init.layer2.0.conv1.weight")).failures();
    for group in ["act", "after1", "after3", "bn_after1", "grad", "logits"] {
        assert!(failures.iter().any(|f| f == group), "{group} passed; failed: {failures:?}");
    }
}

#[test]
fn a_value_that_is_no_number_fails() {
    let altered = Altered::new("fp32", |f| f.tensors.get_mut("grad.fc.bias").unwrap().data[0] = f32::NAN);
    assert_eq!(altered.failures(), ["grad"]);
}

#[test]
fn the_other_mask_gives_other_gradients_after_the_same_forward_pass() {
    for (dump, mask) in [("cqat", "real"), ("cqat_maskreal", "int")] {
        let altered = Altered::new(dump, |f| f.metadata = [("mask".into(), mask.into())].into());
        let failures = altered.failures();
        assert!(failures.starts_with(&["after1".into(), "grad".into()]), "{dump} as {mask}: {failures:?}");
        assert!(failures[2..].iter().all(|f| f == "losses 2 and 3"), "{dump} as {mask}: {failures:?}");
    }
}

#[test]
fn without_a_mask_in_the_metadata_it_is_int() {
    assert_eq!(Altered::new("cqat", |f| f.metadata.clear()).failures(), [""; 0]);
}

#[test]
fn the_network_is_inferred() {
    assert_eq!(
        Oracle::read(&golden("cqat_maskreal")).unwrap().describe(),
        "ResNet-8 width 8, 8x8 pictures, 10 classes, batch 3, cqat W5A4, mask real"
    );
    for (depth, stages) in DEPTHS {
        let altered = Altered::new("fp32", |f| {
            let any = f.tensors["init.layer1.0.conv1.weight"].clone();
            let names = stages.iter().enumerate().flat_map(|(stage, &blocks)| (0..blocks).map(move |b| (stage + 1, b)));
            f.tensors.extend(names.map(|(stage, b)| (format!("init.layer{stage}.{b}.conv1.weight"), any.clone())));
        });
        let expected = format!("ResNet-{depth} width 8, 8x8 pictures, 10 classes, batch 3, float");
        assert_eq!(Oracle::read(&altered.path()).unwrap().describe(), expected);
    }
}

/// A data error that names `what` and says what a dump is.
fn assert_data_error(e: &Error, what: &str) {
    assert_eq!(e.kind(), ErrorKind::Data, "{e}");
    assert!(e.to_string().contains(what), "{e} does not mention {what}");
    assert!(e.hint_text().is_some_and(|h| h.contains("make_golden.py")), "{e}: {:?}", e.hint_text());
}

#[test]
fn files_that_are_no_dumps_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.safetensors");
    assert_data_error(&Oracle::read(&path).err().unwrap(), "cannot be read");
    let whole = std::fs::read(golden("fp32")).unwrap();
    for length in [0, 5, 1000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_data_error(&Oracle::read(&path).err().unwrap(), "is not a whole safetensors file");
    }
    std::fs::write(&path, "inputs: none\n".repeat(100)).unwrap();
    assert_data_error(&Oracle::read(&path).err().unwrap(), "is not a whole safetensors file");
    assert_data_error(&Oracle::read(&golden("fakequant_unit")).err().unwrap(), "no tensor inputs");
}

#[test]
fn a_missing_or_misshapen_tensor_is_named() {
    for name in ["inputs", "labels", "init.conv1.weight", "init.fc.weight"] {
        let missing = Altered::new("fp32", |f| drop(f.tensors.remove(name)));
        assert_data_error(&missing.read_error(), &format!("no tensor {name}"));
        let flat = Altered::new("fp32", |f| {
            let t = f.tensors.get_mut(name).unwrap();
            t.shape = if t.shape.len() == 1 { vec![1, t.data.len()] } else { vec![t.data.len()] };
        });
        assert_data_error(&flat.read_error(), &format!("tensor {name} has shape"));
    }
    let oblong = Altered::new("fp32", |f| f.tensors.get_mut("inputs").unwrap().shape = vec![3, 3, 4, 16]);
    assert_data_error(&oblong.read_error(), "[3, 3, 4, 16]");
    let stray = Altered::new("fp32", |f| f.tensors.get_mut("labels").unwrap().data[1] = 10.0);
    assert_data_error(&stray.read_error(), "labels below 10");
    let narrow = Altered::new("fp32", |f| {
        let t = NamedTensor { shape: vec![4, 3, 3, 3], data: vec![0.0; 108] };
        f.tensors.insert("init.conv1.weight".into(), t);
    });
    assert_data_error(&narrow.read_error(), "no ResNet-8 of width 4");
    let mask = Altered::new("cqat", |f| f.metadata = [("mask".into(), "soft".into())].into());
    assert_data_error(&mask.read_error(), "mask is `soft`");
}

#[test]
fn a_dump_that_lacks_weights_or_results_is_refused() {
    for name in
        ["init.layer1.0.bn1.bias", "init.layer3.0.bn2.running_var", "grad.fc.bias", "losses", "after3.bn1.weight"]
    {
        let missing = Altered::new("fp32", |f| drop(f.tensors.remove(name)));
        assert_data_error(&missing.run_error(), name);
    }
    for name in ["init.layer2.0.conv2.weight", "logits", "losses"] {
        let short = Altered::new("fp32", |f| {
            f.tensors.insert(name.into(), NamedTensor { shape: vec![2], data: vec![0.0; 2] });
        });
        assert_data_error(&short.run_error(), name);
    }
}

#[test]
fn a_result_that_nothing_compares_with_is_named() {
    for (dump, name) in [("fp32", "grad.layer9.weight"), ("fp32", "eval_logits2"), ("cqat", "scale.none.s_a")] {
        let extra = Altered::new(dump, |f| {
            f.tensors.insert(name.into(), NamedTensor { shape: vec![1], data: vec![0.0] });
        });
        assert_data_error(&extra.run_error(), name);
    }
}

#[test]
fn the_command_reports_each_file_and_fails_on_a_bad_one() {
    let device = std::env::var("CQAT_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    let command = |file: &Path| {
        let mut c = assert_cmd::Command::cargo_bin("cqat").unwrap();
        c.args(["selftest", "--device", &device, "--oracle"]).arg(file);
        c.output().unwrap()
    };
    let good = command(&golden("cqat"));
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let altered = Altered::new("cqat", |f| nudge(f, "grad.layer2.0.conv1.weight"));
    let bad = command(&altered.path());
    let text = String::from_utf8_lossy(&bad.stdout);
    assert_eq!(bad.status.code(), Some(4), "{text}");
    let failed: Vec<&str> = text.lines().filter(|l| l.starts_with("FAIL")).collect();
    assert!(matches!(failed[..], [line] if line.contains("grad.layer2.0.conv1.weight")), "{text}");
    let missing = command(Path::new("no-such-dump.safetensors"));
    assert_eq!(missing.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("hint:"));
}
