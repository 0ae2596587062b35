// Adds the fraction of gradient magnitude that the clip mask blocked to the activation's row of ranges.
// part: of act_bwd. Grid: one workgroup of 64.
//use ranges
//use workgroup_sum
struct Params {
    parts: u32,
    row: u32,
    pad0: u32,
    pad1: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> part: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> ranges: array<RangeRow>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lid: u32) {
    var a = vec2<f32>(0.0);
    for (var i = lid; i < p.parts; i += 64u) {
        a += part[4u * i + 3u].xy;
    }
    let total = workgroup_sum(lid, vec4<f32>(a, 0.0, 0.0));
    if (lid == 0u && total.y > 0.0) {
        ranges[p.row].blocked += total.x / total.y;
    }
}
