//! The HTML page: one file, no script, nothing from elsewhere.

mod accuracy;
mod closer;
mod curves;
mod methods;

use std::collections::BTreeSet;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::svg::{self, Plot, Style};
use super::{Report, Run};
use crate::terminal::printable;

const STYLE: &str = include_str!("../../assets/report.css");

/// The page, as bytes of UTF-8.
pub fn page(report: &Report) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(format!("cqat {}", crate::VERSION));
                title { "cqat report: " (report.runs.len()) " runs" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (head(report))
                    (methods::section(report))
                    (accuracy::section(report))
                    (curves::section(report))
                    @for detail in &report.details { (closer::section(report, detail)) }
                    (methods::runs(report))
                    (broken(report))
                }
            }
        }
    };
    page.into_string()
}

fn head(report: &Report) -> Markup {
    let set = |of: fn(&Run) -> String| report.runs.iter().map(of).collect::<BTreeSet<String>>();
    let list = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>().join("; ");
    let network = |run: &Run| {
        let n = &run.config.network;
        format!("ResNet-{} of width {}", n.depth, n.width)
    };
    html! {
        header {
            h1 { "Quantization report" }
            p {
                (report.runs.len()) " runs, " (report.groups.len()) " methods. "
                "Data: " (list(set(|run| run.data.clone()))) ". Networks: " (list(set(network))) ". "
                "Trained on: " (list(set(|run| run.adapter.clone()))) "."
            }
            @if set(|run| run.data_sha256.clone()).len() > 1 {
                p class="warning" { "The runs are of different data sets: scores are compared within one alone." }
            }
            @if !report.broken.is_empty() {
                p class="warning" { (report.broken.len()) " folders could not be shown: " a href="#broken" { "why" } "." }
            }
        }
    }
}

fn broken(report: &Report) -> Markup {
    html! {
        @if !report.broken.is_empty() {
            section id="broken" {
                h2 { "Not shown" }
                @for (path, error) in &report.broken {
                    h3 { (path.display()) }
                    pre { (printable(error)) }
                }
            }
        }
    }
}

/// The plots of accuracy against costs as SVG files that stand alone: names and texts. None where nothing has been scored.
pub fn plots(report: &Report) -> Vec<(String, String)> {
    accuracy::files(report)
}

/// A plot with its caption.
fn figure(caption: &str, plot: Plot) -> Markup {
    html! { figure { figcaption { (caption) } (plot.render()) } }
}

/// Series that a key names; of more, the rest is called by the plot's own titles.
const MOST_NAMED: usize = 24;

/// A key of these names, each the series of its place.
fn legend(names: &[&str]) -> Markup {
    let named = names.iter().take(MOST_NAMED).enumerate().map(|(series, name)| (Style::Series(series), *name));
    html! {
        (svg::legend(named))
        @if names.len() > MOST_NAMED {
            p class="note" { (names.len() - MOST_NAMED) " more methods are in the plots without a key; each mark's title names it." }
        }
    }
}

/// Runs of a group in words: `seeds 0, 1, 2, 30 + 15 epochs`.
fn circumstances(report: &Report, group: &super::Group) -> String {
    let run = &report.runs[group.runs[0]];
    let seeds: Vec<String> = group.seeds.iter().map(ToString::to_string).collect();
    let seed = if seeds.len() == 1 { "seed" } else { "seeds" };
    format!("{} {}, {} epochs, {seed} {}", run.data, group.split, super::table::epochs_text(run), seeds.join(", "))
}
