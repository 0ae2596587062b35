// Batch norms of the branches that end in one activation on their way back, per channel: merges the partial sums of conv_act or act_bwd, writes the
// gradients of gamma and beta and the coefficients of dy = k * (dz - m1 - xhat * m2), k = gamma * inv_std * s_w (the gradient carries
// s_w from here on). Where pow2, k is the power of two that the forward pass used, with the gradient of the real one (straight through):
// then m2 takes the ratio of the two.
// part: four vec4 a (chunk, 4 channels), as these leave them; all branches have dz in common. blocked: the sum of the fourth over
// these channels. coefficients: k (C), m1 (C), m2 (C), and the same of the projection behind them.
// The maxima of the gradients that norm_bwd is about to write begin anew. Grid: one workgroup of 64 a (four channels, branch).
//use ranges
//use norm_branch
struct Params {
    channels: u32,
    rows: u32,
    chunks: u32,
    branches: u32,
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
@group(0) @binding(3) var<storage, read> context: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> ranges: array<RangeRow>;
@group(0) @binding(5) var<storage, read_write> grads: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> coefficients: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> blocked: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> maxima: array<u32>;
var<workgroup> share_sum: array<vec4<f32>, 64>;
var<workgroup> share_dot: array<vec4<f32>, 64>;
var<workgroup> share_whole: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let col = wg.x;
    let cols4 = p.channels / 4u;
    var b = p.main;
    if (wg.y == 1u) {
        b = p.projection;
    }
    var sum = vec4<f32>(0.0);
    var dot = vec4<f32>(0.0);
    var whole = vec4<f32>(0.0);
    for (var k = lid; k < p.chunks; k += 64u) {
        let o = 4u * (k * cols4 + col);
        sum += part[o];
        dot += part[o + 1u + wg.y];
        whole += part[o + 3u];
    }
    share_sum[lid] = sum;
    share_dot[lid] = dot;
    share_whole[lid] = whole;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (lid < half) {
            share_sum[lid] += share_sum[lid + half];
            share_dot[lid] += share_dot[lid + half];
            share_whole[lid] += share_whole[lid + half];
        }
        workgroupBarrier();
    }
    if (lid != 0u) {
        return;
    }
    sum = share_sum[0];
    dot = share_dot[0];
    if (wg.y == 0u) {
        blocked[col] = share_whole[0];
    }
    if (col == 0u) {
        maxima[b.max_row] = 0u;
    }
    grads[b.affine4 + col] = dot;
    grads[b.affine4 + cols4 + col] = sum;
    var s = 1.0;
    if (b.x_row >= 0) {
        s = ranges[b.x_row].scale;
    }
    let out = 3u * wg.y * cols4 + col;
    let at = wg.y * p.channels + col;
    let real = params[b.affine4 + col] * context[at + 2u * cols4];
    var used = real;
    var ratio = vec4<f32>(1.0);
    if (p.pow2 == 1u) {
        used = context[at];
        ratio = select(real / used, vec4<f32>(1.0), used == vec4<f32>(0.0));
    }
    coefficients[out] = used / s;
    coefficients[out + cols4] = sum / f32(p.rows);
    coefficients[out + 2u * cols4] = dot / f32(p.rows) * ratio;
}
