// The sum of one value of each of 64 invocations, always added in the same order. To be called by all of them, once.
var<workgroup> workgroup_share: array<vec4<f32>, 64>;

fn workgroup_sum(lid: u32, value: vec4<f32>) -> vec4<f32> {
    workgroup_share[lid] = value;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (lid < half) {
            workgroup_share[lid] += workgroup_share[lid + half];
        }
        workgroupBarrier();
    }
    return workgroup_share[0];
}
