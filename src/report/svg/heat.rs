//! A square map of counts, such as a confusion matrix.

use maud::{Markup, html};

/// Extent of a cell, and of a letter.
const CELL: f64 = 26.0;
const LETTER: f64 = 6.6;

/// A map of `counts` (N rows of N): the share of its row colours a cell, the count stands in it. Row and column i are `names[i]`.
pub fn heat_map(title: &str, rows: &str, columns: &str, names: &[&str], counts: &[u32]) -> Markup {
    let n = names.len();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(18) as f64 * LETTER;
    // Names of columns rise at 60 degrees.
    let (left, top, right) = (longest + 10.0, longest * 0.87 + 14.0, longest * 0.5);
    let (width, height) = (left + n as f64 * CELL + right, top + n as f64 * CELL + 4.0);
    let (x, y) = (|i: usize| left + i as f64 * CELL, |i: usize| top + i as f64 * CELL);
    let text = |v: f64| format!("{v:.1}");
    html! {
        div class="wide" {
            svg class="heat" viewBox=(format!("0 0 {width:.0} {height:.0}")) width=(text(width)) height=(text(height)) role="img" aria-label=(title) {
                title { (title) }
                text class="label" x=(text(left - 8.0)) y=(text(top - 10.0)) text-anchor="end" { (rows) " ↓  " (columns) " →" }
                @for (i, name) in names.iter().enumerate() {
                    text class="tick" x=(text(left - 6.0)) y=(text(y(i) + 17.0)) text-anchor="end" { (name) }
                    text class="tick" transform=(format!("translate({:.1} {:.1}) rotate(-60)", x(i) + 16.0, top - 6.0)) { (name) }
                }
                @for (i, row) in counts.chunks_exact(n.max(1)).enumerate() {
                    @let total: u32 = row.iter().sum();
                    @for (j, count) in row.iter().enumerate() {
                        @let share = f64::from(*count) / f64::from(total.max(1));
                        g class=(if i == j { "hit" } else { "miss" }) {
                            title { (names[i]) " taken for " (names[j]) ": " (count) " of " (total) }
                            rect class="cell" x=(text(x(j))) y=(text(y(i))) width=(CELL - 1.0) height=(CELL - 1.0) fill-opacity=(format!("{:.2}", share.sqrt())) {}
                            @if *count > 0 {
                                text class=(if share > 0.3 { "count full" } else { "count" }) x=(text(x(j) + CELL / 2.0)) y=(text(y(i) + 17.0)) text-anchor="middle" {
                                    (count)
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
