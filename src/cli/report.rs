//! `cqat report`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use super::interrupts::Interrupts;
use super::{Global, train};
use crate::evaluate::Loaded;
use crate::files::{check_free, write_output};
use crate::progress::say;
use crate::report::{self, Detail, Report, detail};
use crate::terminal::explain;
use crate::{Error, ErrorKind, Result, interrupt};

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Run folders, or folders of runs such as that of a sweep
    #[arg(required = true, value_name = "RUN|SWEEP")]
    runs: Vec<PathBuf>,
    /// The HTML file
    #[arg(long, value_name = "FILE.html", value_hint = ValueHint::FilePath)]
    out: PathBuf,
    /// Also a CSV file, one row a run
    #[arg(long, value_name = "FILE.csv", value_hint = ValueHint::FilePath)]
    csv: Option<PathBuf>,
    /// Also the plots of accuracy against costs, as SVG files in this folder
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    plots: Option<PathBuf>,
    /// Look closer at this run: layers, confusions, mistakes; may be repeated; default: the best quantized one
    #[arg(long = "detail", value_name = "RUN")]
    details: Vec<PathBuf>,
    /// Folder or archive of the data set; default: the runs' own, else CQAT_DATA
    #[arg(long, value_name = "PLACE")]
    data: Option<PathBuf>,
    /// Overwrite the files if they exist
    #[arg(long)]
    force: bool,
}

impl ReportArgs {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        for file in std::iter::once(&self.out).chain(&self.csv) {
            check_free(file, self.force)?;
        }
        let place = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        if self.csv.as_ref().map(place) == Some(place(&self.out)) {
            return Err(Error::config("--out and --csv name the same file").hint("give each a file of its own"));
        }
        let mut report = Report::gather(&self.runs)?;
        let plots = self.plots(&report)?;
        let _interrupts = Interrupts::take("leaving; nothing has been written");
        for run in self.chosen(&report)? {
            let detail = self.look(&report, run, global)?;
            report.details.push(detail);
        }
        if let Some(file) = &self.csv {
            write_output(file, &report::csv(&report), ErrorKind::Config)?;
        }
        if let Some(folder) = self.plots.as_ref().filter(|_| !plots.is_empty()) {
            std::fs::create_dir_all(folder).map_err(|e| {
                Error::config(format!("the folder {} cannot be made", folder.display()))
                    .hint("choose another with --plots")
                    .caused_by(e)
            })?;
        }
        for (file, text) in &plots {
            write_output(file, text.as_bytes(), ErrorKind::Config)?;
        }
        write_output(&self.out, report::page(&report).as_bytes(), ErrorKind::Config)?;
        print!("{}", report::text(&report));
        println!("report: {}", self.out.display());
        if let Some(folder) = &self.plots {
            let count = plots.len();
            println!(
                "plots: {count}{}",
                if count == 0 { ", as nothing has been scored".into() } else { format!(" in {}", folder.display()) }
            );
        }
        Ok(())
    }

    /// Files of plots, by place.
    fn plots(&self, report: &Report) -> Result<Vec<(PathBuf, String)>> {
        let Some(folder) = &self.plots else { return Ok(Vec::new()) };
        let files: Vec<_> = report::plots(report).into_iter().map(|(name, text)| (folder.join(name), text)).collect();
        if folder.is_dir() {
            files.iter().try_for_each(|(file, _)| check_free(file, self.force))?;
        }
        Ok(files)
    }

    /// Places of the runs to look at more closely.
    fn chosen(&self, report: &Report) -> Result<Vec<usize>> {
        let find = |path: &PathBuf| {
            report.find(path).ok_or_else(|| {
                Error::config(format!("--detail {} is none of the runs that can be shown", path.display()))
                    .hint("name the folder of one of them")
            })
        };
        let mut chosen: Vec<usize> = self.details.iter().map(find).collect::<Result<_>>()?;
        if chosen.is_empty() {
            chosen.push(report.best());
        }
        let mut seen = std::collections::BTreeSet::new();
        chosen.retain(|run| seen.insert(*run));
        Ok(chosen)
    }

    /// A closer look at a run. What cannot be had is told in its place; an interruption alone is an error.
    fn look(&self, report: &Report, run: usize, global: &Global) -> Result<Detail> {
        let folder = &report.runs[run].path;
        let (weights, pictures) = match Loaded::read(folder) {
            Err(e) => (Err(explain(&e)), Err(explain(&e))),
            Ok(loaded) => {
                let seen = self.see(&loaded, folder, global);
                if let Err(e) = &seen
                    && !global.quiet
                {
                    say!("shown without pictures: {}", explain(e).trim_end());
                }
                (detail::weights(&loaded).map_err(|e| explain(&e)), seen.map_err(|e| explain(&e)))
            }
        };
        interrupt::check()?;
        Ok(Detail { run, weights, pictures })
    }

    fn see(&self, loaded: &Loaded, folder: &Path, global: &Global) -> Result<detail::OnPictures> {
        let (data, found) = train::load_run_data(&loaded.config, self.data.as_ref(), global.quiet)?;
        if data.sha256 != loaded.checkpoint.meta.data_sha256 {
            let folder = folder.display();
            return Err(Error::data(format!(
                "{found} holds other pictures ({}) than {folder} was trained on",
                data.name
            ))
            .hint("point --data at the run's data set"));
        }
        train::run_classes(&loaded.config, &data)?;
        let gpu = global.open(Some(&loaded.config))?;
        detail::on_pictures(loaded, &data, &gpu)
    }
}
