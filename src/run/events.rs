//! What a run tells TensorBoard, in `tensorboard/` of its folder.

use serde_json::Value;

use super::RunFolder;
use crate::Result;
use crate::tensorboard::{Counts, EventFile};

/// Folder of the event files in a run's.
pub const FOLDER: &str = "tensorboard";

/// The event file of this process, and the step that lines without one belong to.
#[derive(Debug)]
pub(super) struct Events {
    file: EventFile,
    step: u64,
}

impl RunFolder {
    /// Begins a file of events, from step `step` on; the files of earlier processes stay.
    ///
    /// # Errors
    /// A failure to write.
    pub fn begin_events(&mut self, step: u64) -> Result<()> {
        let resumed = (step > 0 || self.file(FOLDER).exists()).then_some(step);
        let file = EventFile::create(&self.file(FOLDER), resumed).map_err(|e| self.unwritable(FOLDER, e))?;
        self.events = Some(Events { file, step });
        Ok(())
    }

    /// A value of step `step`, for TensorBoard alone.
    ///
    /// # Errors
    /// A failure to write.
    pub fn scalar(&mut self, step: u64, tag: &str, value: f64) -> Result<()> {
        self.tell(|events| events.file.scalars(step, &[(tag.into(), value)]))
    }

    /// Weight codes of a layer after the last step that was logged, for TensorBoard alone.
    ///
    /// # Errors
    /// A failure to write.
    pub fn codes(&mut self, layer: &str, codes: &[i8]) -> Result<()> {
        self.tell(|events| {
            events.file.histogram(events.step, &format!("weight_codes/{layer}"), &Counts::of_codes(codes))
        })
    }

    /// The numbers of a line of `metrics.jsonl`.
    pub(super) fn tell_line(&mut self, line: &Value) -> Result<()> {
        let values = scalars(line);
        if values.is_empty() {
            return Ok(());
        }
        self.tell(|events| {
            events.step = line["step"].as_u64().unwrap_or(events.step);
            events.file.scalars(events.step, &values)
        })
    }

    fn tell(&mut self, write: impl FnOnce(&mut Events) -> std::io::Result<()>) -> Result<()> {
        let Some(events) = &mut self.events else { return Ok(()) };
        write(events).map_err(|e| self.unwritable(FOLDER, e))
    }
}

/// Tags and values of a line: `loss/train`, `top1/test`, `lr`, `activation_scale/layer1.0.relu1`.
fn scalars(line: &Value) -> Vec<(String, f64)> {
    let text = |key: &str| line[key].as_str().unwrap_or("unknown");
    let (kind, keys): (&str, &[&str]) = match line["kind"].as_str() {
        Some(kind @ "epoch") => (kind, &["loss", "top1", "top5", "lr", "images_per_second"]),
        Some(kind @ "layer") => (kind, &["scale", "range", "saturated", "blocked", "changed"]),
        _ => return Vec::new(),
    };
    let tag = |key: &str| match (kind, key) {
        ("layer", _) => format!("{}_{key}/{}", text("tensor"), text("layer")),
        (_, "lr" | "images_per_second") => key.to_string(),
        _ => format!("{key}/{}", text("split")),
    };
    keys.iter().filter_map(|key| Some((tag(key), line[*key].as_f64()?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::scalars;

    #[test]
    fn lines_become_tagged_values() {
        let line = json!({"kind": "epoch", "split": "train", "loss": 1.5, "lr": 0.1, "step": 7, "samples": 8});
        assert_eq!(scalars(&line), [("loss/train".into(), 1.5), ("lr".into(), 0.1)]);
        let line =
            json!({"kind": "layer", "tensor": "weight", "layer": "fc", "scale": 0.5, "changed": null, "bits": 8});
        assert_eq!(scalars(&line), [("weight_scale/fc".into(), 0.5)]);
        assert!(scalars(&json!({"kind": "heartbeat", "loss": 1.0})).is_empty());
    }
}
