// grad[i] = mask(w[i]) * s_x / s_w[c] * sum over splits of part[split, i]: the incoming gradient carries s_w already and
// x is in codes. Fixed order, so results repeat. Grid: one invocation a vec4 of the (taps * c_in, c_out) gradient.
//use index
//use quant
//use ranges
struct Params {
    words4: u32,
    cols4: u32,
    splits: u32,
    x_row: i32,   // row of ranges, -1: scale 1
    quant: Quant,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> part: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> scales: array<vec4<f32>>; // c_out scales, c_out inverse scales
@group(0) @binding(4) var<storage, read> ranges: array<RangeRow>;
@group(0) @binding(5) var<storage, read_write> grad: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    if (i >= p.words4) {
        return;
    }
    var g = vec4<f32>(0.0);
    for (var s = 0u; s < p.splits; s++) {
        g += part[s * p.words4 + i];
    }
    if (p.x_row >= 0) {
        g *= ranges[p.x_row].scale;
    }
    if (p.quant.enabled == 1u) {
        let c = i % p.cols4;
        g /= scales[c];
        g = select(vec4<f32>(0.0), g, passes(p.quant, weights[i], scales[p.cols4 + c]));
    }
    grad[i] = g;
}
