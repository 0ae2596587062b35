// ring[slot] = (sum of losses, label on top, label in the top five, pictures) of one batch. Grid: one workgroup of 64.
//use step
//use workgroup_sum
struct Params {
    batch: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> samples: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> step: Step;
@group(0) @binding(3) var<storage, read_write> ring: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lid: u32) {
    var sum = vec4<f32>(0.0);
    for (var i = lid; i < min(p.batch, step.valid); i += 64u) {
        sum += vec4<f32>(samples[i].xyz, 1.0);
    }
    let total = workgroup_sum(lid, sum);
    if (lid == 0u) {
        ring[step.ring_slot] = total;
    }
}
