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
