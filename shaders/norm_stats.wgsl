// Batch statistics of y (rows, C), per chunk of rows and channel: (mean, sum of squared deviations), two passes over the
// chunk. part, from part4 on: two vec4 a (chunk, 4 channels). Grid: one invocation a (chunk, 4 channels).
//use index
struct Params {
    rows: u32,
    cols4: u32,
    chunk: u32,
    part4: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> part: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    let col = i % p.cols4;
    let first = (i / p.cols4) * p.chunk;
    if (first >= p.rows) {
        return;
    }
    let last = min(first + p.chunk, p.rows);
    var sum = vec4<f32>(0.0);
    for (var r = first; r < last; r++) {
        sum += y[r * p.cols4 + col];
    }
    let mean = sum / f32(last - first);
    var squares = vec4<f32>(0.0);
    for (var r = first; r < last; r++) {
        let d = y[r * p.cols4 + col] - mean;
        squares += d * d;
    }
    part[p.part4 + 2u * i] = mean;
    part[p.part4 + 2u * i + 1u] = squares;
}
