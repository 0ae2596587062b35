// out[base + i] = values of the four channels in x[i], in a texture (see texel): the operand of the lane kernels.
// Grid: one invocation a vec4.
//use index
//use texel
struct Params {
    words4: u32,
    base: u32,
    format: u32,
    pad0: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var out: texture_storage_2d<rgba32float, write>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    if (i < p.words4) {
        textureStore(out, texel(p.base + i), decode(x[i]));
    }
}
