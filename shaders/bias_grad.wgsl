// grad[c] = 1 / s_w[c] * sum over pictures of dlogits[n, c] (which carries s_w). Grid: one invocation a column.
//use index
struct Params {
    batch: u32,
    cols: u32,
    w_scale: u32,   // 1: scales hold s_w
    pad0: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dlogits: array<f32>;
@group(0) @binding(2) var<storage, read> scales: array<f32>;
@group(0) @binding(3) var<storage, read_write> grad: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let c = flat_index(wg, groups, lid);
    if (c >= p.cols) {
        return;
    }
    var sum = 0.0;
    for (var n = 0u; n < p.batch; n++) {
        sum += dlogits[n * p.cols + c];
    }
    grad[c] = select(sum, sum / scales[c], p.w_scale == 1u);
}
