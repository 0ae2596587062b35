// Batch norms of the branches that end in one activation, per channel: merges the chunks (Chan et al.), updates the running statistics
// and writes what the elementwise passes need. y is in code units; its value is y * s with s = s_x * s_w[c].
//   context[0..C]  = k * s                      z    = y * context0 + context1
//   context[C..2C] = beta - mean * k            k    = gamma * inv_std, where pow2 its nearest power of two
//   context[2C..3C] = inv_std * s               xhat = y * context2 + context3
//   context[3C..4C] = -mean * inv_std
// and the same of the projection behind it. part: two vec4 a (branch, chunk, 4 channels), as norm_stats leaves them.
// health[slot]: first step + 1 with a value that is not finite. evaluate = 1 takes the running statistics instead of the batch's.
// Grid: one workgroup of 64 a (four channels, branch).
//use step
//use ranges
//use norm_branch
//use quant
struct Params {
    channels: u32,
    rows: u32,
    chunk: u32,
    chunks: u32,
    evaluate: u32,
    branches: u32,
    eps: f32,
    momentum: f32,   // weight of the new batch; 0 leaves the running statistics alone
    pow2: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
    main: NormBranch,
    projection: NormBranch,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> part: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> params: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> scales: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> ranges: array<RangeRow>;
@group(0) @binding(5) var<storage, read> step: Step;
@group(0) @binding(6) var<storage, read_write> running: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> context: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> health: array<u32>;

// Values that have been seen of each channel, their mean, and the sum of their squared distances from it.
struct Moments {
    count: f32,
    mean: vec4<f32>,
    squares: vec4<f32>,
}
var<workgroup> share: array<Moments, 64>;

fn merge(a: Moments, b: Moments) -> Moments {
    let total = max(a.count + b.count, 1.0);
    let d = b.mean - a.mean;
    return Moments(a.count + b.count, a.mean + d * (b.count / total), a.squares + b.squares + d * d * (a.count * b.count / total));
}

fn all_finite(v: vec4<f32>) -> bool {
    return all((bitcast<vec4<u32>>(v) & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let col = wg.x;
    let cols4 = p.channels / 4u;
    var b = p.main;
    if (wg.y == 1u) {
        b = p.projection;
    }
    var seen = Moments(0.0, vec4<f32>(0.0), vec4<f32>(0.0));
    if (p.evaluate == 0u) {
        for (var k = lid; k < p.chunks; k += 64u) {
            let o = 2u * ((wg.y * p.chunks + k) * cols4 + col);
            seen = merge(seen, Moments(f32(min(p.chunk, p.rows - k * p.chunk)), part[o], part[o + 1u]));
        }
    }
    share[lid] = seen;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (lid < half) {
            share[lid] = merge(share[lid], share[lid + half]);
        }
        workgroupBarrier();
    }
    if (lid != 0u) {
        return;
    }
    var s = vec4<f32>(1.0);
    if (b.x_row >= 0) {
        s = vec4<f32>(ranges[b.x_row].scale);
    }
    if (b.w_scale == 1u) {
        s *= scales[b.scales4 + col];
    }
    let at = b.running4 + col;
    var mean = running[at];
    var variance = running[at + cols4];
    if (p.evaluate == 0u) {
        let count = share[0].count;
        mean = share[0].mean * s;
        variance = share[0].squares / count * (s * s);
        if (p.momentum > 0.0) {
            let unbiased = variance * (count / max(count - 1.0, 1.0));
            running[at] += p.momentum * (mean - running[at]);
            running[at + cols4] += p.momentum * (unbiased - running[at + cols4]);
        }
        if ((!all_finite(mean) || !all_finite(variance)) && health[b.health_slot] == 0u) {
            health[b.health_slot] = step.index + 1u; // every workgroup that gets here writes the same number
        }
    }
    let inv_std = 1.0 / sqrt(variance + p.eps);
    let gamma = params[b.affine4 + col];
    var k = gamma * inv_std;
    if (p.pow2 == 1u) {
        k = vec4<f32>(nearest_pow2(k.x), nearest_pow2(k.y), nearest_pow2(k.z), nearest_pow2(k.w));
    }
    let out = wg.y * p.channels + col;
    context[out] = k * s;
    context[out + cols4] = params[b.affine4 + cols4 + col] - mean * k;
    context[out + 2u * cols4] = inv_std * s;
    context[out + 3u * cols4] = -mean * inv_std;
}
