// Range and scale of every layer's weights, per channel; per-tensor granularity writes the same scale to every channel.
// scales: at row.scales, c_out scales, then c_out inverse scales, then c_out steps of the 8-bit grid. Learned ones come from params. Skipped while ranges are frozen or set by the host.
// Grid: one workgroup of 64 a layer.
//use quant
//use weight_table
//use step
struct Params {
    layers: u32,
    chunk: u32,
    pad0: u32,
    pad1: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<WeightRow>;
@group(0) @binding(2) var<storage, read> stats: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> step: Step;
@group(0) @binding(4) var<storage, read> params: array<f32>;
@group(0) @binding(5) var<storage, read_write> scales: array<f32>;
var<workgroup> share: array<vec3<f32>, 64>;

fn range_of(row: WeightRow, s: vec3<f32>, count: f32) -> f32 {
    if (row.estimator == ESTIMATE_SIGMA) {
        let mean = s.y / count;
        return abs(mean) + row.sigmas * sqrt(max(s.z / count - mean * mean, 0.0));
    }
    return select(s.x, row.fixed, row.estimator == ESTIMATE_FIXED);
}

// The scale of weights with this range: for tanh, the values are spread over [-1, 1].
fn scale_for(row: WeightRow, range: f32) -> vec2<f32> {
    if (row.estimator == ESTIMATE_TANH) {
        return vec2<f32>(1.0 / row.rule.levels, row.rule.levels / (2.0 * tanh(max(range, 1e-8))));
    }
    return scale_of(row.rule, range);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = table[wg.x];
    if (row.quant.enabled == 0u || row.estimator == ESTIMATE_HOST || step.frozen == 1u) {
        return; // the same for the whole workgroup
    }
    let cols = row.cols4 * 4u;
    if (row.estimator == ESTIMATE_LEARNED) {
        for (var c = lid; c < cols; c += 64u) {
            let learned = params[row.step_at + select(0u, c, row.per_channel == 1u)];
            let scale = scale_of_step(row.rule, learned, scales[row.scales + 2u * cols + c]);
            scales[row.scales + c] = scale.x;
            scales[row.scales + cols + c] = scale.y;
        }
        return;
    }
    let chunks = (row.rows + p.chunk - 1u) / p.chunk;
    var all = vec3<f32>(0.0);
    for (var c = lid; c < cols; c += 64u) {
        var s = vec3<f32>(0.0);
        for (var k = 0u; k < chunks; k++) {
            let o = row.stats + 3u * (k * row.cols4 + c / 4u);
            s = vec3<f32>(max(s.x, stats[o][c % 4u]), s.y + stats[o + 1u][c % 4u], s.z + stats[o + 2u][c % 4u]);
        }
        let scale = scale_for(row, range_of(row, s, f32(row.real_rows)));
        scales[row.scales + c] = scale.x;
        scales[row.scales + cols + c] = scale.y;
        all = vec3<f32>(max(all.x, s.x), all.y + s.y, all.z + s.z);
    }
    share[lid] = all;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (lid < half) {
            let o = share[lid + half];
            let m = share[lid];
            share[lid] = vec3<f32>(max(m.x, o.x), m.y + o.y, m.z + o.z);
        }
        workgroupBarrier();
    }
    if (row.per_channel == 1u) {
        return;
    }
    let scale = scale_for(row, range_of(row, share[0], f32(row.real_rows * row.real_cols)));
    for (var c = lid; c < cols; c += 64u) {
        scales[row.scales + c] = scale.x;
        scales[row.scales + cols + c] = scale.y;
    }
}
