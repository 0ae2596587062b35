// Merges the statistics of act_fwd, moves the tracked range and makes the scale from it.
// Frozen ranges keep their scale; statistics go on. Grid: one workgroup of 64.
//use quant
//use step
//use ranges
struct Params {
    parts: u32,
    values: u32,      // values in the tensor
    mode: u32,        // Tracking: 0 hold, 1 batch, 2 ema, 3 max, 4 mean
    row: u32,
    use_sigma: u32,   // observe mean + sigmas * deviation instead of the maximum
    sigmas: f32,
    ema: f32,         // weight of the old range
    count_step: u32,  // 1: add to the statistics
    rule: ScaleRule,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> part: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> step: Step;
@group(0) @binding(3) var<storage, read_write> ranges: array<RangeRow>;
var<workgroup> share_a: array<vec4<f32>, 64>;
var<workgroup> share_b: array<vec4<f32>, 64>;

fn merge(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(max(a.x, b.x), a.y + b.y, a.z + b.z, 0.0);
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lid: u32) {
    var a = vec4<f32>(0.0);
    var b = vec4<f32>(0.0);
    for (var i = lid; i < p.parts; i += 64u) {
        a = merge(a, part[2u * i]);
        b += part[2u * i + 1u];
    }
    share_a[lid] = a;
    share_b[lid] = b;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (lid < half) {
            share_a[lid] = merge(share_a[lid], share_a[lid + half]);
            share_b[lid] += share_b[lid + half];
        }
        workgroupBarrier();
    }
    if (lid != 0u) {
        return;
    }
    let top = share_a[0];
    var seen = top.x;
    if (p.use_sigma == 1u) {
        let mean = share_b[0].x / f32(p.values);
        seen = mean + p.sigmas * sqrt(max(share_b[0].y / f32(p.values) - mean * mean, 0.0));
    }
    var range = ranges[p.row].range;
    if (step.frozen == 0u) {
        switch p.mode {
            case 1u: { range = seen; }
            case 2u: { range = p.ema * range + (1.0 - p.ema) * seen; }
            case 3u: { range = max(range, seen); }
            case 4u: {
                range += (seen - range) / (ranges[p.row].calibrated + 1.0);
                ranges[p.row].calibrated += 1.0;
            }
            default: {}
        }
        if (p.mode != 0u) {
            let scale = scale_of(p.rule, range);
            ranges[p.row].range = range;
            ranges[p.row].scale = scale.x;
            ranges[p.row].inv_scale = scale.y;
        }
    }
    ranges[p.row].observed = seen;
    if (p.count_step == 1u) {
        ranges[p.row].saturated += top.y / max(top.z, 1.0);
        ranges[p.row].steps += 1.0;
    }
}
