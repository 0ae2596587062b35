// parts[group] = sum of the squares of the gradients that fall to the group. Grid: `groups` workgroups of 64.
//use workgroup_sum
struct Params {
    words4: u32,
    groups: u32,
    pad0: u32,
    pad1: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> grads: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> parts: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    var sum = 0.0;
    for (var i = wg.x * 64u + lid; i < p.words4; i += p.groups * 64u) {
        sum += dot(grads[i], grads[i]);
    }
    let total = workgroup_sum(lid, vec4<f32>(sum, 0.0, 0.0, 0.0));
    if (lid == 0u) {
        parts[wg.x] = total.x;
    }
}
