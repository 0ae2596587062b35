//! Progress on standard error: a bar with images/s and ETA on a terminal, nothing elsewhere (epoch lines still appear).

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// `eprintln!` that goes on where nobody reads standard error any more.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}
pub(crate) use say;

/// Progress through one epoch.
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
    first: u64,
    batch: usize,
    loss: Option<f64>,
}

impl Progress {
    /// Starts at step `at` of `steps`.
    pub fn start(name: &str, steps: u64, at: u64, batch: usize, quiet: bool) -> Progress {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(steps) };
        let style = ProgressStyle::with_template("{prefix:14} {bar:30} {pos}/{len} {msg} ETA {eta}");
        bar.set_style(style.expect("the template is valid"));
        bar.set_prefix(name.to_string());
        bar.set_position(at);
        bar.reset_eta();
        Progress { bar, start: Instant::now(), first: at, batch, loss: None }
    }

    /// Shows the step.
    pub fn update(&mut self, at: u64) {
        let images = (at - self.first) as f64 * self.batch as f64;
        let rate = images / self.start.elapsed().as_secs_f64().max(1e-9);
        let loss = self.loss.map_or(String::new(), |loss| format!("loss {loss:.3} "));
        self.bar.set_message(format!("{loss}{rate:.0} images/s"));
        self.bar.set_position(at);
    }

    /// Takes a new mean loss for the next update.
    pub fn loss(&mut self, loss: f64) {
        self.loss = Some(loss);
    }

    /// Removes the bar; returns the time since the start.
    pub fn finish(self) -> Duration {
        self.bar.finish_and_clear();
        self.start.elapsed()
    }
}

/// Progress of a download.
pub struct Download {
    bar: ProgressBar,
}

impl Download {
    /// Nothing has arrived.
    pub fn start(quiet: bool) -> Download {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}");
        bar.set_style(style.expect("the template is valid"));
        Download { bar }
    }

    /// `have` bytes have arrived, of `total` where that is known.
    pub fn update(&mut self, have: u64, total: Option<u64>) {
        self.bar.set_length(total.unwrap_or(have));
        self.bar.set_position(have);
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
