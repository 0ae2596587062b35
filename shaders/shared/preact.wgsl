// Value before the ReLU: batch norm of the main branch plus the shortcut. Forward and backward call this one function,
// so that the recomputed mask is the mask of the forward pass.
fn pre_activation(y: vec4<f32>, mul: vec4<f32>, add: vec4<f32>, s: vec4<f32>, s_mul: vec4<f32>, s_add: vec4<f32>) -> vec4<f32> {
    return fma(y, mul, add) + fma(s, s_mul, s_add);
}
