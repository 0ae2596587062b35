// Eight neighbouring codes, stored as unsigned bytes.
const NARROW = true; // whether no code passes 8 bits
fn put(i: u32, a: vec4<i32>, b: vec4<i32>) {
    out[2u * i] = pack4xU8(bitcast<vec4<u32>>(a));
    out[2u * i + 1u] = pack4xU8(bitcast<vec4<u32>>(b));
}
