// Results of Winograd's F(2x2, 3x3): out (+)= A^T m A / 4 of each tile. m: a picture of 4 lines and 4 pixels a tile; out: NHWC of even
// sides; the weights were twice as large on both axes. Grid: one invocation a (tile, 4 channels).
//use index
//use winograd_params
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> m: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    let tile = i / p.cols4;
    if (tile >= p.tiles) {
        return;
    }
    var upper: array<vec4<f32>, 4>;
    var lower: array<vec4<f32>, 4>;
    for (var kx = 0u; kx < 4u; kx++) { // unrolled
        let o = (4u * tile + kx) * p.cols4 + i % p.cols4;
        let line = 4u * p.tiles * p.cols4;
        let b = m[o + line];
        let c = m[o + 2u * line];
        upper[kx] = m[o] + b + c;
        lower[kx] = b - c - m[o + 3u * line];
    }
    let place = p.first + tile;
    let line = place / p.tiles_w;
    let width = 2u * p.tiles_w * p.cols4;
    let o = 2u * line * width + 2u * (place % p.tiles_w) * p.cols4 + i % p.cols4;
    put(o, upper[0] + upper[1] + upper[2]);
    put(o + p.cols4, upper[1] - upper[2] - upper[3]);
    put(o + width, lower[0] + lower[1] + lower[2]);
    put(o + width + p.cols4, lower[1] - lower[2] - lower[3]);
}

fn put(o: u32, v: vec4<f32>) {
    var sum = v * 0.25;
    if (p.accumulate == 1u) {
        sum += out[o];
    }
    out[o] = sum;
}
