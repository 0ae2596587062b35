// The classifier's end: logits, loss, metrics, and on the way back the gradients of the logits and of the bias.
// logits, in place: y -> y * s_w + bias; loss = cross entropy with label smoothing t = (1 - e) onehot + e / classes;
// dlogits = (softmax - t) / batch * s_w (the gradient carries s_w from here on). Padding columns get 0.
// scores: a ring of (sum of losses, label on top, label in the top five, pictures), one a batch, of which step names the place; from
// samples4 on a picture's (loss, label on top, label in the top five, predicted class). Ties go to the lower class.
// bias_grad = sum over pictures of dlogits / s_w. Pictures at and beyond step.valid count nothing, whatever they hold. Grid: one workgroup of 256.
//use step
struct Params {
    batch: u32,
    classes: u32,
    cols4: u32,
    w_scale: u32,    // 1: scales hold s_w
    smoothing: f32,
    samples4: u32,
    backward: u32,   // 1: with the gradient of the bias
    pad0: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> scales: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> labels: array<u32>;
@group(0) @binding(5) var<storage, read> step: Step;
@group(0) @binding(6) var<storage, read_write> dlogits: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> scores: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> bias_grad: array<vec4<f32>>;
const THREADS = 256u;
const LANES = 32u; // that take neighbouring columns of the bias
var<workgroup> share: array<vec4<f32>, THREADS>;

fn scale(c4: u32) -> vec4<f32> {
    if (p.w_scale == 1u) {
        return scales[c4];
    }
    return vec4<f32>(1.0);
}

fn classes_of(c4: u32) -> vec4<u32> {
    return vec4<u32>(4u * c4) + vec4<u32>(0u, 1u, 2u, 3u);
}

// Of one picture: (loss, label on top, label in the top five, predicted class).
fn picture(n: u32) -> vec4<f32> {
    let base = n * p.cols4;
    let zero = vec4<f32>(0.0);
    let one = vec4<f32>(1.0);
    let classes = vec4<u32>(p.classes);
    var top = -3.0e38;
    var best = 0u;
    for (var c4 = 0u; c4 < p.cols4; c4++) {
        let c = classes_of(c4);
        let v = select(zero, fma(logits[base + c4], scale(c4), bias[c4]), c < classes);
        logits[base + c4] = v;
        for (var k = 0u; k < 4u; k++) { // unrolled
            if (c[k] < p.classes && v[k] > top) {
                top = v[k];
                best = c[k];
            }
        }
    }
    let label = min(labels[n], p.classes - 1u);
    let mine = logits[base + label / 4u][label % 4u];
    var sum = zero;
    var total = zero;
    var rank = zero;
    for (var c4 = 0u; c4 < p.cols4; c4++) {
        let c = classes_of(c4);
        let v = logits[base + c4];
        let real = c < classes;
        let ahead = (v > vec4<f32>(mine)) | ((v == vec4<f32>(mine)) & (c < vec4<u32>(label)));
        sum += select(zero, exp(v - top), real);
        total += select(zero, v - top, real);
        rank += select(zero, one, real & ahead);
    }
    let exponents = dot(sum, one);
    let e = p.smoothing;
    let loss = log(exponents) - (1.0 - e) * (mine - top) - e / f32(p.classes) * dot(total, one);
    for (var c4 = 0u; c4 < p.cols4; c4++) {
        let c = classes_of(c4);
        let t = vec4<f32>(e / f32(p.classes)) + select(zero, vec4<f32>(1.0 - e), c == vec4<u32>(label));
        let g = (exp(logits[base + c4] - top) / exponents - t) / f32(p.batch) * scale(c4);
        dlogits[base + c4] = select(zero, g, (c < classes) & vec4<bool>(n < step.valid));
    }
    let behind = dot(rank, one);
    let sample = vec4<f32>(loss, select(0.0, 1.0, behind == 0.0), select(0.0, 1.0, behind < 5.0), f32(best));
    return select(zero, sample, n < step.valid);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) lid: u32) {
    var scored = vec4<f32>(0.0);
    for (var n = lid; n < p.batch; n += THREADS) {
        let sample = picture(n);
        scores[p.samples4 + n] = sample;
        if (n < step.valid) {
            scored += vec4<f32>(sample.xyz, 1.0);
        }
    }
    share[lid] = scored;
    storageBarrier();
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if (lid < half) {
            share[lid] += share[lid + half];
        }
        workgroupBarrier();
    }
    if (lid == 0u) {
        scores[step.ring_slot] = share[0];
    }
    if (p.backward == 0u) {
        return;
    }
    for (var first = 0u; first < p.cols4; first += LANES) {
        let c4 = first + lid % LANES;
        var sum = vec4<f32>(0.0);
        if (c4 < p.cols4) {
            for (var n = lid / LANES; n < p.batch; n += THREADS / LANES) {
                sum += dlogits[n * p.cols4 + c4];
            }
        }
        workgroupBarrier();
        share[lid] = sum;
        workgroupBarrier();
        if (lid < LANES && c4 < p.cols4) {
            for (var k = 1u; k < THREADS / LANES; k++) {
                sum += share[k * LANES + lid];
            }
            bias_grad[c4] = sum / scale(c4);
        }
    }
}
