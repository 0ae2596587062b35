// Sums of a convolution: 32-bit floats, exact for integers below 2^24.
alias Sum4 = vec4<f32>;
fn total(v: Sum4) -> vec4<f32> {
    return v;
}
