// Weights of four neighbouring output channels, stored as signed 8-bit codes in a u32.
alias Weight = u32;
fn weights(i: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(w[i]));
}
