//! `cqat watch`.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::config::{Config, MOST_SECONDS, Method};
use crate::run::{RunFolder, now};
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
        let follow = !self.once && std::io::stdout().is_terminal();
        loop {
            let path = folder.file("metrics.jsonl");
            let text = std::fs::read_to_string(&path).map_err(|e| {
                Error::training(format!("{} cannot be read", path.display()))
                    .hint("the file is missing or damaged: every run has it from its beginning")
                    .caused_by(e)
            })?;
            let view = View::of(&text, &config);
            let picture = view.draw(&self.run.display().to_string(), now());
            if !follow {
                print!("{picture}");
                return Ok(());
            }
            print!("\x1b[2J\x1b[H{picture}");
            let _ = std::io::stdout().flush();
            if view.finished {
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs_f32(self.every));
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

/// Columns of a curve.
const WIDTH: usize = 60;

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

    fn draw(&self, name: &str, now: u64) -> String {
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
        curve(&mut out, "training loss", &self.losses, 4);
        curve(&mut out, &format!("{} top-1, %", self.split), &self.scores, 2);
        if !self.layers.is_empty() {
            let _ = writeln!(
                out,
                "\n{:24} {:>10} {:>5} {:>10} {:>10} {:>9} {:>8}",
                "layer", "", "bits", "scale", "saturated", "blocked", "changed"
            );
        }
        for line in &self.layers {
            let text = |key: &str| line[key].as_str().unwrap_or("").to_string();
            let percent = |key: &str| line[key].as_f64().map_or("-".into(), |v| format!("{:.1} %", 100.0 * v));
            let scale = line["scale"].as_f64().unwrap_or(f64::NAN);
            let _ = writeln!(
                out,
                "{:24} {:>10} {:>5} {scale:>10.6} {:>10} {:>9} {:>8}",
                text("layer"),
                text("tensor"),
                line["bits"].to_string(),
                percent("saturated"),
                percent("blocked"),
                percent("changed")
            );
        }
        out
    }
}

/// A line of eight heights, with the first and the last value.
fn curve(out: &mut String, name: &str, values: &[f64], digits: usize) {
    let [first, .., last] = values else {
        if let [only] = values {
            let _ = writeln!(out, "{name:16} {only:.digits$}");
        }
        return;
    };
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let columns = values.len().min(WIDTH);
    let height = |column: usize| {
        let value = values[column * (values.len() - 1) / (columns - 1)];
        let part = if high > low { (value - low) / (high - low) } else { 0.5 };
        ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][((part * 7.0).round() as usize).min(7)]
    };
    let line: String = (0..columns).map(height).collect();
    let _ = writeln!(out, "{name:16} {first:.digits$} {line} {last:.digits$}");
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let drawn = view.draw("runs/a", 103);
        assert!(drawn.contains("float epoch 2  step 7/20  95 images/s  3 s ago"), "{drawn}");
        assert!(!view.finished && drawn.contains("training loss    4.0000\n"), "{drawn}");
        let layer = "\"phase\":\"quant\",\"epoch\":1,\"layer\":\"stem\",\"tensor\":\"activation\",\"bits\":4,\"scale\":0.5,\"saturated\":0.25";
        let whole = half + &epoch("float", 2, 2.0, 50.0) + &epoch("quant", 1, 3.0, 30.0) + &line("layer", layer);
        let view = View::of(&whole, &config);
        let drawn = view.draw("runs/a", 103);
        assert!(view.finished && drawn.starts_with("runs/a  finished\nquant epoch 1\n"), "{drawn}");
        assert!(
            drawn.contains("training loss    4.0000 █▁▅ 3.0000") && drawn.contains("val top-1, %     10.00 ▁█▅ 30.00"),
            "{drawn}"
        );
        assert!(drawn.contains("stem                     activation     4   0.500000     25.0 %         -"), "{drawn}");
        assert!(View::of("", &config).draw("x", 0).contains("no step has been reported yet"));
    }

    #[test]
    fn long_curves_are_thinned() {
        let values: Vec<f64> = (0..500).map(f64::from).collect();
        let mut out = String::new();
        curve(&mut out, "x", &values, 0);
        assert_eq!(out.chars().filter(|c| ('▁'..='█').contains(c)).count(), WIDTH);
        assert!(out.contains("0 ▁") && out.trim_end().ends_with("█ 499"), "{out}");
    }
}
