// codes[i] = quantize(w[i]) as exact f32 (or the weight itself where the layer is not quantized), and the same values
// transposed for the data gradient: (tap, c_in, c_out) -> (tap, c_out, c_in).
// blocks[b]: the table row of the 256 words that start at 256 b. Grid: one invocation a vec4.
//use index
//use quant
//use weight_table
struct Params {
    words4: u32,
    quantize: u32,
    pad0: u32,
    pad1: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<WeightRow>;
@group(0) @binding(2) var<storage, read> blocks: array<u32>;
@group(0) @binding(3) var<storage, read> params: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> scales: array<f32>;
@group(0) @binding(5) var<storage, read_write> codes: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> transposed: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    if (i >= p.words4) {
        return;
    }
    let row = table[blocks[i / 64u]];
    let local = i - row.offset4;
    if (local >= row.rows * row.cols4) {
        return; // padding between layers
    }
    let cols = row.cols4 * 4u;
    let r = local / row.cols4;
    let c = (local % row.cols4) * 4u;
    var v = params[i];
    if (p.quantize == 1u && row.quant.enabled == 1u) {
        let o = row.scales + cols + c;
        let inv = vec4<f32>(scales[o], scales[o + 1u], scales[o + 2u], scales[o + 3u]);
        v = vec4<f32>(quantize(row.quant, v, inv));
    }
    codes[i] = v;
    let c_in = row.rows / row.taps;
    let t = row.offset4 * 4u + ((r / c_in) * cols + c) * c_in + r % c_in;
    transposed[t] = v.x;
    transposed[t + c_in] = v.y;
    transposed[t + 2u * c_in] = v.z;
    transposed[t + 3u * c_in] = v.w;
}
