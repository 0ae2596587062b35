// Per layer, chunk of CHUNK rows and channel: (max |w|, sum w, sum w^2). Weights are (rows = taps * c_in, c_out).
// stats: three vec4 a (chunk, 4 channels), at row.stats. Grid: (invocations over chunks x columns, layers).
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
@group(0) @binding(3) var<storage, read_write> stats: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = table[wg.y];
    let i = wg.x * 64u + lid;
    let col = i % row.cols4;
    let first = (i / row.cols4) * p.chunk;
    if (first >= row.rows) {
        return;
    }
    let last = min(first + p.chunk, row.rows);
    var top = vec4<f32>(0.0);
    var sum = vec4<f32>(0.0);
    var squares = vec4<f32>(0.0);
    for (var r = first; r < last; r++) {
        let w = params[row.offset4 + r * row.cols4 + col];
        top = max(top, abs(w));
        sum += w;
        squares += w * w;
    }
    let o = row.stats + 3u * i;
    stats[o] = top;
    stats[o + 1u] = sum;
    stats[o + 2u] = squares;
}
