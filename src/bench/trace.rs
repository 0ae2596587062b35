//! A step as a timeline, in Chrome's trace event format (`chrome://tracing`, Perfetto).

use serde_json::{Value, json};

use super::Timed;

/// The trace of a step whose dispatches ran one by one.
pub(super) fn of(step: &[Timed]) -> Value {
    let micro = |d: std::time::Duration| d.as_secs_f64() * 1e6;
    let events: Vec<Value> = step
        .iter()
        .map(|t| {
            let (d, time) = (t.dispatch, t.time);
            json!({
                "name": d.kernel.name, "cat": "kernel", "ph": "X", "pid": 1, "tid": 1,
                "ts": micro(time.begin), "dur": micro(time.length),
                "args": {
                    "layer": t.layer, "shape": t.shape, "variant": d.variant.name,
                    "flops": d.work.flops, "bytes": d.work.bytes,
                },
            })
        })
        .collect();
    json!({ "displayTimeUnit": "ms", "traceEvents": events })
}
