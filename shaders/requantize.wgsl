// out = window((acc M + r M_r + B) >> n), all integers: accumulators of a convolution to codes, those of the classifier to logits.
// acc: (rows, C), i32 or whole numbers as f32 (ACC_KEPT); r: codes or accumulators, see the residual files; channels: of four channels
// each five vec4, M, M_r, B low and high (half a step of the shift included), n. window: clamp to the base grid, drop low bits, clamp.
// Behind them M, M_r and B by 2^-n in f32: these tell the code of all but those few sums that lie within the rounding errors of an edge.
// Accumulators are taken as those of acc_bits bits, which wrap, or saturate. Grid: one invocation a (row, 8 channels).
//use index
//use wide
struct Params {
    items: u32, // rows * C / 8
    cols8: u32, // C / 8
    first4: u32,
    acc_kept: u32,        // fixed in the variant
    residual: u32,        // likewise
    residual_format: u32, // likewise
    residual_kept: u32,   // likewise
    out_format: u32,      // likewise
    base_lo: i32,
    base_hi: i32,
    drop: u32,
    half: i32,
    lo: i32,
    hi: i32,
    acc_bits: u32,
    saturate: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> acc: array<vec4<i32>>;
@group(0) @binding(2) var<storage, read> x: array<Operand>;
@group(0) @binding(3) var<storage, read> channels: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;

fn whole(word: vec4<i32>, kept: bool) -> vec4<i32> {
    if (kept) {
        return word;
    }
    return vec4<i32>(bitcast<vec4<f32>>(word));
}

// What an accumulator of acc_bits bits holds of a sum.
fn held(sum: vec4<i32>) -> vec4<i32> {
    let spare = vec4<u32>(32u - p.acc_bits);
    let top = vec4<i32>(0x7fffffff) >> spare;
    return select((sum << spare) >> spare, clamp(sum, -top - vec4<i32>(1), top), p.saturate == 1u);
}

// floor(sum / 2^n) in 64 bits.
fn exact(k: u32, main: vec4<i32>, added: vec4<i32>) -> vec4<i32> {
    var sum = wide_product(main, bitcast<vec4<i32>>(channels[k]));
    if (RESIDUAL) {
        sum = wide_sum(sum, wide_product(added, bitcast<vec4<i32>>(channels[k + 1u])));
    }
    return wide_shift(wide_sum(sum, Wide(channels[k + 2u], channels[k + 3u])), channels[k + 4u]);
}

// Of four channels; i: their vec4.
fn codes(i: u32, group: u32) -> vec4<i32> {
    let k = 8u * (p.first4 + group);
    let main = held(whole(acc[i], ACC_KEPT));
    var added = vec4<i32>();
    if (RESIDUAL) {
        added = residual(i);
    }
    let lo = vec4<i32>(p.base_lo);
    let hi = vec4<i32>(p.base_hi);
    var base = lo;
    var unsure = true;
    if (NARROW) {
        let products = vec4<f32>(main) * bitcast<vec4<f32>>(channels[k + 5u]);
        let offset = bitcast<vec4<f32>>(channels[k + 7u]);
        var real = products + offset;
        var size = abs(products) + abs(offset);
        if (RESIDUAL) {
            let other = vec4<f32>(added) * bitcast<vec4<f32>>(channels[k + 6u]);
            real += other;
            size += abs(other);
        }
        // Of the size, a stored factor is off by 2^-24, and a conversion, a product and two sums by 2^-23 each, however a device rounds: less
        // than 2^-20 in all.
        let slack = size * 0x1p-20f;
        let below = floor(real);
        let part = real - below;
        let outside = (real < vec4<f32>(lo) - slack) | (real > vec4<f32>(hi + vec4<i32>(1)) + slack);
        unsure = !all(outside | ((part > slack) & (part < vec4<f32>(1.0) - slack)));
        base = vec4<i32>(clamp(below, vec4<f32>(lo), vec4<f32>(hi)));
    }
    // A loop, since software adapters skip one that no lane enters, but not an if.
    while (unsure) {
        base = clamp(exact(k, main, added), lo, hi);
        unsure = false;
    }
    return clamp((base + vec4<i32>(p.half)) >> vec4<u32>(p.drop), vec4<i32>(p.lo), vec4<i32>(p.hi));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    if (i >= p.items) {
        return;
    }
    let group = 2u * (i % p.cols8);
    put(i, codes(2u * i, group), codes(2u * i + 1u, group + 1u));
}
