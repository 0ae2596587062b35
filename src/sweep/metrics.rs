//! What a run's `metrics.jsonl` says of it.

use std::path::Path;

use serde_json::Value;

/// The evaluation of an epoch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Score {
    /// `test` or `val`.
    pub(super) split: String,
    /// `float` or `fake_quant`.
    pub(super) evaluation: String,
    pub(super) top1: f64,
    pub(super) top5: f64,
    pub(super) loss: f64,
}

/// Pictures and the time that they took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Pace {
    /// Pictures in all.
    pub(super) pictures: f64,
    pub(super) seconds: f64,
    /// Pictures of the last epoch.
    pub(super) of_epoch: f64,
}

impl Pace {
    fn add(&mut self, line: &Value) {
        let number = |key: &str| line[key].as_f64().unwrap_or(0.0);
        self.pictures += number("samples");
        self.seconds += number("seconds");
        self.of_epoch = number("samples");
    }
}

/// A run's metrics so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Metrics {
    /// Epochs trained.
    pub(super) epochs: u32,
    /// Training loss of the last one.
    pub(super) train_loss: Option<f64>,
    /// The last evaluation.
    pub(super) score: Option<Score>,
    /// Top-1 of the last evaluation of a float epoch, in percent.
    pub(super) float_top1: Option<f64>,
    /// Training in float, training quantized, and scoring.
    pub(super) paces: [Pace; 3],
    /// Of the epoch at hand: the share that is done, and pictures a second, as the last heartbeat said.
    pub(super) beat: Option<(f64, f64)>,
}

impl Metrics {
    /// Those of the run folder `run`; none where it has none yet.
    pub(super) fn read(run: &Path) -> Metrics {
        let text = std::fs::read(run.join("metrics.jsonl")).unwrap_or_default();
        Metrics::of(&String::from_utf8_lossy(&text))
    }

    /// Lines that cannot be read, as one that is being written, are passed over.
    fn of(text: &str) -> Metrics {
        let mut m = Metrics::default();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let is_quantized = line["phase"] == "quant";
            match (line["kind"].as_str(), line["split"].as_str()) {
                (Some("epoch"), Some("train")) => {
                    m.epochs += 1;
                    m.train_loss = line["loss"].as_f64();
                    m.paces[usize::from(is_quantized)].add(&line);
                    m.beat = None;
                }
                (Some("epoch"), Some(split)) => m.score(split, &line, is_quantized),
                (Some("heartbeat"), _) => {
                    let number = |key: &str| line[key].as_f64();
                    let share = number("step").zip(number("steps")).map(|(step, steps)| step / steps.max(1.0));
                    m.beat = share.zip(number("images_per_second"));
                }
                _ => {}
            }
        }
        m
    }

    fn score(&mut self, split: &str, line: &Value, is_quantized: bool) {
        let number = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_string();
        if !is_quantized {
            self.float_top1 = line["top1"].as_f64();
        }
        self.paces[2].add(line);
        self.score = Some(Score {
            split: split.into(),
            evaluation: text("evaluation"),
            top1: number("top1"),
            top5: number("top5"),
            loss: number("loss"),
        });
    }

    /// Time spent in epochs and their evaluations.
    pub(super) fn seconds(&self) -> f64 {
        self.paces.iter().map(|pace| pace.seconds).sum()
    }

    /// Seconds until `epochs` epochs are done; `None` before the first is.
    pub(super) fn left(&self, epochs: u32) -> Option<f64> {
        let (share, rate) = self.beat.unwrap_or((0.0, 0.0));
        let [float, quant, scoring] = self.paces;
        let pace = if quant.pictures > 0.0 { quant } else { float };
        let epoch = match (pace.pictures > 0.0, scoring.of_epoch > 0.0) {
            (true, true) => {
                let rate = if rate > 0.0 { rate } else { pace.pictures / pace.seconds.max(1e-9) };
                pace.of_epoch / rate + scoring.of_epoch * scoring.seconds / scoring.pictures.max(1.0)
            }
            _ => return None,
        };
        Some((f64::from(epochs.saturating_sub(self.epochs)) - share).max(0.0) * epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"kind":"header","format_version":1}
{"kind":"epoch","phase":"float","epoch":1,"split":"train","loss":4.0,"samples":100,"seconds":10}
{"kind":"epoch","phase":"float","epoch":1,"split":"test","evaluation":"float","top1":50,"top5":90,"loss":3,"samples":50,"seconds":2}
{"kind":"epoch","phase":"quant","epoch":1,"split":"train","loss":2.5,"samples":100,"seconds":20}
{"kind":"epoch","phase":"quant","epoch":1,"split":"test","evaluation":"fake_quant","top1":40,"top5":80,"loss":3.5,"samples":50,"seconds":2}
{"kind":"heartbeat","phase":"quant","epoch":2,"step":5,"steps":10,"images_per_second":10}
{"kind":"epo"#;

    #[test]
    fn the_last_epoch_counts_and_half_a_line_does_not() {
        let m = Metrics::of(LINES);
        assert_eq!((m.epochs, m.train_loss, m.float_top1, m.seconds()), (2, Some(2.5), Some(50.0), 34.0));
        let score = m.score.clone().unwrap();
        assert_eq!((score.split.as_str(), score.evaluation.as_str(), score.top1), ("test", "fake_quant", 40.0));
        // Half an epoch of ten seconds and its evaluation of two.
        assert_eq!((m.beat, m.left(3)), (Some((0.5, 10.0)), Some(6.0)));
        assert_eq!(Metrics::of("").left(3), None);
    }
}
