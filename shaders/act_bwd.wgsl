// d (rows, C), in place: gradient of the activation -> gradient dz of the value before the ReLU. The masks (ReLU and
// straight-through) are recomputed from the saved convolution output and the shortcut, exactly as act_fwd computed them.
// part: three vec4 an invocation: sum dz, sum dz * xhat of the main branch, sum dz * xhat of the projection.
// blocked: (blocked |d|, |d| of positive values) an invocation. Grid: one invocation a (chunk of rows, 4 channels).
//use index
//use quant
//use preact
//use ranges
struct Params {
    rows: u32,
    cols4: u32,
    chunk: u32,
    pad0: u32,
    range_row: u32,
    shortcut_row: i32,
    shortcut: u32,        // both fixed in the variant
    shortcut_format: u32,
    quant: Quant,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> d: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> context: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> shortcut: array<Operand>;
@group(0) @binding(5) var<storage, read> shortcut_context: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> ranges: array<RangeRow>;
@group(0) @binding(7) var<storage, read_write> part: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> blocked: array<vec2<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    let col = i % p.cols4;
    let first = (i / p.cols4) * p.chunk;
    if (first >= p.rows) {
        return;
    }
    let last = min(first + p.chunk, p.rows);
    let mul = context[col];
    let add = context[p.cols4 + col];
    let hat_mul = context[2u * p.cols4 + col];
    let hat_add = context[3u * p.cols4 + col];
    var s_mul = vec4<f32>(1.0);
    var s_add = vec4<f32>(0.0);
    var s_hat_mul = vec4<f32>(0.0);
    var s_hat_add = vec4<f32>(0.0);
    if (SHORTCUT == 1u && p.shortcut_row >= 0) {
        s_mul = vec4<f32>(ranges[p.shortcut_row].scale);
    }
    if (SHORTCUT == 2u) {
        s_mul = shortcut_context[col];
        s_add = shortcut_context[p.cols4 + col];
        s_hat_mul = shortcut_context[2u * p.cols4 + col];
        s_hat_add = shortcut_context[3u * p.cols4 + col];
    }
    let inv = vec4<f32>(ranges[p.range_row].inv_scale);
    let zero = vec4<f32>(0.0);
    var sum = zero;
    var hat = zero;
    var s_hat = zero;
    var stopped = zero;
    var reaching = zero;
    for (var r = first; r < last; r++) {
        let o = r * p.cols4 + col;
        let yo = y[o];
        var s = zero;
        if (SHORTCUT != 0u) {
            s = decode(shortcut[o]);
        }
        let z = pre_activation(yo, mul, add, s, s_mul, s_add);
        let alive = select(zero, d[o], z > zero);
        var dz = alive;
        if (p.quant.enabled == 1u) {
            dz = select(zero, alive, passes(p.quant, z, inv));
            reaching += abs(alive);
            stopped += abs(alive - dz);
        }
        d[o] = dz;
        sum += dz;
        hat += dz * fma(yo, hat_mul, hat_add);
        if (SHORTCUT == 2u) {
            s_hat += dz * fma(s, s_hat_mul, s_hat_add);
        }
    }
    part[3u * i] = sum;
    part[3u * i + 1u] = hat;
    part[3u * i + 2u] = s_hat;
    blocked[i] = vec2<f32>(dot(stopped, vec4<f32>(1.0)), dot(reaching, vec4<f32>(1.0)));
}
