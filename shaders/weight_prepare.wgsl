// codes[i] = quantize(w[i]) as exact f32 (or the weight itself where the layer is not quantized), and the same values
// transposed for the data gradient: (tap, c_in, c_out) -> (tap, c_out, c_in). Every invocation handles 4 x 4 values.
// Where KEEP_MAX is set, the largest magnitude of each layer goes into maxima[max_first + its table row].
// blocks[b]: the table row of the 256 words that start at 256 b. Grid: one invocation a 4 x 4 block of words.
//use index
//use quant
//use weight_table
struct Params {
    words: u32,
    quantize: u32,
    keep_max: u32, // fixed in the variant too
    max_first: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<WeightRow>;
@group(0) @binding(2) var<storage, read> blocks: array<u32>;
@group(0) @binding(3) var<storage, read> params: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> scales: array<f32>;
@group(0) @binding(5) var<storage, read_write> codes: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> transposed: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> maxima: array<atomic<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    if (i * 16u >= p.words) {
        return;
    }
    let row = table[blocks[i / 16u]];
    let local = i - row.offset4 / 4u; // 4 x 4 block of this layer: (four rows, one column of four)
    if (local >= row.rows / 4u * row.cols4) {
        return; // padding between layers
    }
    let cols = row.cols4 * 4u;
    let r = (local / row.cols4) * 4u;
    let col = local % row.cols4;
    var inv = vec4<f32>(1.0);
    let on = p.quantize == 1u && row.quant.enabled == 1u;
    if (on) {
        let o = row.scales + cols + col * 4u;
        inv = vec4<f32>(scales[o], scales[o + 1u], scales[o + 2u], scales[o + 3u]);
    }
    var v: array<vec4<f32>, 4>;
    for (var k = 0u; k < 4u; k++) {
        let at = row.offset4 + (r + k) * row.cols4 + col;
        v[k] = params[at];
        if (on) {
            v[k] = vec4<f32>(quantize(row.quant, v[k], inv));
        }
        codes[at] = v[k];
    }
    if (KEEP_MAX) {
        let most = max(max(abs(v[0]), abs(v[1])), max(abs(v[2]), abs(v[3])));
        atomicMax(&maxima[p.max_first + blocks[i / 16u]], bitcast<u32>(max(max(most.x, most.y), max(most.z, most.w))));
    }
    let c_in = row.rows / row.taps;
    let base = row.offset4 + (((r / c_in) * cols + col * 4u) * c_in + r % c_in) / 4u;
    for (var k = 0u; k < 4u; k++) {
        transposed[base + k * c_in / 4u] = vec4<f32>(v[0][k], v[1][k], v[2][k], v[3][k]);
    }
}
