//! Progress on standard error: a bar with images/s and ETA on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal as _;
use std::sync::Mutex;
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
    name: String,
    steps: u64,
    at: u64,
    first: u64,
    batch: usize,
    loss: Option<f64>,
    /// Time between heartbeats; none where it is zero.
    every: Duration,
    last_beat: Instant,
    plain: bool,
}

/// What a heartbeat tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beat {
    /// Steps of the epoch that are done.
    pub step: u64,
    /// Steps of the epoch.
    pub steps: u64,
    /// Mean training loss of the epoch so far, where it is known.
    pub loss: Option<f64>,
    /// Pictures a second since the epoch began or was resumed.
    pub images_per_second: f64,
}

impl Progress {
    /// Starts at step `at` of `steps`.
    pub fn start(name: &str, steps: u64, at: u64, batch: usize, every: Duration, quiet: bool) -> Progress {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(steps) };
        let style = ProgressStyle::with_template("{prefix:14} {bar:30} {pos}/{len} {msg} ETA {eta}");
        bar.set_style(style.expect("the template is valid"));
        bar.set_prefix(name.to_string());
        bar.set_position(at);
        bar.reset_eta();
        let now = Instant::now();
        let plain = !quiet && !std::io::stderr().is_terminal();
        let name = name.to_string();
        Progress { bar, start: now, name, steps, at, first: at, batch, loss: None, every, last_beat: now, plain }
    }

    /// A heartbeat, where it is time for one. Without a terminal it is a line on standard error too.
    pub fn beat(&mut self) -> Option<Beat> {
        if self.every.is_zero() || self.last_beat.elapsed() < self.every {
            return None;
        }
        self.last_beat = Instant::now();
        let beat = Beat { step: self.at, steps: self.steps, loss: self.loss, images_per_second: self.rate() };
        if self.plain {
            say!("{}", beat.line(&self.name, self.batch));
        }
        Some(beat)
    }

    fn rate(&self) -> f64 {
        let images = (self.at - self.first) as f64 * self.batch as f64;
        images / self.start.elapsed().as_secs_f64().max(1e-9)
    }

    /// Shows the step.
    pub fn update(&mut self, at: u64) {
        self.at = at;
        let rate = self.rate();
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

impl Beat {
    /// `float 1/12  step 100/390  loss 4.071  95 images/s  6 min left`.
    fn line(&self, name: &str, batch: usize) -> String {
        let Beat { step, steps, loss, images_per_second } = *self;
        let loss = loss.map_or(String::new(), |loss| format!("  loss {loss:.3}"));
        let left = (steps - step) as f64 * batch as f64 / images_per_second.max(1e-9);
        let left = if left < 90.0 { format!("{left:.0} s") } else { format!("{:.0} min", left / 60.0) };
        format!("{name}  step {step}/{steps}{loss}  {images_per_second:.0} images/s  {left} left")
    }
}

/// Progress of a download: a bar on a terminal, a line now and then elsewhere.
pub struct Download {
    bar: ProgressBar,
    name: String,
    plain: bool,
    last_line: Instant,
}

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Download {
    /// Before the first bytes of the file `name`, or the first of those that are missing.
    pub fn start(name: &str, quiet: bool) -> Download {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}");
        bar.set_style(style.expect("the template is valid"));
        let plain = !quiet && !std::io::stderr().is_terminal();
        Download { bar, name: name.into(), plain, last_line: Instant::now() }
    }

    /// `have` bytes have arrived, of `total` where that is known.
    pub fn update(&mut self, have: u64, total: Option<u64>) {
        if self.bar.position() == 0 && have > 0 {
            self.bar.set_position(have); // what was there before is no news
            self.bar.reset_eta();
        }
        self.bar.set_length(total.unwrap_or(have));
        self.bar.set_position(have);
        if self.plain && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let of = total.map_or(String::new(), |total| format!(" of {:.1}", total as f64 / 1e6));
            say!("{}: {:.1}{of} MB", self.name, have as f64 / 1e6);
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Progress of work that consists of so many pieces, on several threads: a bar on a terminal, a line now and then elsewhere.
pub struct Count {
    bar: ProgressBar,
    name: &'static str,
    plain: bool,
    last_line: Mutex<Instant>,
}

impl Count {
    /// Before the first of `count` pieces.
    pub fn start(name: &'static str, count: u64, quiet: bool) -> Count {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(count) };
        bar.set_length(count);
        let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} ETA {eta}");
        bar.set_style(style.expect("the template is valid"));
        bar.set_prefix(name);
        let plain = !quiet && !std::io::stderr().is_terminal();
        Count { bar, name, plain, last_line: Mutex::new(Instant::now()) }
    }

    /// One more is done.
    pub fn one_more(&self) {
        self.bar.inc(1);
        if let (true, Ok(mut last)) = (self.plain, self.last_line.try_lock())
            && last.elapsed() >= LINE_EVERY
        {
            *last = Instant::now();
            say!("{}: {} of {}", self.name, self.bar.position(), self.bar.length().unwrap_or_default());
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_a_plain_line() {
        let beat = Beat { step: 100, steps: 390, loss: Some(4.0712), images_per_second: 95.0 };
        assert_eq!(beat.line("float 1/12", 128), "float 1/12  step 100/390  loss 4.071  95 images/s  7 min left");
        let beat = Beat { step: 385, loss: None, ..beat };
        assert_eq!(beat.line("quant 2/3", 128), "quant 2/3  step 385/390  95 images/s  7 s left");
    }
}
