// dy = k * (dz - m1 - xhat * m2), xhat = y * context2 + context3 (see norm_merge, norm_bwd_merge).
// The output `dy` (binding 5) comes with the variant: a buffer, or a texture for the lane kernels; store_dy writes it.
// Grid: one invocation a vec4 of (rows, C).
//use index
struct Params {
    words4: u32,
    cols4: u32,
    base: u32,       // texel of the first output value
    pad1: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dz: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> context: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> coefficients: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    if (i >= p.words4) {
        return;
    }
    let c = i % p.cols4;
    let xhat = fma(y[i], context[2u * p.cols4 + c], context[3u * p.cols4 + c]);
    store_dy(p.base + i, coefficients[c] * (dz[i] - coefficients[p.cols4 + c] - xhat * coefficients[2u * p.cols4 + c]));
}
