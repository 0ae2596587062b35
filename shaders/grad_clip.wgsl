// clip = (min(1, most / (norm + 1e-6)), norm), norm = sqrt(sum of parts): the factor that brings gradients down to norm `most`,
// as torch.nn.utils.clip_grad_norm_. Grid: one workgroup of 64.
//use workgroup_sum
struct Params {
    groups: u32,
    most: f32,
    pad0: u32,
    pad1: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> clip: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lid: u32) {
    var sum = 0.0;
    for (var i = lid; i < p.groups; i += 64u) {
        sum += parts[i];
    }
    let total = workgroup_sum(lid, vec4<f32>(sum, 0.0, 0.0, 0.0));
    if (lid == 0u) {
        let norm = sqrt(total.x);
        clip[0] = min(1.0, p.most / (norm + 1e-6));
        clip[1] = norm;
    }
}
