// Operand format: four neighbouring channels, stored as u32, read as values.
alias Operand = u32;
fn operand(i: u32) -> Operand {
    return x[i];
}
fn decode(v: Operand) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(v));
}
fn bytes(v: Operand) -> u32 {
    return v;
}
