//! What a run must survive: kills at any moment, full disks, lost devices, moves. Nothing that was saved is lost.

mod common;

use std::cell::Cell;
use std::path::Path;
use std::time::Instant;

use common::undisturbed::{at, equals_the_undisturbed, place};
use common::{Ran, contents, cqat, embedded, gpu, last, lowered, metrics, on_device, tiny, train};
use cqat::exec::{AdapterSummary, Device, Executor};
use cqat::gpu::Gpu;
use cqat::kernels::Caps;
use cqat::kernels::input::random;
use cqat::plan::{Plan, ProgramId, TensorId};
use cqat::run::RunFolder;
use cqat::train::{Outcome, Trainer};
use cqat::{ErrorKind, Result};

/// Kills at random moments, every second one while a file is being written, until there are `CQAT_KILLS` of them (6
/// without it). A run that gets to its end between them is compared and a new one begun. `scripts/kill-resume.sh` kills a hundred
/// times.
#[test]
fn killed_at_any_moment_and_resumed() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |n| n.parse::<u64>().expect(name));
    let (kills, seed) = (number("CQAT_KILLS", 6), number("CQAT_KILL_SEED", 1));
    let start = Instant::now();
    cqat(place(), &["train", "tiny.yaml", "--out", "timed"]).ok();
    let whole = start.elapsed();
    let (mut killed, mut ended, mut writing) = (0, 0, 0);
    let mut name = "killed0".to_string();
    for attempt in 0.. {
        assert!(attempt < 10 + 10 * kills, "runs end before they are killed");
        let out = place().join(&name);
        let resumes = out.join("last.safetensors").exists();
        if !resumes {
            let _ = std::fs::remove_dir_all(&out); // killed before its first checkpoint, there is nothing in it
        }
        let arguments =
            if resumes { vec!["train", "--resume", &name] } else { vec!["train", "tiny.yaml", "--out", &name] };
        let mut child = on_device(place(), &arguments).spawn().unwrap();
        let (start, delay) =
            (Instant::now(), whole.mul_f64(f64::from(random(seed as u32, attempt as u32, 0)) / f64::from(u32::MAX)));
        let now = || start.elapsed() >= delay && (attempt % 2 == 0 || half_written(&out));
        let finished = loop {
            match child.try_wait().unwrap() {
                None if now() => break false,
                None => {}
                Some(status) => {
                    assert!(status.success(), "{}", Ran::from(child.wait_with_output().unwrap()).err);
                    break true;
                }
            }
        };
        if finished {
            equals_the_undisturbed(&name);
            ended += 1;
            name = format!("killed{ended}");
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        writing += u32::from(half_written(&out));
        if out.join("last.safetensors").exists() {
            last(&out); // whole, always
        }
        if killed == kills {
            break;
        }
    }
    println!("{killed} kills, {writing} of them while a file was written; {ended} runs came to their end between them");
    if place().join(&name).join("last.safetensors").exists() {
        cqat(place(), &["train", "--resume", &name]).ok();
        equals_the_undisturbed(&name);
        let left: Vec<_> = contents(&place().join(&name)).into_iter().map(|(path, _)| path).collect();
        assert!(!half_written(&place().join(&name)), "half-written files are removed: {left:?}");
    }
}

/// Whether a file lies there that is renamed once it is whole.
fn half_written(folder: &Path) -> bool {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.into_iter().any(|file| file.path().extension().is_some_and(|e| e == "tmp"))
}

/// The disk is full after `kib` KiB of any file: wherever a write stops, what was there before is whole, and the run goes on.
#[cfg(unix)]
#[test]
fn a_disk_that_is_full_at_any_write() {
    let start = place().join("roomless-start");
    cqat(place(), &["train", "tiny.yaml", "--out", "roomless-start", "--stop-after", "1"]).ok();
    let checkpoint = std::fs::metadata(start.join("last.safetensors")).unwrap().len();
    let manifest = std::fs::metadata(start.join("manifest.json")).unwrap().len();
    let named = |kib: u64| match kib * 1024 {
        room if room < manifest + 1024 => "manifest.json", // resuming adds an entry
        room if room < checkpoint => "last.safetensors",
        _ => "metrics.jsonl",
    };
    // In the manifest, then in the checkpoint: at its start, within it, just before its end.
    for kib in [0, 1, 8, checkpoint / 2048, checkpoint / 1024] {
        let name = format!("roomless{kib}");
        copy(&start, &place().join(&name));
        let before = contents(&place().join(&name));
        let mut limited = std::process::Command::new("bash");
        let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
        limited.current_dir(place()).args(["-c", &script, env!("CARGO_BIN_EXE_cqat")]);
        limited.args(["train", "--resume", &name, "--device", &common::device()]);
        let ran = Ran::of(limited).fails(5, "cannot be written", "check that the disk has room");
        assert!(ran.err.contains(named(kib)), "{kib} KiB: {}", ran.err);
        assert!(!half_written(&place().join(&name)), "{kib} KiB: half a file is left");
        let file = |all: &[(std::path::PathBuf, Vec<u8>)]| {
            all.iter().find(|(path, _)| path.ends_with("last.safetensors")).unwrap().1.clone()
        };
        assert!(file(&before) == file(&contents(&place().join(&name))), "{kib} KiB: the checkpoint has changed");
        cqat(place(), &["train", "--resume", &name]).ok();
        equals_the_undisturbed(&name);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for (path, bytes) in contents(from) {
        std::fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
    }
}

/// A checkpoint that cannot take the place of the one before.
#[test]
fn a_checkpoint_that_cannot_be_renamed() {
    cqat(place(), &["train", "tiny.yaml", "--out", "unnamed", "--stop-after", "1"]).ok();
    let out = place().join("unnamed");
    std::fs::create_dir(out.join("float.safetensors")).unwrap();
    let ran = cqat(place(), &["train", "--resume", "unnamed"]);
    ran.fails(5, "float.safetensors cannot be written", "what was there before is untouched");
    assert_eq!((at("unnamed").epoch, half_written(&out)), (2, false));
    std::fs::remove_dir(out.join("float.safetensors")).unwrap();
    cqat(place(), &["train", "--resume", "unnamed"]).ok();
    equals_the_undisturbed("unnamed");
}

/// A run does not know where it lies.
#[test]
fn a_run_folder_that_was_moved() {
    let elsewhere = tempfile::tempdir().unwrap();
    cqat(place(), &["train", "tiny.yaml", "--out", "moving", "--stop-after", "2"]).ok();
    let moved = elsewhere.path().join("moved");
    copy(&place().join("moving"), &moved);
    std::fs::remove_dir_all(place().join("moving")).unwrap();
    let data = place().join("data");
    let arguments = ["train", "--resume", "moved", "--data", data.to_str().unwrap()];
    cqat(elsewhere.path(), &arguments).ok();
    assert!(last(&moved).tensors == last(&place().join("full")).tensors);
    assert_eq!(metrics(&moved), metrics(&place().join("full")));
    cqat(elsewhere.path(), &["eval", "moved", "--data", data.to_str().unwrap()]).ok();
}

/// Whichever of its files tells, a run of a newer version is left as it is.
#[test]
fn a_run_of_a_newer_version() {
    let out = place().join("newer");
    cqat(place(), &["train", "tiny.yaml", "--out", "newer", "--stop-after", "1"]).ok();
    let before = contents(&out);
    let replaced = |file: &str, from: &str, to: &str| {
        let text = std::fs::read(out.join(file)).unwrap();
        let at =
            text.windows(from.len()).position(|w| w == from.as_bytes()).unwrap_or_else(|| panic!("{from} in {file}"));
        let new = [&text[..at], to.as_bytes(), &text[at + from.len()..]].concat();
        std::fs::write(out.join(file), new).unwrap();
    };
    for (file, from, to, code, message) in [
        ("last.safetensors", "\\\"format_version\\\":2", "\\\"format_version\\\":9", 5, "has format_version 9"),
        ("config.yaml", "format_version: 1", "format_version: 9", 2, "has format_version 9"),
        ("manifest.json", "\"format_version\": 1", "\"format_version\": 9", 5, "has format_version 9"),
        ("metrics.jsonl", "\"format_version\":1", "\"format_version\":9", 5, "has format_version 9"),
    ] {
        replaced(file, from, to);
        let changed = contents(&out);
        let ran = cqat(place(), &["train", "--resume", "newer"]);
        let ran = ran.fails(code, message, "use the ");
        assert!(ran.err.contains(file), "{}", ran.err);
        assert!(contents(&out) == changed, "{file}: something was touched");
        for other in [&["eval", "newer"][..], &["infer", "newer", "newer/a.png"], &["compare", "newer", "newer"]] {
            // The weights are not looked at where they are not needed.
            if other[0] != "compare" || file != "last.safetensors" {
                cqat(place(), other).fails(code, message, "use the ");
            }
        }
        for (path, bytes) in &before {
            std::fs::write(path, bytes).unwrap();
        }
    }
    cqat(place(), &["train", "--resume", "newer"]).ok();
    equals_the_undisturbed("newer");
}

/// A device that is lost after so many programs.
struct Fragile {
    gpu: Gpu,
    left: Cell<u32>,
}

struct FragileExecutor<'a> {
    device: &'a Fragile,
    inner: Box<dyn Executor + 'a>,
}

impl Device for Fragile {
    fn caps(&self) -> &Caps {
        self.gpu.caps()
    }

    fn summary(&self) -> &AdapterSummary {
        self.gpu.summary()
    }

    fn load<'a>(&'a self, plan: &'a Plan) -> Result<Box<dyn Executor + 'a>> {
        Ok(Box::new(FragileExecutor { device: self, inner: self.gpu.load(plan)? }))
    }
}

impl Executor for FragileExecutor<'_> {
    fn write(&mut self, tensor: TensorId, words: &[u32]) {
        self.inner.write(tensor, words);
    }

    fn run(&mut self, program: ProgramId) -> Result<()> {
        let ran = self.inner.run(program);
        if self.device.left.replace(self.device.left.get().saturating_sub(1)) == 1 {
            self.device.gpu.destroy(); // while the program runs
        }
        ran
    }

    fn read(&mut self, tensor: TensorId) -> Result<Vec<u32>> {
        self.inner.read(tensor)
    }
}

/// In the middle of any step: the last checkpoint is intact, and the run goes on from it.
#[test]
fn a_device_that_is_lost() {
    let (folder, whole, data) = (tempfile::tempdir().unwrap(), gpu(false), embedded(32, 16));
    let config = tiny(&["train.float_epochs=1", "train.quant_epochs=1"]);
    let full = folder.path().join("full");
    train(&config, &data, &whole, &full, None).unwrap();
    // Four steps, an evaluation of two batches, calibration, four steps, an evaluation.
    for programs in [1, 3, 6, 8, 13, 18] {
        let out = folder.path().join(format!("lost{programs}"));
        let fragile = Fragile { gpu: gpu(false), left: Cell::new(programs) };
        let e = train(&config, &data, &fragile, &out, None).expect_err("the device was lost");
        assert_eq!(e.kind(), ErrorKind::Device, "after {programs}: {e}");
        assert!(e.hint_text().unwrap_or_default().contains("--resume"), "after {programs}: {e}: {:?}", e.hint_text());
        let checkpoint = last(&out);
        let (lowered, folder) = (lowered(&config, &data, &whole), RunFolder::open(&out).unwrap());
        let mut trainer = Trainer::resume(&config, &data, &whole, &lowered, folder, checkpoint, true).unwrap();
        assert_eq!(trainer.run(None).unwrap(), Outcome::Finished);
        assert!(last(&out).tensors == last(&full).tensors, "after {programs}");
    }
}
