// Weights of a 3x3 convolution for Winograd's F(2x2, 3x3): u = 2G g 2G^T, whole numbers where the weights are, up to 9 times as large.
// w, from w_base on: (9, c_in, c_out); where flip is 1, the taps are those of the data gradient. u: (16, c_in, c_out).
// Grid: one invocation a (c_in, 4 channels of c_out).
//use index
struct Params {
    w_base: u32,
    items: u32, // c_in * c_out / 4
    flip: u32,
    pad0: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> u: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    if (i >= p.items) {
        return;
    }
    var g: array<vec4<f32>, 12>;
    for (var kx = 0u; kx < 3u; kx++) { // unrolled
        let a = w[p.w_base + i + p.items * select(kx, 8u - kx, p.flip == 1u)];
        let b = w[p.w_base + i + p.items * select(3u + kx, 5u - kx, p.flip == 1u)];
        let c = w[p.w_base + i + p.items * select(6u + kx, 2u - kx, p.flip == 1u)];
        g[kx] = 2.0 * a;
        g[3u + kx] = a + b + c;
        g[6u + kx] = a - b + c;
        g[9u + kx] = 2.0 * c;
    }
    for (var ky = 0u; ky < 4u; ky++) { // unrolled
        let a = g[3u * ky];
        let b = g[3u * ky + 1u];
        let c = g[3u * ky + 2u];
        let o = i + 4u * ky * p.items;
        u[o] = 2.0 * a;
        u[o + p.items] = a + b + c;
        u[o + 2u * p.items] = a - b + c;
        u[o + 3u * p.items] = 2.0 * c;
    }
}
