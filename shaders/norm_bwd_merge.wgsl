// Batch norm backward, per channel: merges the partial sums of act_bwd, writes the gradients of gamma and beta and the
// coefficients of dy = k * (dz - m1 - xhat * m2), k = gamma * inv_std * s_w (the gradient carries s_w from here on).
// part: four vec4 a (chunk, 4 channels): sum dz, sum dz * xhat of the main branch, of the projection, statistics.
// grads: gamma (C), beta (C). coefficients: k (C), m1 (C), m2 (C). Grid: one invocation a channel.
//use index
//use ranges
struct Params {
    channels: u32,
    rows: u32,
    chunks: u32,
    branch: u32,     // 1: main, 2: projection
    x_row: i32,    // row of ranges, -1: scale 1
    pad0: u32,
    pad1: u32,
    pad2: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> part: array<f32>;
@group(0) @binding(2) var<storage, read> affine: array<f32>;
@group(0) @binding(3) var<storage, read> context: array<f32>;
@group(0) @binding(4) var<storage, read> ranges: array<RangeRow>;
@group(0) @binding(5) var<storage, read_write> grads: array<f32>;
@group(0) @binding(6) var<storage, read_write> coefficients: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let c = flat_index(wg, groups, lid);
    if (c >= p.channels) {
        return;
    }
    let stride = 4u * p.channels;
    let base = (c / 4u) * 16u + c % 4u;
    var sum = 0.0;
    var dot = 0.0;
    for (var k = 0u; k < p.chunks; k++) {
        sum += part[k * stride + base];
        dot += part[k * stride + base + 4u * p.branch];
    }
    grads[c] = dot;
    grads[p.channels + c] = sum;
    var s = 1.0;
    if (p.x_row >= 0) {
        s = ranges[p.x_row].scale;
    }
    coefficients[c] = affine[c] * context[2u * p.channels + c] / s;
    coefficients[p.channels + c] = sum / f32(p.rows);
    coefficients[2u * p.channels + c] = dot / f32(p.rows);
}
