// Signed 64-bit integers, four at a time: WGSL has none. Twin: i64.
struct Wide {
    lo: vec4<u32>,
    hi: vec4<u32>,
}

// The whole product, from halves of 16 bits.
fn wide_product(a: vec4<i32>, b: vec4<i32>) -> Wide {
    let x = bitcast<vec4<u32>>(a);
    let y = bitcast<vec4<u32>>(b);
    let x0 = x & vec4<u32>(0xffffu);
    let x1 = x >> vec4<u32>(16u);
    let y0 = y & vec4<u32>(0xffffu);
    let y1 = y >> vec4<u32>(16u);
    let low = x0 * y0;
    let one = x0 * y1 + (low >> vec4<u32>(16u));
    let two = x1 * y0 + (one & vec4<u32>(0xffffu));
    let lo = (two << vec4<u32>(16u)) | (low & vec4<u32>(0xffffu));
    let hi = x1 * y1 + (one >> vec4<u32>(16u)) + (two >> vec4<u32>(16u));
    // So far of the numbers without their signs.
    let zero = vec4<u32>(0u);
    return Wide(lo, hi - select(zero, y, a < vec4<i32>(0)) - select(zero, x, b < vec4<i32>(0)));
}

fn wide_sum(a: Wide, b: Wide) -> Wide {
    let lo = a.lo + b.lo;
    return Wide(lo, a.hi + b.hi + select(vec4<u32>(0u), vec4<u32>(1u), lo < a.lo));
}

// floor(v / 2^n) for 1 <= n <= 62, or the 32-bit integer next to it.
fn wide_shift(v: Wide, n: vec4<u32>) -> vec4<i32> {
    let far = n >= vec4<u32>(32u);
    let m = n & vec4<u32>(31u);
    let top = bitcast<vec4<i32>>(v.hi);
    let sign = top >> vec4<u32>(31u);
    // Of 32 the other half moves by a whole word, which a shift does not do.
    let near = (v.lo >> m) | select(v.hi << (vec4<u32>(32u) - max(m, vec4<u32>(1u))), vec4<u32>(0u), m == vec4<u32>(0u));
    let lo = select(bitcast<vec4<i32>>(near), top >> m, far);
    let hi = select(top >> m, sign, far);
    let most = vec4<i32>(0x7fffffff) ^ sign;
    return select(most, lo, hi == lo >> vec4<u32>(31u));
}
