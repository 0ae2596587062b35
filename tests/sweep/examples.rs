//! The examples of docs/examples and configs/sweeps are what the program takes.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cqat::ErrorKind;
use cqat::sweep::Sweep;

use crate::common::{Ran, command};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_sweeps_are_valid() {
    let bits = Sweep::read(&here("configs/sweeps/bits.yaml"), &[]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((bits.runs.len(), bits.starts.len(), bits.runs[1].name.as_str()), (60, 1, "auto-w2-a3"));
    assert!(bits.runs.iter().all(|run| run.config.data.subset == Some(10_000)));
    let quick = Sweep::read(&here("configs/sweeps/quick.yaml"), &[]).unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<&str> = quick.runs.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(names, ["float-seed0", "float-seed1", "w5a4-seed0", "w5a4-seed1", "w3a3-seed0", "w3a3-seed1"]);
    assert!(quick.starts.is_empty() && quick.runs[3].start.as_deref() == Some("float-seed1"));
}

/// The documented sweeps, by themselves.
#[test]
fn the_documented_sweeps_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    let docs = text(&here("docs/sweeps.md"));
    let blocks: Vec<&str> = docs.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 2);
    for (block, runs) in blocks.iter().zip([20, 6]) {
        let path = folder.path().join("s.yaml");
        std::fs::write(&path, block).unwrap();
        assert_eq!(Sweep::read(&path, &[]).unwrap_or_else(|e| panic!("{e}")).runs.len(), runs);
    }
}

/// The job script, with what Slurm would set, up to the command that it gives to `srun`.
#[test]
fn the_slurm_script_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (bin, script) = (folder.path().join("bin"), here("docs/examples/slurm-array.sh"));
    std::fs::create_dir(&bin).unwrap();
    symlink(env!("CARGO_BIN_EXE_cqat"), bin.join("cqat")).unwrap();
    let srun = "#!/bin/sh\ntest \"$1\" = --cpus-per-task=4 || exit 9\nshift\nexec \"$@\" --dry-run\n";
    std::fs::write(bin.join("srun"), srun).unwrap();
    std::fs::set_permissions(bin.join("srun"), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(Command::new("bash").arg("-n").arg(&script).status().unwrap().success());
    let mut slurm = Command::new("bash");
    slurm.arg(&script).current_dir(env!("CARGO_MANIFEST_DIR")).env("OUT", folder.path().join("bits"));
    slurm.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    slurm.env("USER", "me").env("SLURM_ARRAY_TASK_ID", "7").env("SLURM_CPUS_PER_TASK", "4");
    let ran = Ran::of(slurm).ok();
    assert!(ran.out.contains("\nlsq-w8-a8 ") && ran.out.contains("\n8 runs"), "the last eighth of 60:\n{}", ran.out);
    // --gpus-per-task needs the number of tasks.
    assert!(text(&script).contains("#SBATCH --array=0-7\n#SBATCH --ntasks=1\n#SBATCH --gpus-per-task=1\n"));
}

/// The arguments of the job's container, with what Kubernetes would put in.
#[test]
fn the_kubernetes_job_is_valid() {
    let job: serde_yaml::Value = serde_yaml::from_str(&text(&here("docs/examples/kubernetes-job.yaml"))).unwrap();
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&job["kind"], &job["spec"]["completionMode"]), (&"Job".into(), &"Indexed".into()));
    assert_eq!(container["command"], serde_yaml::from_str::<serde_yaml::Value>("[cqat]").unwrap());
    // What ends a run for good, and what is tried again: an interruption is not among them.
    let rules = &job["spec"]["podFailurePolicy"]["rules"];
    assert_eq!((&rules[0]["action"], &rules[1]["action"]), (&"Ignore".into(), &"FailIndex".into()));
    let codes = [ErrorKind::Config, ErrorKind::Training].map(|kind| u64::from(kind.exit_code()));
    let values = rules[1]["onExitCodes"]["values"].as_sequence().unwrap();
    assert!(values.iter().map(|v| v.as_u64().unwrap()).eq(codes));
    assert_eq!(rules[1]["onExitCodes"]["containerName"], container["name"]);
    let folder = tempfile::tempdir().unwrap();
    let path = |word: &str| match word {
        "/sweeps/bits.yaml" => here("configs/sweeps/bits.yaml").display().to_string(),
        _ => word.replace("$(JOB_COMPLETION_INDEX)", "0"),
    };
    let arguments = container["args"].as_sequence().unwrap().iter().map(|word| path(word.as_str().unwrap()));
    let arguments: Vec<String> = arguments.chain(["--dry-run".to_string()]).collect();
    let count = format!("0/{}", job["spec"]["completions"].as_u64().unwrap());
    assert!(arguments.contains(&count), "{arguments:?}");
    let ran = Ran::of(command(folder.path(), &arguments.iter().map(String::as_str).collect::<Vec<_>>())).ok();
    assert!(ran.out.contains("\nauto-w2-a2 ") && ran.out.contains("\n7 runs"), "the first eighth of 60:\n{}", ran.out);
}
