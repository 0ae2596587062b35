//! A run that nothing disturbs, and the claim that another one equals it.

use std::path::Path;
use std::sync::LazyLock;

use cqat::checkpoint::{Checkpoint, Position};
use tempfile::TempDir;

use super::{cqat, last, metrics, workplace};

/// A place with an undisturbed run in `full`.
static PLACE: LazyLock<TempDir> = LazyLock::new(|| {
    let place = stateful();
    cqat(place.path(), &["train", "tiny.yaml", "--out", "full"]).ok();
    place
});

/// A workplace whose `tiny.yaml` has everything that a run can keep from step to step.
pub fn stateful() -> TempDir {
    let place = workplace();
    let config = "network: {depth: 8, width: 8}
quant: {reestimate_batches: 4}
train: {batch: 4, accumulate: 2, float_epochs: 2, quant_epochs: 2, optimizer: {ema_decay: 0.9, clip_norm: 5}}
";
    std::fs::write(place.path().join("tiny.yaml"), config).unwrap();
    place
}

pub fn place() -> &'static Path {
    PLACE.path()
}

/// The run equals the undisturbed one: weights, optimizer, quantizers, position, metrics.
#[track_caller]
pub fn equals_the_undisturbed(run: &str) {
    let (full, run) = (place().join("full"), place().join(run));
    let (a, b) = (last(&full), last(&run));
    let differing: Vec<&String> = a.tensors.keys().filter(|k| b.tensors.get(*k) != Some(&a.tensors[*k])).collect();
    assert!(differing.is_empty() && a.tensors.len() == b.tensors.len(), "tensors differ: {differing:?}");
    assert_eq!(a.meta.position, b.meta.position);
    for (i, (x, y)) in metrics(&full).iter().zip(&metrics(&run)).enumerate() {
        assert_eq!(x, y, "line {i} of the metrics");
    }
    assert_eq!(metrics(&full).len(), metrics(&run).len());
    let float = |run: &Path| Checkpoint::read(&run.join("float.safetensors")).unwrap().tensors;
    assert!(float(&full) == float(&run), "float.safetensors differs");
}

pub fn at(run: &str) -> Position {
    last(&place().join(run)).meta.position
}
