// An activation, both ways. A kernel that uses this has bindings `context` (see norm_merge) and `ranges`, and the constant SHORTCUT:
// 0 none; 1 an earlier activation; 2 a projection with its own batch norm.

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
    quant: Quant, // with its offset
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
        k.s_mul = context[4u * cols4 + col];
        k.s_add = context[5u * cols4 + col];
        k.s_hat_mul = context[6u * cols4 + col];
        k.s_hat_add = context[7u * cols4 + col];
    }
    k.inv = vec4<f32>(ranges[a.range_row].inv_scale);
    k.quant = a.quant;
    if (a.quant.learn == LEARN_STEP_AND_OFFSET) {
        k.quant = at_zero(a.quant, i32(ranges[a.range_row].zero));
    }
    return k;
}

// Value before the ReLU: batch norm of the main branch plus the shortcut. Forward and backward call this one function,
// so that the recomputed mask is the mask of the forward pass.
fn pre_activation(k: ActChannels, y: vec4<f32>, s: vec4<f32>) -> vec4<f32> {
    return fma(y, k.mul, k.add) + fma(s, k.s_mul, k.s_add);
}

// Sums over rows on the way back: of dz, of dz * xhat of the main branch and of the projection, of what the quantizer blocks, of what reaches
// it; where its scale is learned, of d times the slopes by step and offset.
struct ActSums {
    dz: vec4<f32>,
    hat: vec4<f32>,
    s_hat: vec4<f32>,
    stopped: vec4<f32>,
    reaching: vec4<f32>,
    step: vec4<f32>,
    offset: vec4<f32>,
}

// The gradient d of the activation's output becomes that of the value before the ReLU, and is added to the sums. The masks (ReLU and
// straight-through) are made from the saved convolution output y and the shortcut s, exactly as act_fwd made them.
fn act_backward(k: ActChannels, d: vec4<f32>, y: vec4<f32>, s: vec4<f32>, sums: ptr<function, ActSums>) -> vec4<f32> {
    let zero = vec4<f32>(0.0);
    let z = pre_activation(k, y, s);
    let alive = select(zero, d, z > zero);
    var dz = alive;
    if (k.quant.enabled == 1u) {
        dz = select(zero, alive, passes(k.quant, z, k.inv));
        (*sums).reaching += abs(alive);
        (*sums).stopped += abs(alive - dz);
        if (k.quant.learn != LEARN_NOTHING) {
            let by = slopes(k.quant, max(z, zero), k.inv);
            (*sums).step += d * by.step;
            (*sums).offset += d * by.offset;
        }
        if (k.quant.delta != 0.0) {
            dz *= gradient_factor(k.quant, dz, z, zero, k.inv);
        }
    }
    (*sums).dz += dz;
    (*sums).hat += dz * fma(y, k.hat_mul, k.hat_add);
    if (SHORTCUT == 2u) {
        (*sums).s_hat += dz * fma(s, k.s_hat_mul, k.s_hat_add);
    }
    return dz;
}

// The sums that all channels of a tensor have in common: (blocked |d|, |d| of positive values, gradients of the step and of the offset).
fn act_common(sums: ActSums) -> vec4<f32> {
    let one = vec4<f32>(1.0);
    return vec4<f32>(dot(sums.stopped, one), dot(sums.reaching, one), dot(sums.step, one), dot(sums.offset, one));
}
