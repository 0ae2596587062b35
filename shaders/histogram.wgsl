// Counts of the values x >= 0 in BINS equal bins over [0, range], the last bin also taking what lies above; for
// the estimators that search during calibration, and for reports. Grid: one invocation a vec4.
//use index
//use ranges
const BINS = 2048u;
struct Params {
    words4: u32,
    row: u32,
    pad0: u32,
    pad1: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> ranges: array<RangeRow>;
@group(0) @binding(3) var<storage, read_write> counts: array<atomic<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    if (i >= p.words4) {
        return;
    }
    let inv_width = f32(BINS) / max(ranges[p.row].range, 1e-8);
    let v = x[i] * inv_width;
    for (var k = 0u; k < 4u; k++) {
        atomicAdd(&counts[p.row * BINS + min(u32(max(v[k], 0.0)), BINS - 1u)], 1u);
    }
}
