//! Tables: one row a method, one row a run.

use maud::{Markup, html};

use super::super::Report;
use super::super::table::{epochs_text, interval_text, score_text};
use crate::cost::{MODEL_LABEL, MODEL_SOURCE, bytes_text, energy_text, engineering};

/// The table of methods.
pub(super) fn section(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Methods" }
            p {
                "Top-1 after the last scored epoch: mean ± standard deviation over seeds, with the 95 % interval of the mean by Student's t. "
                "Runs that differ in nothing but their seed are one row. The rank is 1 + the number of rows that are better by more than the "
                "95 % interval of the difference (Welch's t); one seed, or an unfinished run, has none."
            }
            div class="wide" {
                table {
                    thead {
                        tr {
                            th { "rank" } th class="text" { "method" } th { "seeds" } th { "top-1" } th { "95 % interval" }
                            th { "against its float" } th { "epochs" } th { "BOPs" } th { "weights" } th { "accumulator" }
                            th { "energy*" }
                        }
                    }
                    tbody {
                        @for g in &report.groups {
                            @let run = &report.runs[g.runs[0]];
                            tr {
                                td { (g.rank.map_or("–".into(), |r| r.to_string())) }
                                th class="text" scope="row" {
                                    (g.label)
                                    @if let Some(score) = run.score() {
                                        div class="note" { (run.data) " " (g.split) ", " (format!("{:.0}", score.samples)) " pictures" }
                                    }
                                }
                                td { (g.seeds.len()) }
                                td { (score_text(g)) }
                                td { (interval_text(g)) }
                                td { (g.gap.map_or("–".into(), |m| format!("{:+.2} points", m.mean).replace('-', "−"))) }
                                td { (epochs_text(run)) }
                                td { (engineering(run.cost.bops as f64)) }
                                td { (bytes_text(run.cost.weight_memory_bits)) }
                                td { (run.cost.accumulator_bits.map_or("–".into(), |b| format!("{b} bits"))) }
                                td { (energy_text(run.cost.energy_pj)) }
                            }
                        }
                    }
                }
            }
            p class="note" {
                "BOPs: multiply-accumulates × bits of weight × bits of input, for one picture (float: 32 × 32). Accumulator: the widest that "
                "no input overflows. * Energy for one picture: " strong { (MODEL_LABEL) } "; " (MODEL_SOURCE) ". "
                "“Against its float” is the last score minus that of the float network it was quantized from: quantized epochs are further training too."
            }
        }
    }
}

/// The table of runs.
pub(super) fn runs(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Runs" }
            div class="wide" {
                table {
                    thead {
                        tr {
                            th class="text" { "run" } th class="text" { "method" } th { "seed" } th { "top-1" } th { "top-5" } th { "loss" }
                            th { "epochs" } th class="text" { "data" } th class="text" { "adapter" } th class="text" { "remarks" }
                        }
                    }
                    tbody {
                        @for run in &report.runs {
                            @let score = run.score();
                            tr {
                                th class="text" scope="row" title=(run.path.display()) { (run.name) }
                                td class="text" { (run.method()) }
                                td { (run.config.train.seed) }
                                td { (score.map_or("–".into(), |s| format!("{:.2} %", s.top1))) }
                                td { (score.map_or("–".into(), |s| format!("{:.2} %", s.top5))) }
                                td { (score.map_or("–".into(), |s| format!("{:.4}", s.loss))) }
                                td { (epochs_text(run)) }
                                td class="text" { (run.data) " " (score.map_or("", |s| &s.split)) }
                                td class="text" { (run.adapter) }
                                td class="text remarks" {
                                    @if !run.finished { "not finished. " }
                                    (run.notes.join("; "))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
