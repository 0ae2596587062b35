// The quantizer. Twin: src/quant.rs. Multiply by inv_scale, never divide: then codes are equal bit for bit.
struct Quant {
    base_lo: i32,
    base_hi: i32,
    shift: u32,
    round_shift: u32,
    lo: i32,
    hi: i32,
    mask: u32,
    enabled: u32,
}
struct ScaleRule {
    levels: f32,
    factor: f32,
    pow2: u32,
    shift: u32,
}
const MASK_INT = 0u;
const MASK_REAL = 1u;
const MASK_BASE8 = 2u;

fn shifted(q: Quant, base: vec4<i32>) -> vec4<i32> {
    let half = select(0i, (1i << q.shift) >> 1u, q.round_shift == 1u);
    return (base + half) >> vec4<u32>(q.shift);
}
fn quantize(q: Quant, x: vec4<f32>, inv_scale: vec4<f32>) -> vec4<i32> {
    let base = vec4<i32>(clamp(round(x * inv_scale), vec4<f32>(f32(q.base_lo)), vec4<f32>(f32(q.base_hi))));
    return clamp(shifted(q, base), vec4<i32>(q.lo), vec4<i32>(q.hi));
}
fn inside(v: vec4<f32>, lo: f32, hi: f32) -> vec4<bool> {
    return (v >= vec4<f32>(lo)) & (v <= vec4<f32>(hi));
}
// Straight-through mask.
fn passes(q: Quant, x: vec4<f32>, inv_scale: vec4<f32>) -> vec4<bool> {
    let v = x * inv_scale;
    let r = round(v);
    let in_base = inside(r, f32(q.base_lo), f32(q.base_hi));
    if (q.mask == MASK_INT) {
        let base = vec4<i32>(clamp(r, vec4<f32>(f32(q.base_lo)), vec4<f32>(f32(q.base_hi))));
        let c = shifted(q, base);
        return in_base & (c >= vec4<i32>(q.lo)) & (c <= vec4<i32>(q.hi));
    }
    if (q.mask == MASK_REAL) {
        let step = f32(1u << q.shift);
        return inside(v, f32(q.lo) * step, f32(q.hi) * step);
    }
    return in_base | vec4<bool>(q.mask != MASK_BASE8);
}
// Above the top code.
fn saturates(q: Quant, x: vec4<f32>, inv_scale: vec4<f32>) -> vec4<bool> {
    let r = round(x * inv_scale);
    let top = f32(q.base_hi);
    let base = vec4<i32>(clamp(r, vec4<f32>(f32(q.base_lo)), vec4<f32>(top)));
    return (r > vec4<f32>(top)) | (shifted(q, base) > vec4<i32>(q.hi));
}
fn nearest_pow2(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let up = (bits & 0x007fffffu) >= 0x003504f3u;
    return bitcast<f32>((bits & 0x7f800000u) + select(0u, 0x00800000u, up));
}
// (value scale, factor from values to base codes) of a tensor with this range.
fn scale_of(rule: ScaleRule, range: f32) -> vec2<f32> {
    var step = rule.factor * max(range, 1e-8) / rule.levels;
    if (rule.pow2 == 1u) {
        step = nearest_pow2(step);
    }
    return vec2<f32>(step * f32(1u << rule.shift), 1.0 / step);
}
