//! Helpers of the tests that train. There is no way to skip: a machine without an adapter fails them and is told what to
//! install.

#![allow(dead_code, reason = "every test binary uses a part of them")]

pub mod random_net;
pub mod undisturbed;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cqat::checkpoint::Checkpoint;
use cqat::config::Config;
use cqat::data::{DataSet, EMBEDDED, PICTURE_BYTES, load};
use cqat::exec::Device;
use cqat::gpu::{Gpu, OpenOptions};
use cqat::kernels::input::random;
use cqat::plan::lower::Lowered;
use cqat::run::{FORMAT_VERSION, Manifest, RunFolder, Versions};
use cqat::setup::lower_for_training;
use cqat::train::{Outcome, Trainer};
use cqat::tune;
use serde_json::Value;

/// The adapter that `CQAT_TEST_DEVICE` names, else the software adapter.
pub fn device() -> String {
    std::env::var("CQAT_TEST_DEVICE").unwrap_or_else(|_| "cpu".into())
}

/// A device on [`device`].
pub fn gpu(checked: bool) -> Gpu {
    let options = OpenOptions { device: Some(device()), memory_mib: None, checked };
    Gpu::open(&options).unwrap_or_else(|e| panic!("{e}\nhint: {}", e.hint_text().unwrap_or("make setup")))
}

/// The smallest network: ResNet-8 of width 8. `sets` as for `--set`.
pub fn tiny(sets: &[&str]) -> Config {
    let sets: Vec<String> = sets.iter().map(|s| s.to_string()).collect();
    let config = Config::from_yaml("{network: {depth: 8, width: 8}, train: {batch: 8}}", "tiny", &sets).unwrap();
    config.validate().unwrap_or_else(|e| panic!("{sets:?}: {e}"));
    config
}

/// The first pictures of the embedded set.
pub fn embedded(train: usize, test: usize) -> DataSet {
    let mut data = load(EMBEDDED, 0, 0).unwrap();
    for (split, count) in [(&mut data.train, train), (&mut data.test, test)] {
        split.images.truncate(count * PICTURE_BYTES);
        split.labels.truncate(count);
    }
    data
}

/// The network of `config` for `data`.
pub fn lowered(config: &Config, data: &DataSet, device: &dyn Device) -> Lowered {
    lower_for_training(config, data.classes, device.caps(), data.train.len()).unwrap_or_else(|e| panic!("{e}"))
}

/// Starts a run in `out` and trains it.
pub fn train(
    config: &Config,
    data: &DataSet,
    device: &dyn Device,
    out: &Path,
    stop_after: Option<u32>,
) -> cqat::Result<Outcome> {
    let lowered = lowered(config, data, device);
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        versions: Versions::now(),
        adapter: device.summary(),
        data: &data.name,
        data_sha256: &data.sha256,
        kernels: tune::in_use(&lowered),
        command: vec![],
        started: 0,
    };
    let create = || RunFolder::create(out, config, &manifest);
    Trainer::start(config, data, device, &lowered, create, true)?.run(stop_after)
}

/// Lines of one phase and split, in order.
pub fn lines(run: &Path, phase: &str, split: &str) -> Vec<Value> {
    let wanted = |l: &Value| l["kind"] == "epoch" && l["phase"] == phase && l["split"] == split;
    metrics(run).into_iter().filter(wanted).collect()
}

/// Resumes the run in `out` from a checkpoint, to its end.
pub fn go_on(out: &Path, from: Checkpoint, config: &Config, data: &DataSet) -> cqat::Result<Outcome> {
    let gpu = gpu(false);
    let lowered = lowered(config, data, &gpu);
    Trainer::resume(config, data, &gpu, &lowered, RunFolder::open(out)?, from, true)?.run(None)
}

/// Resumes the run in `out` from its last checkpoint, to its end.
pub fn resume(out: &Path, config: &Config, data: &DataSet) -> cqat::Result<Outcome> {
    go_on(out, last(out), config, data)
}

/// The last checkpoint of a run.
pub fn last(run: &Path) -> Checkpoint {
    Checkpoint::read(&run.join("last.safetensors")).unwrap_or_else(|e| panic!("{e}"))
}

/// The lines of `metrics.jsonl`, without what differs between equal runs.
pub fn metrics(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let parsed = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    parsed
        .filter(|line: &Value| line["kind"] != "heartbeat")
        .map(|mut line: Value| {
            let object = line.as_object_mut().unwrap();
            object.retain(|key, _| !["seconds", "images_per_second"].contains(&key.as_str()));
            line
        })
        .collect()
}

/// `count` CIFAR-100 records of ten classes that differ in colour, with noise.
pub fn cifar100(count: usize, seed: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for i in 0..count {
        let class = (i % 10) as u8;
        bytes.extend([class / 5, class]);
        bytes.extend((0..PICTURE_BYTES).map(|p| {
            let plane = if p / 1024 == usize::from(class) % 3 { 60 } else { 0 };
            20 * class + plane + (random(seed, (i * PICTURE_BYTES + p) as u32, 0) % 16) as u8
        }));
    }
    bytes
}

/// A folder to run the program in: `data` with 48 training and 16 test pictures, and `tiny.yaml`: two float and two
/// quantized epochs of six steps.
pub fn workplace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    file("data/train.bin", &cifar100(48, 1));
    file("data/test.bin", &cifar100(16, 2));
    file("tiny.yaml", b"network: {depth: 8, width: 8}\ntrain: {batch: 8, float_epochs: 2, quant_epochs: 2}\n");
    folder
}

/// The program with its output captured, in `folder`, away from the caller's settings.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cqat"));
    command.current_dir(folder).args(arguments).env_remove("CQAT_DATA").env_remove("RUST_LOG");
    command.env("CQAT_CACHE", folder.join("cache"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// As [`command`], on [`device`].
pub fn on_device(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = command(folder, arguments);
    command.args(["--device", &device()]);
    command
}

/// As [`command`], with no more than `mib` MiB of address space: an allocation beyond that ends it. Only Linux has such a
/// limit.
pub fn limited(mib: u64, folder: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new("bash");
    let script = format!("ulimit -v {}; exec \"$0\" \"$@\"", mib << 10);
    command.current_dir(folder).args(["-c", &script, env!("CARGO_BIN_EXE_cqat")]).args(arguments);
    Ran::of(command)
}

/// Sends a signal, such as `-INT`.
pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// How the program ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(mut command: Command) -> Ran {
        Ran::from(command.output().unwrap())
    }

    /// Fails the test unless the program succeeded.
    #[track_caller]
    pub fn ok(self) -> Ran {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }

    /// The program failed with this code, a message and a hint that hold these words, and no panic.
    #[track_caller]
    pub fn fails(self, code: i32, message: &str, hint: &str) -> Ran {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        let starts = |word: &str| self.err.lines().find_map(|l| l.strip_prefix(word)).unwrap_or_default().to_string();
        assert!(starts("error: ").contains(message), "expected the error: {message}\n{}", self.err);
        assert!(starts("hint: ").contains(hint), "expected the hint: {hint}\n{}", self.err);
        self
    }
}

impl From<std::process::Output> for Ran {
    fn from(output: std::process::Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Runs the program in `folder` on [`device`].
pub fn cqat(folder: &Path, arguments: &[&str]) -> Ran {
    Ran::of(on_device(folder, arguments))
}

/// The JSON that a command printed.
pub fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Every file below `folder` with its bytes.
pub fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { all.push((path.clone(), std::fs::read(path).unwrap())) }
        }
    }
    all.sort();
    all
}
