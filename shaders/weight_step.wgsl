// Layers whose weight scales are learned: sums of g times the slope by the step, over a chunk of CHUNK rows, and then g = grads, in place,
// becomes mask(w) * factor(w) * g. part: a vec4 a (chunk, 4 channels), where weight_stats leaves three. Grid: (invocations over chunks x
// columns, layers).
//use quant
//use weight_table
struct Params {
    layers: u32,
    chunk: u32,
    pad0: u32,
    pad1: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<WeightRow>;
@group(0) @binding(2) var<storage, read> params: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> scales: array<vec4<f32>>; // see weight_scale
@group(0) @binding(4) var<storage, read_write> grads: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> part: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = table[wg.y];
    let i = wg.x * 64u + lid;
    let col = i % row.cols4;
    let first = (i / row.cols4) * p.chunk;
    if (first >= row.rows || row.quant.enabled == 0u || row.quant.learn == LEARN_NOTHING) {
        return;
    }
    let last = min(first + p.chunk, row.rows);
    let scale = scales[row.scales / 4u + col];
    let inv = scales[row.scales / 4u + row.cols4 + col];
    var sum = vec4<f32>(0.0);
    for (var r = first; r < last; r++) {
        let at = row.offset4 + r * row.cols4 + col;
        let w = params[at];
        var g = grads[at];
        sum += g * slopes(row.quant, w, inv).step;
        g = select(vec4<f32>(0.0), g, passes(row.quant, w, inv));
        grads[at] = g * gradient_factor(row.quant, g, w, scale, inv);
    }
    part[row.stats / 3u + i] = sum;
}
