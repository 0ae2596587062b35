//! What training and evaluation count.

/// Sums over pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Totals {
    /// Sum of losses.
    pub loss: f64,
    /// Pictures whose label came first.
    pub top1: f64,
    /// Pictures whose label was among the first five.
    pub top5: f64,
    /// Pictures.
    pub count: f64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        self.loss += other.loss;
        self.top1 += other.top1;
        self.top5 += other.top5;
        self.count += other.count;
    }
}

impl Totals {
    /// Adds one row of the metrics ring.
    pub fn add(&mut self, row: &[f32]) {
        self.loss += f64::from(row[0]);
        self.top1 += f64::from(row[1]);
        self.top5 += f64::from(row[2]);
        self.count += f64::from(row[3]);
    }

    /// Mean loss.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.count
    }

    /// Top-1 in percent.
    pub fn top1_percent(&self) -> f64 {
        100.0 * self.top1 / self.count
    }

    /// Top-5 in percent.
    pub fn top5_percent(&self) -> f64 {
        100.0 * self.top5 / self.count
    }
}

/// An evaluation.
#[derive(Debug, Clone, Default)]
pub struct Evaluation {
    /// Sums.
    pub totals: Totals,
    /// Predicted class of every picture.
    pub predictions: Vec<u32>,
}

impl Evaluation {
    /// Adds that of further pictures.
    pub fn join(&mut self, other: Evaluation) {
        self.totals += other.totals;
        self.predictions.extend(other.predictions);
    }

    /// Scores logits `(N, classes)`: loss without smoothing, top-1 and top-5. Of equal logits the first class leads.
    ///
    /// # Panics
    /// A label that is no class.
    pub fn of_logits(logits: &[f32], classes: usize, labels: &[u16]) -> Evaluation {
        let mut evaluation = Evaluation::default();
        for (row, &label) in logits.chunks_exact(classes).zip(labels) {
            let (sample, prediction) = score(row, usize::from(label));
            let t = &mut evaluation.totals;
            t.loss += sample[0];
            t.top1 += sample[1];
            t.top5 += sample[2];
            t.count += 1.0;
            evaluation.predictions.push(prediction);
        }
        evaluation
    }
}

/// Loss, top-1 and top-5 of one row of logits, and the predicted class.
fn score(row: &[f32], label: usize) -> ([f64; 3], u32) {
    let best = (0..row.len()).fold(0, |b, c| if row[c] > row[b] { c } else { b });
    let top = f64::from(row[best]);
    let sum: f64 = row.iter().map(|v| (f64::from(*v) - top).exp()).sum();
    let before = |c: &usize| row[*c] > row[label] || (row[*c] == row[label] && *c < label);
    let rank = (0..row.len()).filter(before).count();
    let loss = sum.ln() - (f64::from(row[label]) - top);
    ([loss, f64::from(u8::from(rank == 0)), f64::from(u8::from(rank < 5))], best as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_rank_by_class() {
        let row = [1.0, 2.0, 2.0, 0.0, 0.0, 0.0];
        assert_eq!(score(&row, 1).1, 1);
        let tops = [0, 1, 2, 5].map(|label| score(&row, label).0).map(|s| (s[1], s[2]));
        assert_eq!(tops, [(0.0, 1.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)]);
        let sum: f64 = row.iter().map(|v: &f32| f64::from(*v).exp()).sum();
        assert!((score(&row, 0).0[0] - (sum.ln() - 1.0)).abs() < 1e-12);
    }
}
