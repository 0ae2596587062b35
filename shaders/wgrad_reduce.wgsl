// Gradients of the weights of some layers, neighbours in the parameters, from the parts that wgrad left:
//   grad[i] = mask(w[i]) * factor(w[i]) * s_x / s_w[c] * sum over splits of part[split, i]
// Where the scale is learned, mask and factor are for weight_step.
// The incoming gradient carries s_w already, and x is in codes. Fixed order, so results repeat. quantize = 0: x and w are real.
// blocks[b]: the table row of the 256 words that start at 256 b. Grid: one invocation a vec4 of `words` words from
// `first`.
//use index
//use quant
//use ranges
//use weight_table
struct Params {
    first: u32,
    words: u32,
    quantize: u32,
    pad0: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<WeightRow>;
@group(0) @binding(2) var<storage, read> blocks: array<u32>;
@group(0) @binding(3) var<storage, read> part: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> params: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> scales: array<vec4<f32>>; // see weight_scale
@group(0) @binding(6) var<storage, read> ranges: array<RangeRow>;
@group(0) @binding(7) var<storage, read_write> grads: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let flat = flat_index(wg, groups, lid);
    if (4u * flat >= p.words) {
        return;
    }
    let i = p.first / 4u + flat;
    let b = blocks[i / 64u];
    let first = table[b].offset4;
    let cols4 = table[b].cols4;
    let words4 = table[b].rows * cols4;
    let local = i - first;
    if (local >= words4) {
        return; // padding between layers
    }
    let base = table[b].part4 + local;
    let splits = table[b].splits;
    var g = vec4<f32>(0.0);
    for (var s = 0u; s < splits; s++) {
        g += part[base + s * words4];
    }
    if (p.quantize == 1u) {
        let x_row = table[b].x_row;
        if (x_row >= 0) {
            g *= ranges[x_row].scale;
        }
        let quant = table[b].quant;
        if (quant.enabled == 1u) {
            let c = table[b].scales / 4u + local % cols4;
            g /= scales[c];
            if (quant.learn == LEARN_NOTHING) {
                let w = params[i];
                g = select(vec4<f32>(0.0), g, passes(quant, w, scales[c + cols4]));
                g *= gradient_factor(quant, g, w, scales[c], scales[c + cols4]);
            }
        }
    }
    grads[i] = g;
}
