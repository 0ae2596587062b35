// out[n, c] = s / (H W) * sum over pixels of x[n, pixel, c]; codes are summed exactly. Grid: one invocation a (n, 4 channels).
//use index
//use ranges
struct Params {
    batch: u32,
    pixels: u32,
    cols4: u32,
    x_row: i32,   // row of ranges, -1: scale 1
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read> ranges: array<RangeRow>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    if (i >= p.batch * p.cols4) {
        return;
    }
    let base = (i / p.cols4) * p.pixels * p.cols4 + i % p.cols4;
    var sum = vec4<f32>(0.0);
    for (var k = 0u; k < p.pixels; k++) {
        sum += decode(x[base + k * p.cols4]);
    }
    var s = 1.0;
    if (p.x_row >= 0) {
        s = ranges[p.x_row].scale;
    }
    out[i] = sum * (s / f32(p.pixels));
}
