//! What a sweep recorded of runs that failed, for those who look at its folder.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::MOST_RUNS;
use crate::files;

/// Most files of `state/` that are looked at: three a run, some of the sweep itself.
const MOST_FILES: usize = 3 * MOST_RUNS + 100;

/// The runs of the sweep in `folder` that failed, by the place that their run folders have or would have, each with its error. None where the
/// folder holds no sweep.
pub fn failures(folder: &Path) -> Vec<(PathBuf, String)> {
    let records = files::list(&folder.join("state"), MOST_FILES).unwrap_or_default();
    let failure = |file: PathBuf| {
        let record: Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
        let hint = record["hint"].as_str().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        Some((folder.join(file.file_stem()?), format!("{}{hint}", record["error"].as_str()?)))
    };
    records.into_iter().filter(|file| file.extension().is_some_and(|e| e == "json")).filter_map(failure).collect()
}
