// Sums of a convolution: integer operands, added exactly, rounded to f32 once.
alias Sum4 = vec4<i32>;
fn total(v: Sum4) -> vec4<f32> {
    return vec4<f32>(v);
}
