// Operand format: four neighbouring channels, stored as u32, read as values.
alias Operand = u32;
fn decode(v: Operand) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(v));
}
