//! Training curves of every run.

use maud::{Markup, html};

use super::super::svg::{Axis, Plot, Style};
use super::super::{Epoch, Report, Run};
use super::{figure, legend};

/// A curve: the plot's caption, the axis' label, whether it is of training, and its number.
type Curve = (&'static str, &'static str, bool, fn(&Epoch) -> f64);

const CURVES: [Curve; 4] = [
    ("Accuracy on held-out pictures", "top-1 in %", false, |e| e.top1),
    ("Loss on held-out pictures", "mean loss", false, |e| e.loss),
    ("Accuracy in training, augmented pictures", "top-1 in %", true, |e| e.top1),
    ("Loss in training, augmented pictures", "mean loss", true, |e| e.loss),
];

pub(super) fn section(report: &Report) -> Markup {
    if report.runs.iter().all(|run| run.epochs.is_empty()) {
        return html! {};
    }
    html! {
        section {
            h2 { "Training curves" }
            p {
                "Float epochs come first, then quantized ones; a run that starts from another's float network begins at its own epoch 1. Seeds of one method share a colour. Held-out pictures are the test pictures, or the "
                "validation pictures of runs that hold some back."
            }
            div class="grid2" { @for curve in CURVES { (plot(report, curve)) } }
            (legend(&report.groups.iter().map(|g| g.label.as_str()).collect::<Vec<_>>()))
        }
    }
}

fn plot(report: &Report, (caption, label, training, value): Curve) -> Markup {
    let of = |run: &Run| -> Vec<(f64, f64)> {
        let epochs = run.epochs.iter().filter(|e| (e.split == "train") == training);
        epochs.map(|e| (f64::from(e.at), value(e))).collect()
    };
    let all: Vec<(f64, f64)> = report.runs.iter().flat_map(of).collect();
    let x = Axis::whole("epoch", all.iter().map(|p| p.0).chain([0.0]));
    let mut plot = Plot::new(caption, x, Axis::linear(label, all.iter().map(|p| p.1)));
    for (style, group) in report.groups.iter().enumerate() {
        for run in group.runs.iter().map(|i| &report.runs[*i]) {
            plot.line(
                &of(run),
                Style::Series(style),
                &format!("{}, seed {}: {}", group.label, run.config.train.seed, run.name),
            );
        }
    }
    figure(caption, plot)
}
