// dx[n, pixel, c] = dout[n, c] / (H W). Grid: one invocation a vec4 of dx.
//use index
struct Params {
    batch: u32,
    pixels: u32,
    cols4: u32,
    x_row: i32, // of pool_fwd; not read
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dx: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    if (i >= p.batch * p.pixels * p.cols4) {
        return;
    }
    let n = i / (p.pixels * p.cols4);
    dx[i] = dout[n * p.cols4 + i % p.cols4] * (1.0 / f32(p.pixels));
}
