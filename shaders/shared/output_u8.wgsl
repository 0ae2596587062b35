// Output format: unsigned 8-bit codes, four channels packed in a u32.
alias Output = u32;
const QUANTIZED_OUTPUT = true;
fn encode(codes: vec4<i32>, values: vec4<f32>) -> Output {
    return pack4xU8(vec4<u32>(codes));
}
