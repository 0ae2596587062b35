// The quantizer. Twin: src/quant.rs. Multiply by inv_scale, never divide: then codes are equal bit for bit (those of tanh as far as
// the device's tanh goes).
struct Quant {
    base_lo: i32,
    base_hi: i32,
    shift: u32,
    round_shift: u32,
    lo: i32,
    hi: i32,
    mask: u32,
    enabled: u32,
    form: u32,
    learn: u32,
    delta: f32,
    zero: i32,
}
struct ScaleRule {
    levels: f32,
    factor: f32,
    pow2: u32,
    shift: i32,
}
const FORM_PLAIN = 0u;
const FORM_ODD = 1u;
const FORM_ODD_TANH = 2u;
const LEARN_NOTHING = 0u;
const LEARN_STEP = 1u;
const LEARN_STEP_AND_OFFSET = 2u;
const LEARN_RANGE = 3u;
const ROUND_POWER = 1u;
const ROUND_WINDOW = 2u;
const MASK_INT = 0u;
const MASK_REAL = 1u;
const MASK_BASE8 = 2u;
// The largest value of a tensor lies on its limit: within rounding it is not beyond it.
const ON_LIMIT = 1.00000095367431640625;

fn shifted(q: Quant, base: vec4<i32>) -> vec4<i32> {
    let half = select(0i, (1i << q.shift) >> 1u, q.round_shift == 1u);
    return (base + half) >> vec4<u32>(q.shift);
}
// Where x lies on the base grid.
fn place(q: Quant, x: vec4<f32>, inv_scale: vec4<f32>) -> vec4<f32> {
    if (q.form == FORM_PLAIN) {
        return x * inv_scale;
    }
    if (q.form == FORM_ODD) {
        return fma(x, inv_scale, vec4<f32>(-0.5));
    }
    return fma(tanh(x), inv_scale, vec4<f32>(-0.5));
}
fn quantize(q: Quant, x: vec4<f32>, inv_scale: vec4<f32>) -> vec4<i32> {
    let r = round(place(q, x, inv_scale));
    let base = vec4<i32>(clamp(r, vec4<f32>(f32(q.base_lo)), vec4<f32>(f32(q.base_hi))));
    let c = clamp(shifted(q, base), vec4<i32>(q.lo), vec4<i32>(q.hi));
    return select(2 * c + 1, c, q.form == FORM_PLAIN);
}
// The quantizer of activations with this offset; what is below 0 does not reach it.
fn at_zero(quant: Quant, zero: i32) -> Quant {
    var q = quant;
    q.base_lo = max(q.base_lo + zero, 0);
    q.lo = max(q.lo + zero, 0);
    q.base_hi += zero;
    q.hi += zero;
    q.zero = zero;
    return q;
}
fn inside(v: vec4<f32>, lo: f32, hi: f32) -> vec4<bool> {
    return (v >= vec4<f32>(lo)) & (v <= vec4<f32>(hi));
}
// Straight-through mask.
fn passes(q: Quant, x: vec4<f32>, inv_scale: vec4<f32>) -> vec4<bool> {
    let v = place(q, x, inv_scale);
    let r = round(v);
    let in_base = inside(r, f32(q.base_lo), f32(q.base_hi));
    if (q.mask == MASK_INT) {
        let base = vec4<i32>(clamp(r, vec4<f32>(f32(q.base_lo)), vec4<f32>(f32(q.base_hi))));
        let c = shifted(q, base);
        return in_base & (c >= vec4<i32>(q.lo)) & (c <= vec4<i32>(q.hi));
    }
    if (q.mask == MASK_REAL) {
        let step = f32(1u << q.shift) * ON_LIMIT;
        return inside(v, f32(q.lo) * step, f32(q.hi) * step);
    }
    return in_base | vec4<bool>(q.mask != MASK_BASE8);
}
// Above the top code.
fn saturates(q: Quant, x: vec4<f32>, inv_scale: vec4<f32>) -> vec4<bool> {
    let r = round(place(q, x, inv_scale));
    let top = f32(q.base_hi);
    let base = vec4<i32>(clamp(r, vec4<f32>(f32(q.base_lo)), vec4<f32>(top)));
    return (r > vec4<f32>(top)) | (shifted(q, base) > vec4<i32>(q.hi));
}
struct Slopes {
    step: vec4<f32>,
    offset: vec4<f32>,
}
// Derivatives of the quantized value by its step and by its offset.
fn slopes(q: Quant, x: vec4<f32>, inv_scale: vec4<f32>) -> Slopes {
    let v = place(q, x, inv_scale);
    let c = clamp(round(v), vec4<f32>(f32(q.lo)), vec4<f32>(f32(q.hi)));
    let within = inside(v, f32(q.lo), f32(q.hi));
    let half = select(0.5, 0.0, q.form == FORM_PLAIN);
    let outside = c + vec4<f32>(half - f32(q.zero));
    return Slopes(select(outside, c - v, within), select(vec4<f32>(1.0), vec4<f32>(0.0), within));
}
// Factor on the gradient g of values that pass.
fn gradient_factor(q: Quant, g: vec4<f32>, x: vec4<f32>, scale: vec4<f32>, inv_scale: vec4<f32>) -> vec4<f32> {
    if (q.form == FORM_ODD_TANH) {
        let t = tanh(x);
        return 2.0 * scale * inv_scale * (vec4<f32>(1.0) - t * t);
    }
    if (q.delta == 0.0) {
        return vec4<f32>(1.0);
    }
    let v = place(q, x, inv_scale);
    let c = clamp(round(v), vec4<f32>(f32(q.lo)), vec4<f32>(f32(q.hi)));
    return vec4<f32>(1.0) + q.delta * sign(g) * (v - c) / f32(q.hi - q.lo);
}
// The power of two nearest to |x| in the logarithm (ties at sqrt(2) go up), with the sign of x; 0 of 0.
fn nearest_pow2(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let up = (bits & 0x007fffffu) >= 0x003504f3u;
    return bitcast<f32>((bits & 0xff800000u) + select(0u, 0x00800000u, up));
}
// (value scale, factor from values to base codes) of a tensor with this step on the base grid. unit: the step of the 8-bit grid.
fn scale_of_step(rule: ScaleRule, real_step: f32, unit: f32) -> vec2<f32> {
    var step = max(real_step, 1e-8);
    if (rule.pow2 == ROUND_POWER) {
        step = nearest_pow2(step);
    }
    if (rule.pow2 == ROUND_WINDOW && unit > 0.0) {
        step = unit * max(nearest_pow2(step / unit), 1.0);
    }
    return vec2<f32>(select(step * f32(1u << u32(max(rule.shift, 0i))), 0.5 * step, rule.shift < 0i), 1.0 / step);
}
// The same of a tensor with this range.
fn scale_of(rule: ScaleRule, range: f32) -> vec2<f32> {
    return scale_of_step(rule, rule.factor * max(range, 1e-8) / rule.levels, 0.0);
}
fn range_of_step(rule: ScaleRule, step: f32) -> f32 {
    return step * rule.levels / rule.factor;
}
