// d (rows, C), in place: gradient of the activation -> gradient dz of the value before the ReLU (see act). Where POOL is set, a chunk of
// rows is a picture, and the activation's gradient is that of its mean, pooled (pictures, C), over the pixels: d is written only.
// part: four vec4 an invocation: sum dz, sum dz * xhat of the main branch, sum dz * xhat of the projection, and
// what act_common says. Grid: one invocation a (chunk of rows, 4 channels).
//use index
//use quant
//use ranges
//use act_params
//use act
struct Params {
    rows: u32,
    cols4: u32,
    chunk: u32,
    pool: u32, // fixed in the variant too
    act: ActParams,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> d: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> pooled: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> context: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> shortcut: array<Shortcut>;
@group(0) @binding(6) var<storage, read> ranges: array<RangeRow>;
@group(0) @binding(7) var<storage, read_write> part: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    let col = i % p.cols4;
    let first = (i / p.cols4) * p.chunk;
    if (first >= p.rows) {
        return;
    }
    let last = min(first + p.chunk, p.rows);
    let k = act_channels(p.act, col, p.cols4);
    var sums = ActSums();
    var before = vec4<f32>(0.0);
    if (POOL) {
        before = pooled[i] * (1.0 / f32(p.chunk));
    }
    for (var r = first; r < last; r++) {
        let o = r * p.cols4 + col;
        var s = vec4<f32>(0.0);
        if (SHORTCUT != 0u) {
            s = decode_shortcut(shortcut[o]);
        }
        if (!POOL) {
            before = d[o];
        }
        d[o] = act_backward(k, before, y[o], s, &sums);
    }
    part[4u * i] = sums.dz;
    part[4u * i + 1u] = sums.hat;
    part[4u * i + 2u] = sums.s_hat;
    part[4u * i + 3u] = act_common(sums);
}
