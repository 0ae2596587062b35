// What requantization adds to an accumulator: that of a projection.
alias Operand = vec4<i32>;
const RESIDUAL = true;
fn residual(i: u32) -> vec4<i32> {
    return held(whole(x[i], RESIDUAL_KEPT));
}
