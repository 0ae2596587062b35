// Operand format: four neighbouring channels of 4 bits, stored as one half of a u32, read as values.
alias Operand = u32;
fn operand(i: u32) -> Operand {
    return (x[i >> 1u] >> (16u * (i & 1u))) & 0xffffu;
}
fn bytes(v: Operand) -> u32 {
    let pairs = (v | (v << 8u)) & 0x00ff00ffu;
    return (pairs | (pairs << 4u)) & 0x0f0f0f0fu;
}
fn decode(v: Operand) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(bytes(v)));
}
