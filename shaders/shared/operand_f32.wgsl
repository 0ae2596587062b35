// Operand format: four neighbouring channels, stored as vec4<f32>, read as values.
alias Operand = vec4<f32>;
fn operand(i: u32) -> Operand {
    return x[i];
}
fn decode(v: Operand) -> vec4<f32> {
    return v;
}
