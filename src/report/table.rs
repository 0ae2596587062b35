//! The report's numbers as CSV, one row a run, and as a table for the terminal, one row a method.

use std::fmt::Write as _;

use super::{Group, Report, Run};
use crate::cost::{MODEL_LABEL, bytes_text, energy_text, engineering};
use crate::terminal::one_line;

const COLUMNS: [&str; 24] = [
    "run",
    "group",
    "method",
    "seed",
    "data",
    "split",
    "float_epochs",
    "quant_epochs",
    "finished",
    "top1_percent",
    "top5_percent",
    "loss",
    "float_top1_percent",
    "pictures",
    "depth",
    "width",
    "macs",
    "bops",
    "weight_memory_bits",
    "largest_activation_bits",
    "activation_memory_bits",
    "accumulator_bits",
    "energy_pj_model_not_measurement",
    "adapter",
];

/// One row a run, with a line of titles; a cell without a value is empty.
pub fn csv(report: &Report) -> Vec<u8> {
    let mut out = ::csv::Writer::from_writer(Vec::new());
    let written = out
        .write_record(COLUMNS)
        .and_then(|()| report.runs.iter().enumerate().try_for_each(|(i, run)| out.write_record(cells(report, i, run))));
    written.expect("rows of as many cells as titles fit into memory");
    out.into_inner().expect("memory needs no flush that could fail")
}

fn cells(report: &Report, i: usize, run: &Run) -> [String; COLUMNS.len()] {
    let group = report.groups.iter().find(|g| g.runs.contains(&i)).map_or("", |g| &g.label);
    let score = run.score();
    let number = |v: Option<f64>| v.filter(|v| v.is_finite()).map_or(String::new(), |v| v.to_string());
    let (c, t) = (&run.cost, &run.config.train);
    [
        run.path.display().to_string(),
        group.to_string(),
        run.method(),
        t.seed.to_string(),
        run.data.clone(),
        score.map_or("", |s| &s.split).to_string(),
        t.float_epochs.to_string(),
        t.quant_epochs.to_string(),
        run.finished.to_string(),
        number(score.map(|s| s.top1)),
        number(score.map(|s| s.top5)),
        number(score.map(|s| s.loss)),
        number(run.float_top1()),
        number(score.map(|s| s.samples)),
        run.config.network.depth.to_string(),
        run.config.network.width.to_string(),
        c.macs.to_string(),
        c.bops.to_string(),
        c.weight_memory_bits.to_string(),
        c.largest_activation_bits.to_string(),
        c.activation_memory_bits.to_string(),
        c.accumulator_bits.map_or(String::new(), |b| b.to_string()),
        format!("{:.0}", c.energy_pj),
        run.adapter.clone(),
    ]
}

/// Top-1 of a row: `62.31 ± 0.40 %`, the deviation over seeds; the mean alone of one seed.
pub fn score_text(group: &Group) -> String {
    match group.top1 {
        None => "-".into(),
        Some(m) => match m.deviation {
            Some(s) => format!("{:.2} ± {s:.2} %", m.mean),
            None => format!("{:.2} %", m.mean),
        },
    }
}

/// The interval of a row's mean: `61.32 to 63.30 %`.
pub fn interval_text(group: &Group) -> String {
    let ends = group.top1.and_then(|m| Some((m.mean, m.half_width?)));
    ends.map_or("one seed".into(), |(mean, half)| {
        format!("{:.2} to {:.2} %", (mean - half).max(0.0), (mean + half).min(100.0))
    })
}

/// Epochs of a row: `30 + 15`.
pub fn epochs_text(run: &Run) -> String {
    let t = &run.config.train;
    if run.method() == "float" {
        t.float_epochs.to_string()
    } else {
        format!("{} + {}", t.float_epochs, t.quant_epochs)
    }
}

/// One row a method, best first, and what could not be read.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let width = report.groups.iter().map(|g| one_line(&g.label).chars().count()).max().unwrap_or(0).clamp(6, 60);
    let titles = ["rank", "method", "seeds", "top-1", "95 % interval", "BOPs", "weights", "energy*", "data"];
    let [rank, method, seeds, top1, interval, bops, weights, energy, data] = titles;
    let _ = writeln!(
        out,
        "{rank:>4} {method:width$} {seeds:>5} {top1:>16} {interval:>18} {bops:>8} {weights:>9} {energy:>9} {data}"
    );
    for g in &report.groups {
        let run = &report.runs[g.runs[0]];
        let rank = g.rank.map_or("-".into(), |r| r.to_string());
        let (bops, weights) = (engineering(run.cost.bops as f64), bytes_text(run.cost.weight_memory_bits));
        let _ = writeln!(
            out,
            "{rank:>4} {:width$} {:>5} {:>16} {:>18} {bops:>8} {weights:>9} {:>9} {} {}",
            one_line(&g.label),
            g.seeds.len(),
            score_text(g),
            interval_text(g),
            energy_text(run.cost.energy_pj),
            one_line(&run.data),
            g.split,
        );
    }
    let _ = writeln!(
        out,
        "top-1: mean ± standard deviation over seeds; rank: 1 + the rows that are better by more than the 95 % interval"
    );
    let _ = writeln!(out, "of the difference, one seed has none; * per picture, {MODEL_LABEL}");
    for run in report.runs.iter().filter(|run| !run.notes.is_empty()) {
        let _ =
            writeln!(out, "{}: {}", one_line(run.path.display()), one_line(run.notes.join("; ").replace('\n', "; ")));
    }
    for (path, error) in &report.broken {
        let _ = writeln!(out, "not shown: {}: {}", one_line(path.display()), error.trim_end().replace('\n', "\n  "));
    }
    out
}
