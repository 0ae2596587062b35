// out[n, c] = sum over the pixels of picture n of x[n, pixel, c]: codes in the variant's operand format, sums as f32, exact below 2^24.
// Grid: one invocation a (picture, 4 channels).
//use index
struct Params {
    items: u32, // pictures * C / 4
    cols4: u32, // C / 4
    pixels: u32,
    x_format: u32, // fixed in the variant
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    if (i >= p.items) {
        return;
    }
    let first = i / p.cols4 * p.pixels * p.cols4 + i % p.cols4;
    var sum = vec4<f32>();
    for (var pixel = 0u; pixel < p.pixels; pixel++) {
        sum += decode(operand(first + pixel * p.cols4));
    }
    out[i] = sum;
}
