//! `cqat watch`: curves and the layer table, as wide and as high as the terminal is.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use console::Term;
use serde_json::Value;

use crate::config::{Config, MOST_SECONDS, Method};
use crate::run::{RunFolder, now};
use crate::terminal::printable;
use crate::{Error, Result};

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// The folder of a run, wherever it is being trained
    run: PathBuf,
    /// Show the run as it is, and leave
    #[arg(long)]
    once: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    every: f32,
}

impl WatchArgs {
    pub(super) fn run(&self) -> Result<()> {
        if !(0.1..=MOST_SECONDS).contains(&self.every) {
            let message = format!("--every is {}, expected 0.1 to {MOST_SECONDS} seconds", self.every);
            return Err(Error::config(message).hint("2 is the default"));
        }
        let folder = RunFolder::open(&self.run)?;
        let config = folder.config()?;
        let terminal = Term::stdout();
        let follow = !self.once && terminal.is_term();
        let mut finished = 0;
        for look in 0.. {
            let path = folder.file("metrics.jsonl");
            // A line that is damaged is passed over.
            let text = std::fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|e| {
                Error::training(format!("{} cannot be read", path.display()))
                    .hint("the file is missing or damaged: every run has it from its beginning")
                    .caused_by(e)
            })?;
            let view = View::of(&text, &config);
            finished += usize::from(view.finished);
            let mut space = Space::of(&terminal);
            if !follow {
                space.rows = usize::MAX;
            }
            let picture =
                view.draw(&self.run.display().to_string(), now(), space, if view.finished { 0 } else { look });
            if !follow {
                print!("{picture}");
                return Ok(());
            }
            print!("\x1b[2J\x1b[H{picture}");
            let _ = std::io::stdout().flush();
            // The last scores come before the last lines of the layers: one more look.
            if finished > 1 {
                break;
            }
            std::thread::sleep(Duration::from_secs_f32(self.every));
        }
        Ok(())
    }
}

/// Where there is to draw.
#[derive(Clone, Copy)]
struct Space {
    rows: usize,
    columns: usize,
}

impl Space {
    /// A file has room for everything.
    fn of(terminal: &Term) -> Space {
        match terminal.size_checked() {
            Some((rows, columns)) => Space { rows: rows.into(), columns: columns.into() },
            None => Space { rows: usize::MAX, columns: usize::MAX },
        }
    }
}

/// What a run's metrics say of it.
struct View {
    /// Training loss of each epoch, float before quantized.
    losses: Vec<f64>,
    /// Accuracy on the scored pictures after each epoch, in percent.
    scores: Vec<f64>,
    /// Name of the scored pictures.
    split: String,
    /// The newest line of an epoch or a heartbeat.
    last: Option<Value>,
    /// Lines of the layers after the last quantized epoch.
    layers: Vec<Value>,
    finished: bool,
}

/// Most columns of a curve.
const WIDTH: usize = 60;

/// A column of the layer table: its title, its width, and what it shows of a line.
type Column = (&'static str, usize, fn(&Value) -> String);

/// Those of the layer table, beside the layer's name; where a terminal is narrow, the last ones are left out.
const COLUMNS: [Column; 6] = [
    ("", 10, |line| line["tensor"].as_str().unwrap_or("").into()),
    ("bits", 4, |line| line["bits"].to_string()),
    ("scale", 9, |line| line["scale"].as_f64().map_or("-".into(), |scale| format!("{scale:.6}"))),
    ("saturated", 9, |line| percent(&line["saturated"])),
    ("blocked", 8, |line| percent(&line["blocked"])),
    ("changed", 8, |line| percent(&line["changed"])),
];
/// Columns of a layer's name.
const NAME: usize = 21;

fn percent(value: &Value) -> String {
    value.as_f64().map_or("-".into(), |v| format!("{:.1} %", 100.0 * v))
}

impl View {
    /// Lines that cannot be read, as one that is being written, are passed over.
    fn of(metrics: &str, config: &Config) -> View {
        let mut view = View {
            losses: Vec::new(),
            scores: Vec::new(),
            split: "test".into(),
            last: None,
            layers: Vec::new(),
            finished: false,
        };
        let quantizes = config.quant.method != Method::None;
        let (last_phase, last_epoch) = match quantizes {
            true => ("quant", config.train.quant_epochs),
            false => ("float", config.train.float_epochs),
        };
        for line in metrics.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            match (line["kind"].as_str(), line["split"].as_str()) {
                (Some("epoch"), Some("train")) => view.losses.extend(line["loss"].as_f64()),
                (Some("epoch"), Some(split)) => {
                    view.scores.extend(line["top1"].as_f64());
                    view.split = split.into();
                    view.finished = line["phase"] == last_phase && line["epoch"] == last_epoch;
                }
                (Some("layer"), _) => {
                    if view.layers.first().is_some_and(|first| first["epoch"] != line["epoch"]) {
                        view.layers.clear();
                    }
                    view.layers.push(line);
                    continue;
                }
                (Some("heartbeat"), _) => {}
                _ => continue,
            }
            view.last = Some(line);
        }
        view
    }

    /// What fits into `space`: of more layers than that, another page with each `look`.
    fn draw(&self, name: &str, now: u64, space: Space, look: usize) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "{name}{}", if self.finished { "  finished" } else { "" });
        match &self.last {
            None => out.push_str("no step has been reported yet\n"),
            Some(line) => {
                let phase = line["phase"].as_str().unwrap_or("?");
                let _ = write!(out, "{phase} epoch {}", line["epoch"]);
                if line["kind"] == "heartbeat" {
                    let ago = now.saturating_sub(line["time"].as_u64().unwrap_or(now));
                    let rate = line["images_per_second"].as_f64().unwrap_or(0.0);
                    let _ = write!(out, "  step {}/{}  {rate:.0} images/s  {ago} s ago", line["step"], line["steps"]);
                }
                out.push('\n');
            }
        }
        curve(&mut out, "training loss", &self.losses, 4, space.columns);
        curve(&mut out, &format!("{} top-1, %", self.split), &self.scores, 2, space.columns);
        // An empty line, the titles, the number of the page, and where the cursor is.
        let room = space.rows.saturating_sub(out.lines().count() + 4);
        if !self.layers.is_empty() && room > 0 {
            self.draw_layers(&mut out, room, space.columns, look);
        }
        printable(&out).lines().map(|line| format!("{}\n", console::truncate_str(line, space.columns, "…"))).collect()
    }

    /// `room` lines of the layer table.
    fn draw_layers(&self, out: &mut String, room: usize, columns: usize, look: usize) {
        let mut width = NAME;
        let fits = |(_, more, _): &&Column| {
            width += 1 + more;
            width <= columns
        };
        let shown: Vec<&Column> = COLUMNS.iter().take_while(fits).collect();
        let _ = write!(out, "\n{:NAME$}", "layer");
        shown.iter().for_each(|(title, width, _)| out.push_str(&format!(" {title:>width$}")));
        out.push('\n');
        let pages: Vec<&[Value]> = self.layers.chunks(room).collect();
        let page = look % pages.len();
        for line in pages[page] {
            let _ = write!(out, "{:NAME$}", line["layer"].as_str().unwrap_or(""));
            shown.iter().for_each(|(_, width, show)| out.push_str(&format!(" {:>width$}", show(line))));
            out.push('\n');
        }
        if pages.len() > 1 {
            let _ = writeln!(out, "page {} of {}; --once shows all", page + 1, pages.len());
        }
    }
}

/// A line of eight heights, with the first and the last value.
fn curve(out: &mut String, name: &str, values: &[f64], digits: usize, columns: usize) {
    let [first, .., last] = values else {
        if let [only] = values {
            let _ = writeln!(out, "{name:16} {only:.digits$}");
        }
        return;
    };
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let (before, after) = (format!("{name:16} {first:.digits$} "), format!(" {last:.digits$}"));
    let columns = values.len().min(WIDTH).min(columns.saturating_sub(before.len() + after.len())).max(2);
    let height = |column: usize| {
        let value = values[column * (values.len() - 1) / (columns - 1)];
        let part = if high > low { (value - low) / (high - low) } else { 0.5 };
        ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][((part * 7.0).round() as usize).min(7)]
    };
    let line: String = (0..columns).map(height).collect();
    let _ = writeln!(out, "{before}{line}{after}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Space = Space { rows: usize::MAX, columns: usize::MAX };

    fn config(sets: &[&str]) -> Config {
        Config::load("cqat", &sets.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_run_is_drawn_from_its_metrics() {
        let config = config(&["train.float_epochs=2", "train.quant_epochs=1"]);
        let line = |kind: &str, rest: &str| format!("{{\"kind\":\"{kind}\",{rest}}}\n");
        let epoch = |phase: &str, n: u32, loss: f64, top1: f64| {
            line(
                "epoch",
                &format!("\"phase\":\"{phase}\",\"epoch\":{n},\"split\":\"train\",\"loss\":{loss},\"top1\":1"),
            ) + &line(
                "epoch",
                &format!("\"phase\":\"{phase}\",\"epoch\":{n},\"split\":\"val\",\"loss\":9,\"top1\":{top1}"),
            )
        };
        let header = line("header", "\"format_version\":1");
        let half = header.clone() + &epoch("float", 1, 4.0, 10.0);
        let beat = "\"phase\":\"float\",\"epoch\":2,\"step\":7,\"steps\":20,\"images_per_second\":95.4,\"time\":100";
        let view = View::of(&(half.clone() + &line("heartbeat", beat) + "{\"kind\":\"epo"), &config);
        let drawn = view.draw("runs/a", 103, ALL, 0);
        assert!(drawn.contains("float epoch 2  step 7/20  95 images/s  3 s ago"), "{drawn}");
        assert!(!view.finished && drawn.contains("training loss    4.0000\n"), "{drawn}");
        let layer = "\"phase\":\"quant\",\"epoch\":1,\"layer\":\"stem\",\"tensor\":\"activation\",\"bits\":4,\"scale\":0.5,\"saturated\":0.25";
        let whole = half + &epoch("float", 2, 2.0, 50.0) + &epoch("quant", 1, 3.0, 30.0) + &line("layer", layer);
        let view = View::of(&whole, &config);
        let drawn = view.draw("runs/a", 103, ALL, 0);
        assert!(view.finished && drawn.starts_with("runs/a  finished\nquant epoch 1\n"), "{drawn}");
        assert!(
            drawn.contains("training loss    4.0000 █▁▅ 3.0000") && drawn.contains("val top-1, %     10.00 ▁█▅ 30.00"),
            "{drawn}"
        );
        assert!(
            drawn.contains("stem                  activation    4  0.500000    25.0 %        -        -"),
            "{drawn}"
        );
        assert!(View::of("", &config).draw("x", 0, ALL, 0).contains("no step has been reported yet"));
    }

    #[test]
    fn long_curves_are_thinned() {
        let values: Vec<f64> = (0..500).map(f64::from).collect();
        let mut out = String::new();
        curve(&mut out, "x", &values, 0, usize::MAX);
        assert_eq!(out.chars().filter(|c| ('▁'..='█').contains(c)).count(), WIDTH);
        assert!(out.contains("0 ▁") && out.trim_end().ends_with("█ 499"), "{out}");
    }

    #[test]
    fn a_small_terminal_is_enough() {
        let config = config(&["train.float_epochs=0", "train.quant_epochs=90"]);
        let mut metrics = String::new();
        for epoch in 1..=80 {
            metrics += &format!(
                "{{\"kind\":\"epoch\",\"phase\":\"quant\",\"epoch\":{epoch},\"split\":\"train\",\"loss\":{}}}\n\
                 {{\"kind\":\"epoch\",\"phase\":\"quant\",\"epoch\":{epoch},\"split\":\"test\",\"top1\":{epoch}}}\n",
                9.0 / f64::from(epoch)
            );
        }
        for layer in 0..40 {
            metrics += &format!(
                "{{\"kind\":\"layer\",\"epoch\":80,\"layer\":\"layer{layer}.0.conv1\",\"tensor\":\"activation\",\
                 \"bits\":4,\"scale\":0.0123456,\"saturated\":1,\"blocked\":1,\"changed\":1}}\n"
            );
        }
        let view = View::of(&metrics, &config);
        let folder = "runs/a-name-that-is-longer-than-the-narrowest-of-these-terminals";
        for (rows, columns) in [(24, 80), (12, 40), (9, 30), (50, 200)] {
            let mut seen = std::collections::BTreeSet::new();
            for look in 0..40 {
                let drawn = view.draw(folder, 0, Space { rows, columns }, look);
                assert!(drawn.lines().count() < rows, "{rows} x {columns}:\n{drawn}");
                assert!(drawn.lines().all(|line| line.chars().count() <= columns), "{rows} x {columns}:\n{drawn}");
                assert!(drawn.contains('█') && drawn.contains("top-1, %"), "{drawn}");
                seen.extend(drawn.lines().filter(|l| l.contains(".0.conv1")).map(String::from));
            }
            assert_eq!(seen.len(), 40, "{rows} x {columns}: every layer has its turn");
        }
        let drawn = view.draw("a", 0, Space { rows: 24, columns: 80 }, 1);
        assert!(drawn.contains("changed") && drawn.contains("page 2 of 3"), "{drawn}");
        let drawn = view.draw("a", 0, Space { rows: 24, columns: 50 }, 0);
        assert!(drawn.contains("scale") && !drawn.contains("saturated"), "whole columns are left out:\n{drawn}");
        let drawn = view.draw("a", 0, ALL, 0);
        assert_eq!(drawn.matches(".0.conv1").count(), 40);
    }
}
