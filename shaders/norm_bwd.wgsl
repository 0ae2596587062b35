// dy = k * (dz - m1 - xhat * m2), xhat = y * context2 + context3 (see norm_merge, norm_bwd_merge), and where PROJECTION is set, the same of
// the projection that ends in the same activation: dz is read once. Where KEEP_MAX is set, the largest |dy| go into the maxima.
// Grid: one invocation a (chunk of rows, 4 channels).
//use index
struct Params {
    rows: u32,
    cols4: u32,
    chunk: u32,
    projection: u32, // fixed in the variant too
    keep_max: u32,   // likewise
    max_row: u32,
    projection_max_row: u32,
    pad0: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dz: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> projection_y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> context: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> coefficients: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> dy: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> projection_dy: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> maxima: array<atomic<u32>>;

// What four channels of a branch have in common.
struct Channels {
    hat_mul: vec4<f32>,
    hat_add: vec4<f32>,
    k: vec4<f32>,
    m1: vec4<f32>,
    m2: vec4<f32>,
}

fn channels(branch: u32, col: u32) -> Channels {
    let a = 4u * branch * p.cols4 + col;
    let b = 3u * branch * p.cols4 + col;
    return Channels(
        context[a + 2u * p.cols4],
        context[a + 3u * p.cols4],
        coefficients[b],
        coefficients[b + p.cols4],
        coefficients[b + 2u * p.cols4],
    );
}

fn gradient(c: Channels, dz: vec4<f32>, y: vec4<f32>) -> vec4<f32> {
    return c.k * (dz - c.m1 - fma(y, c.hat_mul, c.hat_add) * c.m2);
}

fn largest(v: vec4<f32>) -> u32 {
    return bitcast<u32>(max(max(v.x, v.y), max(v.z, v.w)));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    let col = i % p.cols4;
    let first = (i / p.cols4) * p.chunk;
    if (first >= p.rows) {
        return;
    }
    let last = min(first + p.chunk, p.rows);
    let main_branch = channels(0u, col);
    var projection = main_branch;
    if (PROJECTION) {
        projection = channels(1u, col);
    }
    var most = vec4<f32>(0.0);
    var projection_most = vec4<f32>(0.0);
    for (var r = first; r < last; r++) {
        let o = r * p.cols4 + col;
        let d = dz[o];
        let v = gradient(main_branch, d, y[o]);
        dy[o] = v;
        if (KEEP_MAX) {
            most = max(most, abs(v));
        }
        if (PROJECTION) {
            let w = gradient(projection, d, projection_y[o]);
            projection_dy[o] = w;
            if (KEEP_MAX) {
                projection_most = max(projection_most, abs(w));
            }
        }
    }
    if (KEEP_MAX) {
        atomicMax(&maxima[p.max_row], largest(most));
        if (PROJECTION) {
            atomicMax(&maxima[p.projection_max_row], largest(projection_most));
        }
    }
}
