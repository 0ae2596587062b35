// Weights of four neighbouring output channels, stored as vec4<f32>.
alias Weight = vec4<f32>;
fn weights(i: u32) -> vec4<f32> {
    return w[i];
}
