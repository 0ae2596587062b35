// Sums of a convolution: integer operands, added exactly, kept as they are in the words of the result.
alias Sum4 = vec4<i32>;
fn total(v: Sum4) -> vec4<f32> {
    return bitcast<vec4<f32>>(v);
}
