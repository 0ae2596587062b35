// Weights of four neighbouring output channels, stored as signed 4-bit codes in one half of a u32.
alias Weight = u32;
fn weights(i: u32) -> vec4<f32> {
    let half = vec4<i32>(bitcast<i32>(w[i >> 1u] >> (16u * (i & 1u))));
    return vec4<f32>((half << vec4<u32>(28u, 24u, 20u, 16u)) >> vec4<u32>(28u));
}
