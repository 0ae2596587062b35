// What requantization adds to an accumulator: codes of an earlier value, in the variant's operand format.
const RESIDUAL = true;
fn residual(i: u32) -> vec4<i32> {
    return vec4<i32>(decode(operand(i)));
}
