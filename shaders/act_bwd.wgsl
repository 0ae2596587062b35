// d (rows, C), in place: gradient of the activation -> gradient dz of the value before the ReLU (see act).
// part: four vec4 an invocation: sum dz, sum dz * xhat of the main branch, sum dz * xhat of the projection, and
// (blocked |d|, |d| of positive values, 0, 0). Grid: one invocation a (chunk of rows, 4 channels).
//use index
//use quant
//use preact
//use ranges
//use act
struct Params {
    rows: u32,
    cols4: u32,
    chunk: u32,
    pad0: u32,
    act: ActParams,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> d: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> context: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> shortcut: array<Operand>;
@group(0) @binding(5) var<storage, read> shortcut_context: array<vec4<f32>>;
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
    for (var r = first; r < last; r++) {
        let o = r * p.cols4 + col;
        var s = vec4<f32>(0.0);
        if (SHORTCUT != 0u) {
            s = decode(shortcut[o]);
        }
        d[o] = act_backward(p.act.quant, k, d[o], y[o], s, &sums);
    }
    part[4u * i] = sums.dz;
    part[4u * i + 1u] = sums.hat;
    part[4u * i + 2u] = sums.s_hat;
    part[4u * i + 3u] = act_blocked(sums);
}
