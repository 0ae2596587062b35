// Real numbers as f16 for matrix units: lifted by a power of two so that the largest of the tensor is nearly the largest that f16
// holds, then split into a half and, where there are two terms, the half of what that leaves. Two terms keep 22 bits.
// `most`: the bits of the largest magnitude.
fn lift_exponent(most: u32) -> i32 {
    return clamp(14i - (i32(most >> 23u) - 127i), -126i, 126i);
}
fn lift(most: u32) -> f32 {
    return bitcast<f32>(u32(127i + lift_exponent(most)) << 23u);
}
fn unlift(most: u32) -> f32 {
    return bitcast<f32>(u32(127i - lift_exponent(most)) << 23u);
}
// The high term: cut off by its bits, because compilers take a value for what comes back of it from f16.
fn high(v: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(v) & vec4<u32>(0xffffe000u));
}
