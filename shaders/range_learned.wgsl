// Rows of ranges from the parameters that they are learned as: the step, the step and the offset (in values), or the range. Frozen ones
// stay as they are. Grid: one invocation an activation quantizer.
//use quant
//use step
//use ranges
//use range_table
struct Params {
    count: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<TableRow>;
@group(0) @binding(2) var<storage, read> params: array<f32>;
@group(0) @binding(3) var<storage, read> step: Step;
@group(0) @binding(4) var<storage, read_write> ranges: array<RangeRow>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= p.count || step.frozen == 1u) {
        return;
    }
    let t = table[id.x];
    if (t.learn == LEARN_NOTHING) {
        return;
    }
    let learned = params[t.step_at];
    var range = learned;
    var scale = scale_of(t.rule, learned);
    if (t.learn != LEARN_RANGE) {
        scale = scale_of_step(t.rule, learned, ranges[t.row].unit);
        range = range_of_step(t.rule, 1.0 / scale.y);
    }
    ranges[t.row].range = range;
    ranges[t.row].scale = scale.x;
    ranges[t.row].inv_scale = scale.y;
    if (t.learn == LEARN_STEP_AND_OFFSET) {
        let code = round(params[t.step_at + 1u] * scale.y);
        ranges[t.row].zero = clamp(code, f32(t.lowest_zero), f32(t.highest_zero));
    }
}
