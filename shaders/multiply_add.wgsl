// out[i] = sum of three chains of a = a * factor + 1, eight times `turns` long: what a device computes at most, in registers
// alone (few, because some processors have few). Grid: one invocation a vec4.
//use index
struct Params {
    words4: u32,
    turns: u32,
    factor: f32,
    pad0: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = flat_index(wg, groups, lid);
    if (i >= p.words4) {
        return;
    }
    let f = vec4<f32>(p.factor);
    let one = vec4<f32>(1.0);
    var a = vec4<f32>(f32(i % 64u));
    var b = a + 1.0;
    var c = a + 2.0;
    for (var t = 0u; t < p.turns; t++) {
        for (var k = 0u; k < 8u; k++) {
            a = fma(a, f, one);
            b = fma(b, f, one);
            c = fma(c, f, one);
        }
    }
    out[i] = (a + b) + c;
}
