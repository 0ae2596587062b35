// Eight neighbouring codes, stored as unsigned numbers of 4 bits.
const NARROW = true; // whether no code passes 8 bits
fn put(i: u32, a: vec4<i32>, b: vec4<i32>) {
    let low = pack4xU8(bitcast<vec4<u32>>(a));
    let high = pack4xU8(bitcast<vec4<u32>>(b));
    out[i] = halved(low) | (halved(high) << 16u);
}

fn halved(bytes: u32) -> u32 {
    let pairs = (bytes | (bytes >> 4u)) & 0x00ff00ffu;
    return (pairs | (pairs >> 8u)) & 0xffffu;
}
