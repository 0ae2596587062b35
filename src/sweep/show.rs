//! A sweep as it is seen: on a terminal a line for each run at work and one for all, elsewhere a line when a run begins or ends.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::metrics::Metrics;
use super::{Folder, Run};
use crate::progress::say;
use crate::terminal::one_line;

/// What is shown.
pub(super) struct Show {
    all: MultiProgress,
    total: ProgressBar,
    /// Of each run at work: its line and its epochs.
    lines: BTreeMap<String, (ProgressBar, u32)>,
    /// Runs that another process was seen at.
    elsewhere: Vec<String>,
    quiet: bool,
    terminal: bool,
}

impl Show {
    /// Before the first of `runs` runs.
    pub(super) fn new(runs: usize, quiet: bool) -> Show {
        let terminal = !quiet && std::io::stderr().is_terminal();
        let all = MultiProgress::new();
        if !terminal {
            all.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        let total = all.add(ProgressBar::new(runs as u64));
        let style = ProgressStyle::with_template("{pos}/{len} runs {bar:30} {elapsed} since the start");
        total.set_style(style.expect("the template is valid"));
        total.tick();
        Show { all, total, lines: BTreeMap::new(), elsewhere: Vec::new(), quiet, terminal }
    }

    fn say(&self, line: &str) {
        let line = one_line(line);
        match (self.quiet, self.terminal) {
            (true, _) => {}
            (_, true) => drop(self.all.println(line)),
            _ => say!("{line}"),
        }
    }

    /// A process began to train `run`.
    pub(super) fn started(&mut self, run: &Run, resumed: bool, device: Option<&str>) {
        let t = &run.config.train;
        let epochs = t.quant_epochs + if run.start.is_some() { 0 } else { t.float_epochs };
        let line = self.all.insert_before(&self.total, ProgressBar::new(u64::from(epochs)));
        let style = ProgressStyle::with_template("{prefix:24} {msg}").expect("the template is valid");
        line.set_style(style);
        line.set_prefix(run.name.clone());
        line.set_message("starting");
        self.lines.insert(run.name.clone(), (line, epochs));
        if !self.terminal {
            let how = if resumed { "goes on" } else { "begins" };
            self.say(&format!("{}: {how}{}", run.name, device.map_or(String::new(), |d| format!(" on {d}"))));
        }
    }

    /// Shows how far the runs at work are.
    pub(super) fn look(&self, folder: &Folder) {
        self.total.tick();
        if !self.terminal {
            return;
        }
        for (name, (line, epochs)) in &self.lines {
            let m = Metrics::read(&folder.run(name));
            let top1 = m.score.as_ref().map_or(String::new(), |s| format!("  top-1 {:.2} %", s.top1));
            let share = m.beat.map_or(String::new(), |(share, _)| format!(" + {:.0} %", 100.0 * share));
            let left = m.left(*epochs).map_or(String::new(), |s| format!("  {} left", duration(s)));
            line.set_message(format!("epoch {}{share} of {epochs}{top1}{left}", m.epochs));
        }
    }

    /// A run came to rest.
    pub(super) fn ended(&mut self, folder: &Folder, name: &str, how: &str) {
        self.remove(name, how == "finished");
        let m = Metrics::read(&folder.run(name));
        let score = m.score.as_ref().map_or(String::new(), |s| format!("  {} top-1 {:.2} %", s.split, s.top1));
        self.say(&format!("{name}: {how}{score}  {}", duration(m.seconds())));
    }

    /// A run failed, now or before.
    pub(super) fn failed(&mut self, name: &str, error: &str) {
        self.remove(name, true);
        self.say(&format!("{name}: failed: {error}"));
    }

    /// A run was finished already.
    pub(super) fn passed(&mut self, name: &str) {
        self.remove(name, true);
    }

    /// Another process trains a run that this one waits for.
    pub(super) fn elsewhere(&mut self, name: &str) {
        if !self.elsewhere.iter().any(|known| known == name) {
            self.elsewhere.push(name.into());
            self.say(&format!("{name}: another process trains it; waiting"));
        }
    }

    fn remove(&mut self, name: &str, is_done: bool) {
        if let Some((line, _)) = self.lines.remove(name) {
            line.finish_and_clear();
            self.all.remove(&line);
        }
        self.total.inc(u64::from(is_done));
    }

    /// Removes what would stay on the terminal.
    pub(super) fn end(&self) {
        self.total.finish_and_clear();
    }
}

/// `34 s`, `12 min`, `3.5 h`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
