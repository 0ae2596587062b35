// Activation quantizers `first`, `first` + 1, ... of the table: merges the statistics of act_fwd and norm_bwd_merge, moves the tracked
// range and makes the scale from it. Frozen ranges keep their scale; statistics go on. Where the scale is learned, its gradient goes
// to grads.
// seen: two vec4 a part: (max a, saturated, positive, 0), (sum a, sum a^2, 0, 0). blocked: see act_common.
// Grid: one workgroup of 64 a quantizer.
//use quant
//use step
//use ranges
//use range_table
struct Params {
    first: u32,
    count: u32,
    mode: u32,        // Tracking: 0 hold, 1 batch, 2 ema, 3 max, 4 mean
    use_sigma: u32,   // observe mean + sigmas * deviation instead of the maximum
    sigmas: f32,
    ema: f32,         // weight of the old range
    count_step: u32,  // 1: add to the statistics
    pad0: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<TableRow>;
@group(0) @binding(2) var<storage, read> seen: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> blocked: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> step: Step;
@group(0) @binding(5) var<storage, read> params: array<f32>;
@group(0) @binding(6) var<storage, read_write> ranges: array<RangeRow>;
@group(0) @binding(7) var<storage, read_write> grads: array<f32>;
// (max a, saturated, positive, blocked |d|), (sum a, sum a^2, |d|, gradient of the step), gradient of the offset.
var<workgroup> share_a: array<vec4<f32>, 64>;
var<workgroup> share_b: array<vec4<f32>, 64>;
var<workgroup> share_c: array<f32, 64>;

fn merge(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(max(a.x, b.x), a.yzw + b.yzw);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let t = table[p.first + wg.x];
    var a = vec4<f32>(0.0);
    var b = vec4<f32>(0.0);
    var c = 0.0;
    for (var i = t.part + lid; i < t.part + t.parts; i += 64u) {
        a = merge(a, vec4<f32>(seen[2u * i].xyz, 0.0));
        b += vec4<f32>(seen[2u * i + 1u].xy, 0.0, 0.0);
    }
    if (p.count_step == 1u) {
        for (var i = t.blocked_part + lid; i < t.blocked_part + t.blocked_parts; i += 64u) {
            a.w += blocked[i].x;
            b += vec4<f32>(0.0, 0.0, blocked[i].yz);
            c += blocked[i].w;
        }
    }
    share_a[lid] = a;
    share_b[lid] = b;
    share_c[lid] = c;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (lid < half) {
            share_a[lid] = merge(share_a[lid], share_a[lid + half]);
            share_b[lid] += share_b[lid + half];
            share_c[lid] += share_c[lid + half];
        }
        workgroupBarrier();
    }
    if (lid != 0u) {
        return;
    }
    a = share_a[0];
    b = share_b[0];
    c = share_c[0];
    var observed = a.x;
    if (p.use_sigma == 1u) {
        let mean = b.x / f32(t.values);
        observed = mean + p.sigmas * sqrt(max(b.y / f32(t.values) - mean * mean, 0.0));
    }
    var range = ranges[t.row].range;
    if (step.frozen == 0u) {
        switch p.mode {
            case 1u: { range = observed; }
            case 2u: { range = p.ema * range + (1.0 - p.ema) * observed; }
            case 3u: { range = max(range, observed); }
            case 4u: {
                range += (observed - range) / (ranges[t.row].calibrated + 1.0);
                ranges[t.row].calibrated += 1.0;
            }
            default: {}
        }
        if (p.mode != 0u) {
            let scale = scale_of(t.rule, range);
            ranges[t.row].range = range;
            ranges[t.row].scale = scale.x;
            ranges[t.row].inv_scale = scale.y;
        }
    }
    ranges[t.row].observed = observed;
    if (p.count_step == 1u) {
        ranges[t.row].saturated += a.y / max(a.z, 1.0);
        ranges[t.row].steps += 1.0;
        if (b.z > 0.0) {
            ranges[t.row].blocked += a.w / b.z;
        }
        if (t.learn != LEARN_NOTHING) {
            let moving = select(t.gradient_scale, 0.0, step.frozen == 1u);
            if (t.learn == LEARN_RANGE) {
                grads[t.step_at] = moving * (c + t.decay * params[t.step_at]);
            } else {
                grads[t.step_at] = moving * b.w;
            }
            if (t.learn == LEARN_STEP_AND_OFFSET) {
                grads[t.step_at + 1u] = moving * c;
            }
        }
    }
}
