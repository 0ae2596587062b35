// out = window((acc M + r M_r + B) >> n), all integers: accumulators of a convolution to codes, those of the classifier to logits.
// acc: (rows, C), i32 or whole numbers as f32 (ACC_KEPT); r: codes or accumulators, see the residual files; channels: of four channels
// each five vec4, M, M_r, B low and high (half a step of the shift included), n. window: clamp to the base grid, drop low bits, clamp.
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

// Of four channels; i: their vec4.
fn codes(i: u32, group: u32) -> vec4<i32> {
    let k = 5u * (p.first4 + group);
    var sum = wide_product(held(whole(acc[i], ACC_KEPT)), bitcast<vec4<i32>>(channels[k]));
    if (RESIDUAL) {
        sum = wide_sum(sum, wide_product(residual(i), bitcast<vec4<i32>>(channels[k + 1u])));
    }
    sum = wide_sum(sum, Wide(channels[k + 2u], channels[k + 3u]));
    let base = clamp(wide_shift(sum, channels[k + 4u]), vec4<i32>(p.base_lo), vec4<i32>(p.base_hi));
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
