//! A square map of counts, such as a confusion matrix.

use maud::{Markup, html};

/// Extents of a cell, and room for the names of rows and columns.
const CELL: f64 = 26.0;
const NAMES: f64 = 190.0;

/// A map of `counts` (N rows of N): the share of its row colours a cell, the count stands in it. Row and column i are `names[i]`.
pub fn heat_map(title: &str, rows: &str, columns: &str, names: &[&str], counts: &[u32]) -> Markup {
    let n = names.len();
    let (width, height) = (NAMES + n as f64 * CELL + 4.0, NAMES + n as f64 * CELL + 4.0);
    let at = |i: usize| NAMES + i as f64 * CELL;
    html! {
        div class="wide" {
            svg class="heat" viewBox=(format!("0 0 {width} {height}")) style=(format!("min-width:{:.0}px", width * 0.85)) role="img" aria-label=(title) {
                title { (title) }
                text class="label" x=(format!("{:.0}", NAMES - 8.0)) y="16" text-anchor="end" { (rows) " ↓   " (columns) " →" }
                @for (i, name) in names.iter().enumerate() {
                    text class="tick" x=(format!("{:.0}", NAMES - 6.0)) y=(format!("{:.0}", at(i) + 17.0)) text-anchor="end" { (name) }
                    text class="tick" transform=(format!("translate({:.0} {:.0}) rotate(-60)", at(i) + 15.0, NAMES - 6.0)) { (name) }
                }
                @for (i, row) in counts.chunks_exact(n).enumerate() {
                    @let total: u32 = row.iter().sum();
                    @for (j, count) in row.iter().enumerate() {
                        @let share = f64::from(*count) / f64::from(total.max(1));
                        g class=(if i == j { "hit" } else { "miss" }) {
                            title { (names[i]) " taken for " (names[j]) ": " (count) " of " (total) }
                            rect class="cell" x=(at(j)) y=(at(i)) width=(CELL - 1.0) height=(CELL - 1.0) fill-opacity=(format!("{:.2}", share.sqrt())) {}
                            @if *count > 0 {
                                text class=(if share > 0.3 { "count full" } else { "count" }) x=(format!("{:.0}", at(j) + CELL / 2.0)) y=(format!("{:.0}", at(i) + 17.0)) text-anchor="middle" { (count) }
                            }
                        }
                    }
                }
            }
        }
    }
}
