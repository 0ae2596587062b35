// dy = k * (dz - m1 - xhat * m2), xhat = y * context2 + context3 (see norm_merge, norm_bwd_merge). Where KEEP_MAX is set, the largest |dy| goes
// into maxima[max_row].
// Grid: one invocation a (chunk of rows, 4 channels).
//use index
struct Params {
    rows: u32,
    cols4: u32,
    chunk: u32,
    keep_max: u32, // fixed in the variant too
    max_row: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dz: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> context: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> coefficients: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dy: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> maxima: array<atomic<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    let col = i % p.cols4;
    let first = (i / p.cols4) * p.chunk;
    if (first >= p.rows) {
        return;
    }
    let last = min(first + p.chunk, p.rows);
    let hat_mul = context[2u * p.cols4 + col];
    let hat_add = context[3u * p.cols4 + col];
    let k = coefficients[col];
    let m1 = coefficients[p.cols4 + col];
    let m2 = coefficients[2u * p.cols4 + col];
    var most = vec4<f32>(0.0);
    for (var r = first; r < last; r++) {
        let o = r * p.cols4 + col;
        let v = k * (dz[o] - m1 - fma(y[o], hat_mul, hat_add) * m2);
        dy[o] = v;
        if (KEEP_MAX) {
            most = max(most, abs(v));
        }
    }
    if (KEEP_MAX) {
        atomicMax(&maxima[p.max_row], bitcast<u32>(max(max(most.x, most.y), max(most.z, most.w))));
    }
}
