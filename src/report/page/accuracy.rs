//! Accuracy against what it costs, with the Pareto front. What a sweep over bits tries at each of them is one series.

use maud::{Markup, html};

use super::super::svg::{Axis, Plot};
use super::super::{Group, Report, Run};
use super::{STYLE, circumstances, figure, legend};
use crate::cost::{MODEL_LABEL, bytes_text, energy_text, engineering};

/// A cost: its name as a file, the plot's caption, the axis, the number for it, and that in words.
type Price = (&'static str, &'static str, fn(&[f64]) -> Axis, fn(&Run) -> f64, fn(&Run) -> String);

const PRICES: [Price; 4] = [
    (
        "bits",
        "Accuracy against bits of a weight",
        |v| Axis::log("bits of a weight, mean over the weights (log scale)", v.iter().copied()),
        Run::mean_weight_bits,
        |run| format!("{:.2} bits a weight", run.mean_weight_bits()),
    ),
    (
        "bops",
        "Accuracy against bit operations",
        |v| Axis::log("bit operations for a picture (log scale)", v.iter().copied()),
        |run| run.cost.bops as f64,
        |run| format!("{} BOPs", engineering(run.cost.bops as f64)),
    ),
    (
        "weight-memory",
        "Accuracy against weight memory",
        |v| Axis::log("weight memory in bytes (log scale)", v.iter().copied()),
        |run| run.cost.weight_memory_bits as f64 / 8.0,
        |run| bytes_text(run.cost.weight_memory_bits),
    ),
    (
        "energy",
        "Accuracy against energy (model, not measurement)",
        |v| Axis::log("modelled energy for a picture in µJ (log scale)", v.iter().copied()),
        |run| run.cost.energy_pj / 1e6,
        |run| format!("{} ({MODEL_LABEL})", energy_text(run.cost.energy_pj)),
    ),
];

/// The four plots, of the rows that can be compared with the first.
pub(super) fn section(report: &Report) -> Markup {
    let (families, shown) = series(report);
    let Some((_, first)) = shown.first() else { return html! {} };
    let others = report.groups.iter().filter(|g| is_shown(report, g) && g.comparable != first.comparable).count();
    html! {
        section {
            h2 { "Accuracy against cost" }
            p {
                "Top-1 on " (report.runs[first.runs[0]].data) " " (first.split) ", mean over seeds; bars are the 95 % interval of the mean where there are several. "
                "The dashed line is the Pareto front of the means: nothing costs less and scores as much. Costs are computed from shapes and bit-widths."
            }
            @if others > 0 {
                p class="note" { "Scored on other pictures and left out here: " (others) " methods." }
            }
            div class="grid2" { @for price in PRICES { (figure(price.1, plot(report, &shown, price))) } }
            (legend(&families))
        }
    }
}

/// The same plots as SVG files that stand alone, by name.
pub(in crate::report) fn files(report: &Report) -> Vec<(String, String)> {
    let (families, shown) = series(report);
    let drawn = PRICES.into_iter().filter(|_| !shown.is_empty());
    drawn
        .map(|price| (format!("accuracy-{}.svg", price.0), plot(report, &shown, price).alone(STYLE, &families)))
        .collect()
}

/// The rows that can be compared with the first, and their families; each row with the place of its own.
fn series(report: &Report) -> (Vec<&str>, Vec<(usize, &Group)>) {
    let mut families: Vec<&str> = Vec::new();
    let mut shown = Vec::new();
    let first = report.groups.iter().find(|g| is_shown(report, g));
    let comparable = |g: &&Group| is_shown(report, g) && first.is_some_and(|f| f.comparable == g.comparable);
    for group in report.groups.iter().filter(comparable) {
        let family = families.iter().position(|f| *f == group.family).unwrap_or(families.len());
        if family == families.len() {
            families.push(&group.family);
        }
        shown.push((family, group));
    }
    (families, shown)
}

fn is_shown(report: &Report, group: &Group) -> bool {
    group.top1.is_some() && report.runs[group.runs[0]].finished
}

fn plot(report: &Report, shown: &[(usize, &Group)], (_, caption, axis, price, words): Price) -> Plot {
    let run = |g: &Group| &report.runs[g.runs[0]];
    let points: Vec<(f64, f64)> = shown.iter().filter_map(|(_, g)| Some((price(run(g)), g.top1?.mean))).collect();
    let costs: Vec<f64> = points.iter().map(|p| p.0).collect();
    // Intervals of two seeds are as wide as the plot; the points decide what it shows.
    let means = points.iter().map(|p| p.1);
    let spread = shown
        .iter()
        .filter_map(|(_, g)| g.top1)
        .flat_map(|m| m.deviation.map(|s| [m.mean - 2.0 * s, m.mean + 2.0 * s]))
        .flatten()
        .map(|v| v.clamp(0.0, 100.0));
    let mut plot = Plot::new(caption, axis(&costs), Axis::linear("top-1 in %", means.chain(spread)));
    plot.front(&front(&points), "Pareto front");
    for (style, g) in shown {
        let Some(mean) = g.top1 else { continue };
        let name = format!("{}: {:.2} % at {} ({})", g.label, mean.mean, words(run(g)), circumstances(report, g));
        plot.point((price(run(g)), mean.mean), mean.half_width, *style, &name);
    }
    plot
}

/// Points that no other beats at the same cost or less, cheapest first.
fn front(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let mut best = f64::NEG_INFINITY;
    sorted.retain(|p| {
        let leads = p.1 > best;
        best = best.max(p.1);
        leads
    });
    sorted
}

#[cfg(test)]
mod tests {
    use super::front;

    #[test]
    fn the_front_has_what_nothing_cheaper_matches() {
        let points = [(3.0, 60.0), (1.0, 50.0), (2.0, 49.0), (1.0, 48.0), (4.0, 60.0), (5.0, 61.0)];
        assert_eq!(front(&points), [(1.0, 50.0), (3.0, 60.0), (5.0, 61.0)]);
    }
}
