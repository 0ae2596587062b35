//! A small plot kit: axes with round ticks, lines, points, bars, heat maps. Colours and fonts are classes of `assets/report.css`, so
//! that light and dark are the page's affair; shapes and dashes tell series apart without colour.

mod axis;
mod heat;

use maud::{Markup, PreEscaped, html};

pub use axis::Axis;
pub use heat::heat_map;

/// Extents of a plot in its own units, which a page scales to the width it has.
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 280.0;
/// Where the frame is.
const LEFT: f64 = 54.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 44.0;

/// Colours and shapes there are; series beyond them begin anew with another dash.
pub const COLOURS: usize = 8;

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One of several without an order: colour and shape, and the dash after a full round.
    Series(usize),
    /// One of `of` in an order, such as layers from the first to the last: a ramp of colours.
    Ramp {
        /// Position from 0.
        at: usize,
        /// Positions.
        of: usize,
    },
}

impl Style {
    fn class(self) -> String {
        match self {
            Style::Series(i) => format!("s{} d{}", i % COLOURS, i / COLOURS % 3),
            Style::Ramp { at, of } => format!("r{}", (at * 9 + of.saturating_sub(1) / 2) / of.saturating_sub(1).max(1)),
        }
    }
}

/// A plot with two axes.
pub struct Plot {
    title: String,
    x: Axis,
    y: Axis,
    marks: Vec<Markup>,
}

impl Plot {
    /// An empty one. `title` is what is read to those who do not see it.
    pub fn new(title: &str, x: Axis, y: Axis) -> Plot {
        Plot { title: title.into(), x, y, marks: Vec::new() }
    }

    fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        let (u, v) = (self.x.at(x)?, self.y.at(y)?);
        Some((LEFT + u * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - v * (HEIGHT - BOTTOM - TOP)))
    }

    /// A line through points; what has no place on the axes interrupts it. A single point is a dot.
    pub fn line(&mut self, points: &[(f64, f64)], style: Style, name: &str) {
        let mut path = String::new();
        let mut dots = Vec::new();
        let places: Vec<Option<(f64, f64)>> = points.iter().map(|p| self.place(*p)).collect();
        for (i, place) in places.iter().enumerate() {
            let Some((x, y)) = place else { continue };
            let before = i > 0 && places[i - 1].is_some();
            let after = places.get(i + 1).is_some_and(Option::is_some);
            path += &format!("{}{x:.1},{y:.1} ", if before { "L" } else { "M" });
            if !before && !after {
                dots.push((*x, *y));
            }
        }
        self.marks.push(html! {
            g class=(style.class()) {
                title { (name) }
                path class="line" d=(path.trim_end()) {}
                @for (x, y) in dots { circle class="dot" cx=(one(x)) cy=(one(y)) r="3" {} }
            }
        });
    }

    /// A line of steps that rises from point to point, behind everything else.
    pub fn front(&mut self, points: &[(f64, f64)], name: &str) {
        let places: Vec<(f64, f64)> = points.iter().filter_map(|p| self.place(*p)).collect();
        let mut path = String::new();
        for (i, (x, y)) in places.iter().enumerate() {
            path += &if i == 0 { format!("M{x:.1},{y:.1}") } else { format!(" H{x:.1} V{y:.1}") };
        }
        self.marks.insert(0, html! { g { title { (name) } path class="front" d=(path) {} } });
    }

    /// A point with its shape, and the interval of its height; an end beyond the axis has no cap.
    pub fn point(&mut self, at: (f64, f64), half_width: Option<f64>, style: usize, name: &str) {
        let Some((x, y)) = self.place(at) else { return };
        let mut interval = String::new();
        for end in half_width.map_or([None, None], |h| [Some(at.1 - h), Some(at.1 + h)]).into_iter().flatten() {
            let shown = self.y.clamped(end);
            let Some((_, end_y)) = self.place((at.0, shown)) else { continue };
            let cap = if shown == end { format!("M{:.1},{end_y:.1}h8", x - 4.0) } else { String::new() };
            interval += &format!("M{x:.1},{y:.1}V{end_y:.1}{cap}");
        }
        self.marks.push(html! {
            g class=(Style::Series(style).class()) {
                title { (name) }
                @if !interval.is_empty() { path class="interval" d=(interval) {} }
                path class="mark" d=(shape(style, x, y)) {}
            }
        });
    }

    /// Bars between `edges` (one more than `heights`), which stand on the bottom.
    pub fn bars(&mut self, edges: &[f64], heights: &[f64], name: &str) {
        let bottom = HEIGHT - BOTTOM;
        let mut path = String::new();
        for (ends, height) in edges.windows(2).zip(heights) {
            if let (Some((left, top)), Some((right, _))) =
                (self.place((ends[0], *height)), self.place((ends[1], *height)))
            {
                path += &format!("M{left:.1},{bottom:.1}V{top:.1}H{right:.1}V{bottom:.1}Z");
            }
        }
        self.marks.push(html! { g class="bars" { title { (name) } path d=(path) {} } });
    }

    /// A vertical line with a word beside it, in the row `row` from the top. Of one beyond the right end there is the word alone,
    /// with an arrow; of one beyond the left end nothing.
    pub fn rule(&mut self, x: f64, class: &str, label: &str, row: usize) {
        let Some(u) = self.x.at(x).filter(|u| *u >= 0.0) else { return };
        let line = (u <= 1.0).then_some(LEFT + u * (WIDTH - LEFT - RIGHT));
        let (anchor, at) = match line {
            Some(x) if u > 0.6 => ("end", x - 4.0),
            Some(x) => ("start", x + 4.0),
            None => ("end", WIDTH - RIGHT),
        };
        self.marks.push(html! {
            g class=(class) {
                title { (label) }
                @if let Some(x) = line { path class="rule" d=(format!("M{x:.1},{TOP}V{:.1}", HEIGHT - BOTTOM)) {} }
                text class="note" x=(one(at)) y=(one(TOP + 12.0 + 13.0 * row as f64)) text-anchor=(anchor) {
                    (label) @if line.is_none() { " →" }
                }
            }
        });
    }

    /// The picture.
    pub fn render(self) -> Markup {
        html! {
            svg class="plot" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(self.title) { (self.inside()) }
        }
    }

    /// The picture as a file of its own, with its style and a key of these series below it, as many as have marks of their own.
    pub fn alone(self, style: &str, names: &[&str]) -> String {
        let names = &names[..names.len().min(3 * COLOURS)];
        let row = |i: usize| HEIGHT + 14.0 + 18.0 * i as f64;
        let height = row(names.len());
        let picture = html! {
            svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox=(format!("0 0 {WIDTH} {height}")) width=(1.5 * WIDTH) role="img" {
                style { (PreEscaped(style)) }
                rect class="page" width=(WIDTH) height=(height) {}
                (self.inside())
                @for (i, name) in names.iter().enumerate() {
                    g class=(Style::Series(i).class()) { path class="mark" d=(shape(i, LEFT + 6.0, row(i) - 4.0)) {} }
                    text class="label" x=(LEFT + 20.0) y=(row(i)) { (name) }
                }
            }
        };
        picture.into_string()
    }

    fn inside(&self) -> Markup {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let across = |v: f64| LEFT + v * (right - LEFT);
        let up = |v: f64| bottom - v * (bottom - TOP);
        html! {
            title { (self.title) }
            @for (v, label) in self.y.ticks() {
                path class="grid" d=(format!("M{LEFT},{y:.1}H{right}", y = up(v))) {}
                text class="tick" x=(one(LEFT - 6.0)) y=(one(up(v) + 4.0)) text-anchor="end" { (label) }
            }
            @for (v, label) in self.x.ticks() {
                path class="grid" d=(format!("M{x:.1},{TOP}V{bottom}", x = across(v))) {}
                text class="tick" x=(one(across(v))) y=(one(bottom + 16.0)) text-anchor="middle" { (label) }
            }
            path class="frame" d=(format!("M{LEFT},{TOP}V{bottom}H{right}")) {}
            text class="label" x=(one(across(0.5))) y=(one(HEIGHT - 8.0)) text-anchor="middle" { (self.x.label()) }
            text class="label" x="0" y="0" text-anchor="middle" transform=(format!("translate(12 {:.1}) rotate(-90)", up(0.5))) {
                (self.y.label())
            }
            @for mark in &self.marks { (mark) }
        }
    }
}

fn one(v: f64) -> String {
    format!("{v:.1}")
}

/// Outline of the shape of a series about a point.
fn shape(style: usize, x: f64, y: f64) -> String {
    let polygon = |points: &[(f64, f64)]| {
        let points: Vec<String> = points.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
        format!("M{}Z", points.join("L"))
    };
    match style % COLOURS {
        0 => format!("M{:.1},{y:.1}a5,5 0 1 0 10,0a5,5 0 1 0 -10,0Z", x - 5.0),
        1 => polygon(&[(-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)]),
        2 => polygon(&[(0.0, -6.0), (5.5, 4.5), (-5.5, 4.5)]),
        3 => polygon(&[(0.0, -6.5), (5.5, 0.0), (0.0, 6.5), (-5.5, 0.0)]),
        4 => polygon(&[(0.0, 6.0), (5.5, -4.5), (-5.5, -4.5)]),
        5 => polygon(&[
            (-2.0, -6.0),
            (2.0, -6.0),
            (2.0, -2.0),
            (6.0, -2.0),
            (6.0, 2.0),
            (2.0, 2.0),
            (2.0, 6.0),
            (-2.0, 6.0),
            (-2.0, 2.0),
            (-6.0, 2.0),
            (-6.0, -2.0),
            (-2.0, -2.0),
        ]),
        6 => polygon(&[(-6.0, 0.0), (4.5, -5.5), (4.5, 5.5)]),
        _ => polygon(&[(-3.0, -5.5), (3.0, -5.5), (6.0, 0.0), (3.0, 5.5), (-3.0, 5.5), (-6.0, 0.0)]),
    }
}

/// A key: lines, the marks of series, and names.
pub fn legend<'a>(entries: impl Iterator<Item = (Style, &'a str)>) -> Markup {
    html! {
        ul class="legend" {
            @for (style, name) in entries {
                li {
                    svg class="key" viewBox="0 0 28 14" aria-hidden="true" {
                        g class=(style.class()) {
                            path class="line" d="M1,7H27" {}
                            @if let Style::Series(style) = style { path class="mark" d=(shape(style, 14.0, 7.0)) {} }
                        }
                    }
                    (name)
                }
            }
        }
    }
}
