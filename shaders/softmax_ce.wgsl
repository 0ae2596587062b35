// logits = y * s_w + bias; loss = cross entropy with label smoothing t = (1 - e) onehot + e / classes;
// dlogits = (softmax - t) / batch * s_w (the gradient carries s_w from here on). Padding columns get 0.
// samples: one vec4 a picture: (loss, label on top, label in the top five, predicted class). Ties go to the lower class.
// Pictures at and beyond step.valid count nothing. Grid: one invocation a picture.
//use index
//use step
struct Params {
    batch: u32,
    classes: u32,
    cols: u32,
    w_scale: u32,    // 1: scales hold s_w
    smoothing: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read> scales: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> labels: array<u32>;
@group(0) @binding(5) var<storage, read> step: Step;
@group(0) @binding(6) var<storage, read_write> logits: array<f32>;
@group(0) @binding(7) var<storage, read_write> dlogits: array<f32>;
@group(0) @binding(8) var<storage, read_write> samples: array<vec4<f32>>;

fn scale(c: u32) -> f32 {
    return select(1.0, scales[c], p.w_scale == 1u);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n = flat_index(wg, groups, lid);
    if (n >= p.batch) {
        return;
    }
    let base = n * p.cols;
    var top = -3.0e38;
    var best = 0u;
    for (var c = 0u; c < p.classes; c++) {
        let v = fma(y[base + c], scale(c), bias[c]);
        logits[base + c] = v;
        if (v > top) {
            top = v;
            best = c;
        }
    }
    let label = min(labels[n], p.classes - 1u);
    let mine = logits[base + label];
    var sum = 0.0;
    var total = 0.0;
    var rank = 0u;
    for (var c = 0u; c < p.classes; c++) {
        let v = logits[base + c];
        sum += exp(v - top);
        total += v - top;
        rank += select(0u, 1u, v > mine || (v == mine && c < label));
    }
    let log_sum = log(sum);
    let e = p.smoothing;
    let loss = log_sum - (1.0 - e) * (mine - top) - e / f32(p.classes) * total;
    let counted = select(0.0, 1.0, n < step.valid);
    for (var c = 0u; c < p.cols; c++) {
        var g = 0.0;
        if (c < p.classes) {
            let t = e / f32(p.classes) + select(0.0, 1.0 - e, c == label);
            g = counted * (exp(logits[base + c] - top) / sum - t) / f32(p.batch) * scale(c);
        } else {
            logits[base + c] = 0.0;
        }
        dlogits[base + c] = g;
    }
    samples[n] = counted * vec4<f32>(loss, select(0.0, 1.0, rank == 0u), select(0.0, 1.0, rank < 5u), f32(best));
}
