// a / b for a < 2^24: software adapters divide integers lane by lane, this is one float division and a correction.
fn divide(a: u32, b: u32) -> u32 {
    let q = u32(f32(a) / f32(b));
    let r = i32(a - q * b);
    return q + select(0u, 1u, r >= i32(b)) - select(0u, 1u, r < 0);
}
