// Eight neighbouring integers, stored as they are.
const NARROW = false; // whether no code passes 8 bits
fn put(i: u32, a: vec4<i32>, b: vec4<i32>) {
    for (var k = 0u; k < 4u; k++) { // unrolled
        out[8u * i + k] = bitcast<u32>(a[k]);
        out[8u * i + 4u + k] = bitcast<u32>(b[k]);
    }
}
