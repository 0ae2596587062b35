// An activation on its way back. A kernel that uses this has bindings `context`, `shortcut_context` and `ranges`, and the constant
// SHORTCUT: 0 none; 1 an earlier activation; 2 a projection with its own batch norm. ActParams in src/kernels/activation.rs.
struct ActParams {
    range_row: u32,      // this activation's row of ranges
    shortcut_row: i32,   // the shortcut's row of ranges, -1: scale 1
    shortcut: u32,       // both fixed in the variant
    shortcut_format: u32,
    quant: Quant,
}

// What four channels have in common (see norm_merge).
struct ActChannels {
    mul: vec4<f32>,
    add: vec4<f32>,
    hat_mul: vec4<f32>,
    hat_add: vec4<f32>,
    s_mul: vec4<f32>,
    s_add: vec4<f32>,
    s_hat_mul: vec4<f32>,
    s_hat_add: vec4<f32>,
    inv: vec4<f32>,
}

fn act_channels(a: ActParams, col: u32, cols4: u32) -> ActChannels {
    var k: ActChannels;
    k.mul = context[col];
    k.add = context[cols4 + col];
    k.hat_mul = context[2u * cols4 + col];
    k.hat_add = context[3u * cols4 + col];
    k.s_mul = vec4<f32>(1.0);
    k.s_add = vec4<f32>(0.0);
    k.s_hat_mul = vec4<f32>(0.0);
    k.s_hat_add = vec4<f32>(0.0);
    if (SHORTCUT == 1u && a.shortcut_row >= 0) {
        k.s_mul = vec4<f32>(ranges[a.shortcut_row].scale);
    }
    if (SHORTCUT == 2u) {
        k.s_mul = shortcut_context[col];
        k.s_add = shortcut_context[cols4 + col];
        k.s_hat_mul = shortcut_context[2u * cols4 + col];
        k.s_hat_add = shortcut_context[3u * cols4 + col];
    }
    k.inv = vec4<f32>(ranges[a.range_row].inv_scale);
    return k;
}

// Sums over rows: of dz, of dz * xhat of the main branch and of the projection, of what the quantizer blocks, of what reaches it.
struct ActSums {
    dz: vec4<f32>,
    hat: vec4<f32>,
    s_hat: vec4<f32>,
    stopped: vec4<f32>,
    reaching: vec4<f32>,
}

// The gradient d of the activation's output becomes that of the value before the ReLU, and is added to the sums. The masks (ReLU and
// straight-through) are made from the saved convolution output y and the shortcut s, exactly as act_fwd made them.
fn act_backward(quant: Quant, k: ActChannels, d: vec4<f32>, y: vec4<f32>, s: vec4<f32>, sums: ptr<function, ActSums>) -> vec4<f32> {
    let zero = vec4<f32>(0.0);
    let z = pre_activation(y, k.mul, k.add, s, k.s_mul, k.s_add);
    let alive = select(zero, d, z > zero);
    var dz = alive;
    if (quant.enabled == 1u) {
        dz = select(zero, alive, passes(quant, z, k.inv));
        (*sums).reaching += abs(alive);
        (*sums).stopped += abs(alive - dz);
    }
    (*sums).dz += dz;
    (*sums).hat += dz * fma(y, k.hat_mul, k.hat_add);
    if (SHORTCUT == 2u) {
        (*sums).s_hat += dz * fma(s, k.s_hat_mul, k.s_hat_add);
    }
    return dz;
}

// What is left of the last two sums: (blocked |d|, |d| of positive values, 0, 0).
fn act_blocked(sums: ActSums) -> vec4<f32> {
    let one = vec4<f32>(1.0);
    return vec4<f32>(dot(sums.stopped, one), dot(sums.reaching, one), 0.0, 0.0);
}
