//! A closer look at one run: traces and distributions of its layers, costs, confusions, mistakes.

use base64::Engine as _;
use maud::{Markup, html};

use super::super::detail::{Mistake, OnPictures};
use super::super::svg::{Axis, Plot, Style, heat_map, legend};
use super::super::{Detail, Distribution, Report, Run, Trace};
use super::figure;
use crate::cost::{MODEL_LABEL, bytes_text, energy_text, engineering};
use crate::pictures::contact_sheet;

/// Classes beyond which a map would be no map.
const MOST_CLASSES: usize = 32;

pub(super) fn section(report: &Report, detail: &Detail) -> Markup {
    let run = &report.runs[detail.run];
    html! {
        section {
            h2 { "A closer look: " (run.name) }
            p {
                (run.method()) ", seed " (run.config.train.seed) ", " (super::super::table::epochs_text(run)) " epochs on " (run.data) ", trained on " (run.adapter) "."
                @for note in &run.notes { " " (note) "." }
            }
            (traces(run))
            (part("Weights", &detail.weights, |all| distributions(all, "value of a weight", "weights")))
            @match &detail.pictures {
                Ok(seen) => { (pictures(seen)) }
                Err(_) => { (part("Activations, confusions, mistakes", &detail.pictures, |_| html! {})) }
            }
            (costs(run))
        }
    }
}

/// A part, or why it is missing.
fn part<T>(title: &str, part: &Result<T, String>, show: impl Fn(&T) -> Markup) -> Markup {
    html! {
        h3 { (title) }
        @match part {
            Ok(part) => { (show(part)) }
            Err(error) => { p class="warning" { "Not shown:" } pre { (error) } }
        }
    }
}

/// A number of a layer's quantizer over the epochs: caption, axis, whether that is logarithmic, the number.
type Line = (&'static str, &'static str, bool, fn(&Trace) -> Option<f64>);

const LINES: [Line; 3] = [
    ("saturated", "share in %", false, |t| t.saturated.map(|v| 100.0 * v)),
    ("blocked gradient", "share in %", false, |t| t.blocked.map(|v| 100.0 * v)),
    ("scale", "value of a code (log scale)", true, |t| t.scale),
];

fn traces(run: &Run) -> Markup {
    if run.traces.is_empty() {
        return html! { p class="note" { "No quantized epoch has left traces of scales and saturation." } };
    }
    html! {
        h3 { "Quantizers over the epochs" }
        p {
            "One line a layer, from the first (dark) to the last (bright). Saturated: of the activations' positive values those "
            "above the top code, of the weights all beyond the codes. Blocked: share of the gradient's magnitude (activations) or of the weights that the mask stops."
        }
        @for tensor in ["activation", "weight"] {
            div class="grid3" { @for line in LINES { (trace_plot(run, tensor, line)) } }
            @let layers = layers(run, tensor);
            (legend(layers.iter().enumerate().map(|(at, name)| (Style::Ramp { at, of: layers.len() }, *name))))
        }
    }
}

/// Names of the layers that have left traces of a tensor, in forward order.
fn layers<'a>(run: &'a Run, tensor: &str) -> Vec<&'a str> {
    let mut layers: Vec<&str> = Vec::new();
    for trace in run.traces.iter().filter(|t| t.tensor == tensor) {
        if !layers.contains(&trace.layer.as_str()) {
            layers.push(&trace.layer);
        }
    }
    layers
}

fn trace_plot(run: &Run, tensor: &str, (what, label, log, value): Line) -> Markup {
    let of: Vec<(&Trace, f64)> =
        run.traces.iter().filter(|t| t.tensor == tensor).filter_map(|t| Some((t, value(t)?))).collect();
    let layers = layers(run, tensor);
    let caption = format!("{}: {what}", if tensor == "weight" { "Weights" } else { "Activations" });
    let values = of.iter().map(|(_, v)| *v);
    let y = if log { Axis::log(label, values) } else { Axis::linear(label, values.chain([0.0])) };
    let mut plot = Plot::new(&caption, epochs(&of), y);
    for (at, layer) in layers.iter().enumerate() {
        let points: Vec<(f64, f64)> =
            of.iter().filter(|(t, _)| t.layer == *layer).map(|(t, v)| (f64::from(t.at), *v)).collect();
        plot.line(&points, Style::Ramp { at, of: layers.len() }, layer);
    }
    figure(&caption, plot)
}

/// An axis from the epoch before the first on.
fn epochs(of: &[(&Trace, f64)]) -> Axis {
    let at = || of.iter().map(|(t, _)| f64::from(t.at));
    Axis::linear("epoch", at().chain(at().reduce(f64::min).map(|first| (first - 1.0).max(0.0))))
}

fn distributions(all: &[Distribution], label: &str, what: &str) -> Markup {
    html! {
        p class="note" {
            "Share of the " (what) " in each bar. Solid lines: ends of the narrow codes, beyond which values are clipped; dotted: ends of the base grid (8-bit), where the codes are a part of one; "
            "where that reaches beyond the plot, an arrow says how far."
        }
        div class="grid3" { @for d in all { (distribution(d, label)) } }
    }
}

fn distribution(d: &Distribution, label: &str) -> Markup {
    let mut caption = d.layer.clone();
    caption += &d.bits.map_or(", float".into(), |bits| format!(", {bits} bits"));
    if let Some(clipped) = d.clipped {
        caption += &format!(", {:.2} % clipped", 100.0 * clipped);
    }
    if d.zeros > 0.0 {
        caption += &format!(", {:.0} % zero", 100.0 * d.zeros);
    }
    let (first, last) = (d.edges[0], *d.edges.last().unwrap_or(&1.0));
    let reach = d.clip.map_or(last, |c| if first < 0.0 { last } else { last.max(c[1].min(2.0 * last) * 1.05) });
    let mut plot = Plot::new(
        &caption,
        Axis::between(label, first, reach),
        Axis::linear("share in %", d.shares.iter().map(|s| 100.0 * s).chain([0.0])),
    );
    plot.bars(&d.edges, &d.shares.iter().map(|s| 100.0 * s).collect::<Vec<_>>(), &caption);
    let signed = first < 0.0;
    let grid = format!("{}-bit", d.base_bits);
    for (ends, class, row, name) in [(d.base, "base", 0, grid.as_str()), (d.clip, "clip", 1, "clip")] {
        let Some([low, high]) = ends else { continue };
        plot.rule(high, class, &format!("{name} {high:.3}"), row);
        if signed {
            plot.rule(low, class, &format!("{name} −{:.3}", low.abs()), row);
        }
    }
    figure(&caption, plot)
}

fn pictures(seen: &OnPictures) -> Markup {
    let names: Vec<&str> = seen.names.iter().map(String::as_str).collect();
    let by = if seen.by_superclass { "superclass" } else { "class" };
    html! {
        h3 { "Activations" }
        @if seen.activations.is_empty() {
            p class="note" { "Not counted: the network is float, or there are fewer pictures than a batch." }
        } @else {
            p class="note" { "Before the quantizer, of a float forward pass of the trained weights over test pictures, evenly spaced; zeros have no bar." }
            (distributions(&seen.activations, "value of an activation", "activations"))
        }
        h3 { "Confusion by " (by) }
        p {
            (seen.source) ", " (seen.count) " pictures, top-1 " (format!("{:.2} %", seen.top1)) ". A cell's colour is the share of its row, its number the pictures."
            @if !seen.by_superclass { " This data set has no superclasses." }
        }
        @if names.len() <= MOST_CLASSES {
            (heat_map(&format!("Confusion by {by}"), "shown", "taken for", &names, &seen.confusion))
        } @else {
            (confused(&names, &seen.confusion))
        }
        h3 { "The surest mistakes" }
        @if seen.mistakes.is_empty() { p class="note" { "There are none." } }
        div class="mistakes" { @for m in &seen.mistakes { (mistake(seen, m)) } }
    }
}

/// The pairs that are confused most.
fn confused(names: &[&str], counts: &[u32]) -> Markup {
    let n = names.len();
    let mut pairs: Vec<usize> = (0..n * n).filter(|i| i / n != i % n && counts[*i] > 0).collect();
    pairs.sort_by_key(|i| (std::cmp::Reverse(counts[*i]), *i));
    html! {
        p class="note" { (n) " classes are too many for a map; these pairs are confused most." }
        div class="wide" {
            table {
                thead { tr { th class="text" { "shown" } th class="text" { "taken for" } th { "pictures" } } }
                tbody {
                    @for i in pairs.into_iter().take(20) {
                        tr { td class="text" { (names[i / n]) } td class="text" { (names[i % n]) } td { (counts[i]) } }
                    }
                }
            }
        }
    }
}

fn mistake(seen: &OnPictures, m: &Mistake) -> Markup {
    let name = |class: usize| seen.class_names.get(class).map_or("?", String::as_str).replace('_', " ");
    let (label, predicted) = (name(m.label), name(m.predicted));
    let Ok(png) = contact_sheet(&[&m.pixels], seen.side, 1) else { return html! {} };
    let source = format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png));
    html! {
        figure class="mistake" {
            img src=(source) width="96" height="96" alt=(format!("test picture {}, which shows {label} and was taken for {predicted}", m.index));
            figcaption { strong { (label) } " taken for " strong { (predicted) } ", " (format!("{:.1} %", 100.0 * m.confidence)) }
        }
    }
}

fn costs(run: &Run) -> Markup {
    let c = &run.cost;
    let bits = |b: u32| if b == 0 { "–".to_string() } else { b.to_string() };
    let memory = |b: u64| if b == 0 { "–".to_string() } else { bytes_text(b) };
    html! {
        h3 { "Costs of a picture, layer by layer" }
        p class="note" { "Computed from shapes and bits. Energy: " strong { (MODEL_LABEL) } "." }
        div class="wide" {
            table {
                thead {
                    tr {
                        th class="text" { "layer" } th { "MACs" } th { "weight bits" } th { "input bits" } th { "BOPs" } th { "weights" } th { "output" }
                        th { "accumulator bits" } th { "energy*" }
                    }
                }
                tbody {
                    @for l in &c.layers {
                        tr {
                            th class="text" scope="row" { (l.name) }
                            td { (if l.macs == 0 { "–".into() } else { engineering(l.macs as f64) }) }
                            td { (bits(l.weight_bits)) }
                            td { (bits(l.input_bits)) }
                            td { (if l.macs == 0 { "–".into() } else { engineering(l.bops as f64) }) }
                            td { (memory(l.weight_memory_bits)) }
                            td { (memory(l.output_memory_bits)) }
                            td { (l.accumulator_bits.map_or("–".into(), |b| b.to_string())) }
                            td { (if l.macs == 0 { "–".into() } else { energy_text(l.energy_pj) }) }
                        }
                    }
                }
                tfoot {
                    tr {
                        th class="text" scope="row" { "all" }
                        td { (engineering(c.macs as f64)) } td {} td {} td { (engineering(c.bops as f64)) }
                        td { (bytes_text(c.weight_memory_bits)) } td { (bytes_text(c.activation_memory_bits)) }
                        td { (c.accumulator_bits.map_or("–".into(), |b| format!("at most {b}"))) } td { (energy_text(c.energy_pj)) }
                    }
                }
            }
        }
    }
}
