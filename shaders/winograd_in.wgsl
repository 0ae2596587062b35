// Tiles of a 3x3 convolution's input for Winograd's F(2x2, 3x3): v = B^T d B of the 4 x 4 pixels that a tile of 2 x 2 results needs.
// x: NHWC in the variant's operand format, of even sides; around it are zeros. v: a picture of 4 lines and 4 pixels a tile, f32 (see
// product in src/kernels/winograd.rs). Codes stay whole numbers, up to 4 times as large. Grid: one invocation a (tile, 4 channels).
//use index
//use winograd_params
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read_write> v: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    let tile = i / p.cols4;
    if (tile >= p.tiles) {
        return;
    }
    let place = p.first + tile;
    let line = place / p.tiles_w;
    let n = line / p.tiles_h;
    let h = i32(2u * p.tiles_h);
    let w = i32(2u * p.tiles_w);
    let y0 = i32(2u * (line % p.tiles_h)) - 1i;
    let x0 = i32(2u * (place % p.tiles_w)) - 1i;
    var d: array<vec4<f32>, 16>;
    for (var ky = 0u; ky < 4u; ky++) { // unrolled
        for (var kx = 0u; kx < 4u; kx++) { // unrolled
            let iy = y0 + i32(ky);
            let ix = x0 + i32(kx);
            let o = u32((i32(n) * h + clamp(iy, 0i, h - 1i)) * w + clamp(ix, 0i, w - 1i));
            let inside = iy >= 0i && iy < h && ix >= 0i && ix < w;
            d[4u * ky + kx] = select(vec4<f32>(0.0), decode(operand(o * p.cols4 + i % p.cols4)), inside);
        }
    }
    for (var kx = 0u; kx < 4u; kx++) { // unrolled
        let a = d[kx] - d[8u + kx];
        let b = d[4u + kx] + d[8u + kx];
        let c = d[8u + kx] - d[4u + kx];
        d[12u + kx] = d[4u + kx] - d[12u + kx];
        d[kx] = a;
        d[4u + kx] = b;
        d[8u + kx] = c;
    }
    for (var ky = 0u; ky < 4u; ky++) { // unrolled
        let o = (ky * 4u * p.tiles + 4u * tile) * p.cols4 + i % p.cols4;
        v[o] = d[4u * ky] - d[4u * ky + 2u];
        v[o + p.cols4] = d[4u * ky + 1u] + d[4u * ky + 2u];
        v[o + 2u * p.cols4] = d[4u * ky + 2u] - d[4u * ky + 1u];
        v[o + 3u * p.cols4] = d[4u * ky + 1u] - d[4u * ky + 3u];
    }
}
