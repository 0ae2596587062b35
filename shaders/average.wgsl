// average = decay * average + (1 - decay) * value, where decay is the step's ema_decay or, of gradients, its gradient_decay.
// Grid: one invocation a vec4.
//use index
//use step
struct Params {
    words4: u32,
    gradients: u32,
    pad0: u32,
    pad1: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> step: Step;
@group(0) @binding(3) var<storage, read_write> averages: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    if (i >= p.words4) {
        return;
    }
    let decay = select(step.ema_decay, step.gradient_decay, p.gradients == 1u);
    averages[i] = decay * averages[i] + (1.0 - decay) * values[i];
}
