// g = clip[0] * grad + wd * w (decayed parameters come first); v = momentum * v + g; w -= lr * (nesterov ? g + momentum * v : v).
// Grid: one invocation a vec4 of all parameters.
//use index
//use step
struct Params {
    words4: u32,
    decayed4: u32,   // parameters before this index decay
    nesterov: u32,
    momentum: f32,
    weight_decay: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> grads: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> step: Step;
@group(0) @binding(3) var<storage, read> clip: array<f32>;
@group(0) @binding(4) var<storage, read_write> params: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> velocity: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    if (i >= p.words4) {
        return;
    }
    let decay = select(0.0, p.weight_decay, i < p.decayed4);
    let g = clip[0] * grads[i] + decay * params[i];
    let v = p.momentum * velocity[i] + g;
    velocity[i] = v;
    params[i] -= step.lr * select(v, g + p.momentum * v, p.nesterov == 1u);
}
