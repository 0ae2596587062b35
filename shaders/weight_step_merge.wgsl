// Gradients of learned weight scales from the sums of weight_step: one a layer, or one a channel. Frozen ones get none.
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
@group(0) @binding(2) var<storage, read> part: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> step: Step;
@group(0) @binding(4) var<storage, read_write> grads: array<f32>;
var<workgroup> share: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = table[wg.x];
    if (row.quant.enabled == 0u || row.quant.learn == LEARN_NOTHING) {
        return; // the same for the whole workgroup
    }
    let chunks = (row.rows + p.chunk - 1u) / p.chunk;
    let scale = select(row.gradient_scale, 0.0, step.frozen == 1u);
    var all = 0.0;
    for (var c = lid; c < row.cols4 * 4u; c += 64u) {
        var sum = 0.0;
        for (var k = 0u; k < chunks; k++) {
            sum += part[row.stats / 3u + k * row.cols4 + c / 4u][c % 4u];
        }
        if (row.per_channel == 1u) {
            grads[row.step_at + c] = scale * sum;
        }
        all += sum;
    }
    share[lid] = all;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (lid < half) {
            share[lid] += share[lid + half];
        }
        workgroupBarrier();
    }
    if (lid == 0u && row.per_channel == 0u) {
        grads[row.step_at] = scale * share[0];
    }
}
