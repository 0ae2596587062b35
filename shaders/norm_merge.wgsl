// Batch norm of one layer, per channel: merges the chunks (Chan et al.), updates the running statistics and writes what
// the elementwise passes need. y is in code units; its value is y * s with s = s_x * s_w[c].
//   context[0..C]  = gamma * inv_std * s        z    = y * context0 + context1
//   context[C..2C] = beta - mean * gamma * inv_std
//   context[2C..3C] = inv_std * s               xhat = y * context2 + context3
//   context[3C..4C] = -mean * inv_std
// affine: gamma (C), beta (C). running: mean (C), unbiased variance (C). health[slot]: first step + 1 with a value that is
// not finite. evaluate = 1 takes the running statistics instead of the batch's. Grid: one invocation a channel.
//use index
//use step
//use ranges
struct Params {
    channels: u32,
    rows: u32,
    chunk: u32,
    chunks: u32,
    evaluate: u32,
    x_row: i32,    // row of ranges, -1: scale 1
    w_scale: u32,    // 1: scales hold s_w
    health_slot: u32,
    eps: f32,
    momentum: f32,   // weight of the new batch; 0 leaves the running statistics alone
    pad0: u32,
    pad1: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> part: array<f32>;
@group(0) @binding(2) var<storage, read> affine: array<f32>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read> ranges: array<RangeRow>;
@group(0) @binding(5) var<storage, read> step: Step;
@group(0) @binding(6) var<storage, read_write> running: array<f32>;
@group(0) @binding(7) var<storage, read_write> context: array<f32>;
@group(0) @binding(8) var<storage, read_write> health: array<u32>;

fn finite(v: f32) -> bool {
    return (bitcast<u32>(v) & 0x7f800000u) != 0x7f800000u;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let c = flat_index(wg, groups, lid);
    if (c >= p.channels) {
        return;
    }
    var s = 1.0;
    if (p.x_row >= 0) {
        s = ranges[p.x_row].scale;
    }
    if (p.w_scale == 1u) {
        s *= scales[c];
    }
    var mean = running[c];
    var variance = running[p.channels + c];
    if (p.evaluate == 0u) {
        let stride = 2u * p.channels;
        let base = (c / 4u) * 8u + c % 4u;
        var count = 0.0;
        var m = 0.0;
        var squares = 0.0;
        for (var k = 0u; k < p.chunks; k++) {
            let n = f32(min(p.chunk, p.rows - k * p.chunk));
            let d = part[k * stride + base] - m;
            let total = count + n;
            m += d * (n / total);
            squares += part[k * stride + base + 4u] + d * d * (count * n / total);
            count = total;
        }
        mean = m * s;
        variance = squares / count * (s * s);
        if (p.momentum > 0.0) {
            let unbiased = variance * (count / max(count - 1.0, 1.0));
            running[c] += p.momentum * (mean - running[c]);
            running[p.channels + c] += p.momentum * (unbiased - running[p.channels + c]);
        }
        if ((!finite(mean) || !finite(variance)) && health[p.health_slot] == 0u) {
            health[p.health_slot] = step.index + 1u; // every channel that gets here writes the same number
        }
    }
    let inv_std = 1.0 / sqrt(variance + p.eps);
    let gamma = affine[c];
    context[c] = gamma * inv_std * s;
    context[p.channels + c] = affine[p.channels + c] - mean * (gamma * inv_std);
    context[2u * p.channels + c] = inv_std * s;
    context[3u * p.channels + c] = -mean * inv_std;
}
