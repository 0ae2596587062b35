//! Files that claim to be checkpoints: cut, damaged, or made to deceive. Each is refused with a message, or is what it says.

mod common;

use std::path::Path;
use std::sync::LazyLock;

use common::{contents, cqat, workplace};
use cqat::checkpoint::{Checkpoint, Meta, Phase, Position};
use cqat::evaluate::Loaded;
use cqat::kernels::input::random;
use cqat::safetensors_io::{self, NamedTensor, Refused, parse};
use cqat::{Error, ErrorKind};
use proptest::prelude::*;
use tempfile::TempDir;

/// A place with a run in `run` that has done everything once.
static PLACE: LazyLock<TempDir> = LazyLock::new(|| {
    let place = workplace();
    let sets = ["--set", "train.float_epochs=1", "--set", "train.quant_epochs=1"];
    cqat(place.path(), &[&["train", "tiny.yaml", "--out", "run"], &sets[..]].concat()).ok();
    place
});

fn checkpoint() -> Checkpoint {
    Checkpoint::read(&PLACE.path().join("run/last.safetensors")).unwrap()
}

fn file_with(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn files_that_are_made_to_deceive() {
    let one = |info: &str| file_with(&format!("{{\"a\":{info}}}"), &[0; 8]);
    let huge = |length: u64| [&length.to_le_bytes()[..], b"{}"].concat();
    let deceptions = [
        ("nothing", vec![]),
        ("half a length", vec![2, 0, 0]),
        ("a header of no bytes", huge(0)),
        ("a header longer than the file", huge(3)),
        ("a header longer than memory", huge(u64::MAX)),
        ("a header longer than allowed", huge(100_000_001)),
        ("deep nesting", file_with(&"{\"a\":".repeat(10_000), &[])),
        ("deep lists", file_with(&"[".repeat(100_000), &[])),
        ("no object", file_with("3", &[])),
        ("not UTF-8", [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat()),
        ("an end before the start", one(r#"{"dtype":"F32","shape":[2],"data_offsets":[8,0]}"#)),
        ("an offset beyond the file", one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,800]}"#)),
        ("a gap", one(r#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#)),
        ("a shape that does not fit", one(r#"{"dtype":"F32","shape":[3],"data_offsets":[0,8]}"#)),
        (
            "a shape whose product overflows",
            one(r#"{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,8]}"#),
        ),
        ("a negative extent", one(r#"{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#)),
        ("a huge number", one(r#"{"dtype":"F32","shape":[1e999],"data_offsets":[0,8]}"#)),
        ("an unknown type", one(r#"{"dtype":"F33","shape":[2],"data_offsets":[0,8]}"#)),
        (
            "two tensors in one place",
            file_with(
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
                &[0; 8],
            ),
        ),
    ];
    for (what, bytes) in deceptions {
        assert!(matches!(parse(&bytes), Err(Refused::Broken(_))), "{what}");
        let path = PLACE.path().join("deception.safetensors");
        std::fs::write(&path, bytes).unwrap();
        says(Checkpoint::read(&path).unwrap_err(), "is not a whole safetensors file", "use another checkpoint");
    }
    let types = one(r#"{"dtype":"F16","shape":[4],"data_offsets":[0,8]}"#);
    assert!(matches!(parse(&types), Err(Refused::Type(name, _)) if name == "a"));
    // Bytes are codes and nothing else: as numbers they would take four times the memory.
    let bytes = one(r#"{"dtype":"I8","shape":[8],"data_offsets":[0,8]}"#);
    assert!(matches!(parse(&bytes), Err(Refused::Type(name, _)) if name == "a"));
}

/// A sparse file of gigabytes, which is none of ours, is not read into memory.
#[cfg(unix)]
#[test]
fn a_large_file_of_something_else() {
    let path = PLACE.path().join("sparse.safetensors");
    std::fs::File::create(&path).unwrap().set_len(3 << 30).unwrap();
    let ran = common::limited(2000, PLACE.path(), &["eval", "sparse.safetensors"]);
    ran.fails(5, "is not a whole safetensors file", "use another checkpoint");
    std::fs::File::create(&path).unwrap().set_len(9 << 30).unwrap();
    says(
        Checkpoint::read(&path).unwrap_err(),
        "is 9663676416 bytes, expected at most 4294967296",
        "is it a checkpoint",
    );
    std::fs::remove_file(path).unwrap();
}

#[track_caller]
fn says(e: Error, message: &str, hint: &str) {
    assert_eq!(e.kind(), ErrorKind::Training, "{e}");
    assert!(e.to_string().contains(message), "message: {e}\nexpected: {message}");
    assert!(e.hint_text().unwrap_or_default().contains(hint), "hint: {:?}\nexpected: {hint}", e.hint_text());
}

/// Whole files whose values no run writes.
#[test]
fn impossible_values() {
    let path = PLACE.path().join("impossible.safetensors");
    let refused = |change: &dyn Fn(&mut Checkpoint), message: &str| {
        let mut checkpoint = checkpoint();
        change(&mut checkpoint);
        checkpoint.write(&path).unwrap();
        says(Checkpoint::read(&path).unwrap_err(), message, "use another checkpoint");
    };
    let set = |name: &'static str, value: f32| {
        move |c: &mut Checkpoint| c.tensors.get_mut(name).unwrap_or_else(|| panic!("{name}")).data[0] = value
    };
    refused(&set("conv1.weight", f32::NAN), "conv1.weight holds values that are not finite");
    refused(&set("bn1.running_var", -1.0), "bn1.running_var holds a value below 0");
    refused(&set("quant.stem.scale", 0.0), "quant.stem.scale holds a value that is not above 0");
    refused(
        &set("quant.conv1.weight.inv_scale", -1.0),
        "quant.conv1.weight.inv_scale holds a value that is not above 0",
    );
    let average = |c: &mut Checkpoint| {
        c.tensors.insert("live.quant.conv1.weight.scale".into(), NamedTensor { shape: vec![8], data: vec![0.0; 8] });
    };
    refused(&average, "live.quant.conv1.weight.scale holds a value that is not above 0");
    let std = |value: f32| move |c: &mut Checkpoint| c.meta.normalisation.std[1] = value;
    refused(&std(0.0), "the normalisation of the input is impossible");
    refused(&std(1e-42), "the normalisation of the input is impossible");
    // A name reaches the terminal as text.
    let strange = |c: &mut Checkpoint| {
        let tensor = NamedTensor { shape: vec![1], data: vec![f32::INFINITY] };
        c.tensors.insert("\u{1b}[2Jx".into(), tensor);
    };
    refused(&strange, "\\u{1b}[2Jx holds values that are not finite");
}

/// Metadata that JSON and YAML allow, and a run does not.
#[test]
fn impossible_metadata() {
    let run = PLACE.path().join("copy");
    std::fs::create_dir(&run).unwrap();
    for (path, bytes) in contents(&PLACE.path().join("run")) {
        std::fs::write(run.join(path.file_name().unwrap()), bytes).unwrap();
    }
    let yaml = std::fs::read_to_string(run.join("config.yaml")).unwrap();
    let whole = std::fs::read(run.join("last.safetensors")).unwrap();
    let changed = |change: &dyn Fn(&mut Checkpoint), message: &str| {
        let mut checkpoint = checkpoint();
        change(&mut checkpoint);
        std::fs::write(run.join("config.yaml"), &checkpoint.meta.config).unwrap();
        checkpoint.write(&run.join("last.safetensors")).unwrap();
        let ran = cqat(PLACE.path(), &["train", "--resume", "copy"]);
        assert!(
            (2..=5).contains(&ran.code) && ran.err.contains(message),
            "{}: {}\nexpected: {message}",
            ran.code,
            ran.err
        );
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
    };
    let refused = |change: &dyn Fn(&mut Meta), message: &str| changed(&|c| change(&mut c.meta), message);
    let codes = |c: &mut Checkpoint| {
        c.tensors.insert("quant.conv1.weight.codes".into(), NamedTensor { shape: vec![3], data: vec![1.0; 3] });
    };
    changed(&codes, "tensor quant.conv1.weight.codes has shape [3], expected");
    let position = |change: fn(&mut Position)| move |m: &mut Meta| change(&mut m.position);
    refused(&position(|p| p.epoch = u32::MAX), "the checkpoint stands at epoch 4294967295");
    refused(&position(|p| p.global_step = u64::MAX), "18446744073709551615 steps in all");
    refused(&position(|p| (p.phase, p.step) = (Phase::Float, u32::MAX)), "step 4294967295");
    refused(&|m| m.config = "train: {batch: 0}".into(), "`train.batch` is 0");
    refused(&|m| m.config = format!("train: {}", "[".repeat(1000)), "brackets nested more than 64 deep");
    refused(&|m| m.config = "network: {width: 1024, depth: 56, classes: 4294967295}".into(), "");
    refused(&|m| m.config = String::new(), "");
    refused(&|m| m.data_sha256 = "0".into(), "other data");
    let mut without_classes = checkpoint();
    without_classes.meta.class_names.clear();
    without_classes.meta.config = without_classes.meta.config.replace("classes:", "# ");
    without_classes.write(&PLACE.path().join("classless.safetensors")).unwrap();
    std::fs::write(PLACE.path().join("x.png"), "").unwrap();
    for kind in ["float", "folded"] {
        let ran = cqat(PLACE.path(), &["infer", "classless.safetensors", "x.png", "--kind", kind]);
        ran.fails(2, "network.classes is 0", "the data set's");
    }
    let foreign = |text: &str| {
        let mut file = safetensors_io::parse(&whole).unwrap();
        file.metadata.insert("cqat".into(), text.into());
        let path = PLACE.path().join("foreign.safetensors");
        safetensors_io::write(&path, &file).unwrap();
        says(Checkpoint::read(&path).unwrap_err(), "is not a checkpoint of this program", "train.init_from");
    };
    foreign("");
    foreign("[1");
    foreign("{\"format_version\":2}");
    foreign(&"[".repeat(1 << 20));
    std::fs::write(run.join("config.yaml"), yaml).unwrap();
    std::fs::write(run.join("last.safetensors"), &whole).unwrap();
    let ran = cqat(PLACE.path(), &["train", "--resume", "copy"]).ok();
    assert!(ran.err.contains("finished already"));
}

/// Reads bytes as every command would, up to the network in integers.
fn open(bytes: &[u8], path: &Path) -> cqat::Result<()> {
    std::fs::write(path, bytes).unwrap();
    let loaded = Loaded::read(path)?;
    let (net, spec) = cqat::setup::network(&loaded.config, 100)?;
    let spec = spec.ok_or_else(|| Error::training("float"))?;
    let Checkpoint { tensors, meta } = &loaded.checkpoint;
    cqat::integer::IntegerNet::fold(&net, &spec, tensors, &meta.normalisation, cqat::integer::Multiplier::Bits32)
        .map(|_| ())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Bytes changed at a few places, most of them in the header: refused, or still a network. Never a panic.
    #[test]
    fn changed_bytes(seed in any::<u32>(), count in 1u32..6, header in any::<bool>()) {
        let mut bytes = std::fs::read(PLACE.path().join("run/last.safetensors")).unwrap();
        let end = if header { u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8 } else { bytes.len() };
        for i in 0..count {
            let at = random(seed, i, 0) as usize % end;
            bytes[at] = match i % 3 {
                0 => b"0123456789[]{},:\"\\-e."[random(seed, i, 1) as usize % 21],
                1 => bytes[at] ^ (1 << (random(seed, i, 1) % 8)),
                _ => random(seed, i, 1) as u8,
            };
        }
        let folder = tempfile::tempdir().unwrap();
        let _ = open(&bytes, &folder.path().join("changed.safetensors"));
    }

    /// Wherever a file ends, it is not whole.
    #[test]
    fn cut_short(seed in any::<u32>()) {
        let bytes = std::fs::read(PLACE.path().join("run/last.safetensors")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cut = &bytes[..seed as usize % bytes.len()];
        let e = open(cut, &folder.path().join("cut.safetensors")).unwrap_err();
        prop_assert!(e.to_string().contains("is not a whole safetensors file"), "{}", e);
    }
}
