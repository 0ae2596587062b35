// Distillation (Hinton et al. 2015): dlogits, which softmax_ce has left, become
//   (1 - weight) * dlogits + weight * T * (softmax(z / T) - softmax(t / T)) / batch * s_w,
// z: logits, t = teacher + teacher_bias; both rows of a picture. bias_grad = sum over pictures of dlogits / s_w, again.
// Pictures at and beyond step.valid count nothing. Grid: one workgroup of 256.
//use step
struct Params {
    batch: u32,
    classes: u32,
    cols4: u32,
    w_scale: u32,    // 1: scales hold s_w
    weight: f32,
    temperature: f32,
    bias4: u32,      // first vec4 of the bias in teacher_params
    pad0: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> teacher: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> teacher_params: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> scales: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> step: Step;
@group(0) @binding(6) var<storage, read_write> dlogits: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> bias_grad: array<vec4<f32>>;
const THREADS = 256u;

fn scale(c4: u32) -> vec4<f32> {
    if (p.w_scale == 1u) {
        return scales[c4];
    }
    return vec4<f32>(1.0);
}

// Which of four columns are classes.
fn real(c4: u32) -> vec4<bool> {
    return vec4<u32>(4u * c4) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.classes);
}

fn taught(n: u32, c4: u32) -> vec4<f32> {
    return teacher[n * p.cols4 + c4] + teacher_params[p.bias4 + c4];
}

fn largest(v: vec4<f32>, c4: u32) -> f32 {
    let r = select(vec4<f32>(-3.0e38), v, real(c4));
    return max(max(r.x, r.y), max(r.z, r.w));
}

fn picture(n: u32) {
    let one = vec4<f32>(1.0);
    let zero = vec4<f32>(0.0);
    var top = vec2<f32>(-3.0e38);
    for (var c4 = 0u; c4 < p.cols4; c4++) {
        top = max(top, vec2<f32>(largest(logits[n * p.cols4 + c4], c4), largest(taught(n, c4), c4)));
    }
    var sum = vec2<f32>(0.0);
    for (var c4 = 0u; c4 < p.cols4; c4++) {
        let mine = exp((logits[n * p.cols4 + c4] - top.x) / p.temperature);
        let theirs = exp((taught(n, c4) - top.y) / p.temperature);
        sum += vec2<f32>(dot(select(zero, mine, real(c4)), one), dot(select(zero, theirs, real(c4)), one));
    }
    let factor = p.weight * p.temperature / f32(p.batch);
    for (var c4 = 0u; c4 < p.cols4; c4++) {
        let o = n * p.cols4 + c4;
        let mine = exp((logits[o] - top.x) / p.temperature) / sum.x;
        let theirs = exp((taught(n, c4) - top.y) / p.temperature) / sum.y;
        let g = (1.0 - p.weight) * dlogits[o] + factor * (mine - theirs) * scale(c4);
        dlogits[o] = select(zero, g, real(c4) & vec4<bool>(n < step.valid));
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) lid: u32) {
    for (var n = lid; n < p.batch; n += THREADS) {
        picture(n);
    }
    storageBarrier();
    for (var c4 = lid; c4 < p.cols4; c4 += THREADS) {
        var sum = vec4<f32>(0.0);
        for (var n = 0u; n < p.batch; n++) {
            sum += dlogits[n * p.cols4 + c4];
        }
        bias_grad[c4] = sum / scale(c4);
    }
}
