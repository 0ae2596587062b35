//! A report over runs: a self-contained HTML page, a table as CSV, and one for the terminal.
//!
//! [`Report::gather`] reads what the folders say; [`detail`] looks closer at single runs, where their checkpoints and pictures are
//! at hand; [`page`] and [`table`] show it.

pub mod detail;
mod distribution;
mod groups;
mod page;
mod runs;
pub mod stats;
mod superclasses;
mod svg;
mod table;

use std::path::{Path, PathBuf};

pub use groups::Group;
pub use page::{page, plots};
pub use runs::{Epoch, Run, Trace};
pub use table::{csv, text};

use crate::sweep::failures;
use crate::terminal::explain;
use crate::{Error, Result};
use detail::OnPictures;
pub use distribution::Distribution;

/// What is shown.
pub struct Report {
    /// The runs that can be read, in the order they were named.
    pub runs: Vec<Run>,
    /// Runs that differ in their seed alone, best first.
    pub groups: Vec<Group>,
    /// Folders that cannot be shown, each with what is wrong.
    pub broken: Vec<(PathBuf, String)>,
    /// Closer looks at single runs.
    pub details: Vec<Detail>,
}

/// A closer look at a run; a part that could not be had is what was wrong instead.
pub struct Detail {
    /// Its place among the runs.
    pub run: usize,
    /// Distributions of its weights.
    pub weights: std::result::Result<Vec<Distribution>, String>,
    /// What the test pictures say.
    pub pictures: std::result::Result<OnPictures, String>,
}

impl Report {
    /// Reads the run folders `paths`, and those within folders of runs.
    ///
    /// # Errors
    /// None of them can be shown.
    pub fn gather(paths: &[PathBuf]) -> Result<Report> {
        let (mut runs, mut broken, mut first) = (Vec::new(), Vec::new(), None);
        for (path, error) in runs::folders(paths) {
            match error.map_or_else(|| Run::read(&path), Err) {
                Ok(run) => runs.push(run),
                Err(e) => {
                    broken.push((path, explain(&e)));
                    first.get_or_insert(e);
                }
            }
        }
        for (path, error) in paths.iter().flat_map(|path| failures(path)) {
            let place = real(&path);
            match runs.iter_mut().find(|run| real(&run.path) == place) {
                Some(run) => run.notes.push(format!("failed: {error}")),
                None if broken.iter().any(|(known, _)| real(known) == place) => {}
                None => broken.push((path, error)),
            }
        }
        if runs.is_empty() {
            let hint = "name run folders (`cqat train` prints them), or a folder that holds some";
            return Err(first.unwrap_or_else(|| Error::training("no run folder was named").hint(hint)));
        }
        distinguish(&mut runs);
        let groups = groups::groups(&runs);
        Ok(Report { runs, groups, broken, details: Vec::new() })
    }

    /// Place of the run in the folder `path`.
    pub fn find(&self, path: &Path) -> Option<usize> {
        self.runs.iter().position(|run| real(&run.path) == real(path))
    }

    /// The run that a closer look tells most of: the best quantized one, else the best.
    pub fn best(&self) -> usize {
        let quantized = |g: &&Group| g.runs.iter().any(|i| self.runs[*i].score().is_some_and(|s| s.phase == "quant"));
        let group = self.groups.iter().find(quantized).unwrap_or(&self.groups[0]);
        let score = |i: &usize| self.runs[*i].score().map_or(f64::NEG_INFINITY, |s| s.top1);
        group.runs.iter().copied().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap_or(0)
    }
}

/// A path however it is spelled.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Runs in folders of the same name are called by more of their path.
fn distinguish(runs: &mut [Run]) {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for run in runs {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = run.path.display().to_string();
        }
    }
}
