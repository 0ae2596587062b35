// What follows a forward convolution: batch statistics of a workgroup's results (rows from m0, columns from the vec4 n0), which lie
// in `out` by now. Of 64 rows and each channel: (mean, sum of squared deviations), two passes over 16 rows, then four of these merged
// (Chan et al.). The tile's shape changes nothing. part, from part4 on: two vec4 a (64 rows, 4 channels), as norm_stats leaves them.
@group(0) @binding(5) var<storage, read_write> part: array<vec4<f32>>;
const FINISH_ITEMS = TILE_M * N4 / 16u; // not more than invocations
var<workgroup> finish_share: array<vec4<f32>, FINISH_ITEMS>;

fn finish(m0: u32, n0: u32, parity_class: u32, lid: u32) {
    storageBarrier();
    let rows = p.batch * p.q_h * p.q_w;
    let co4 = p.out_c / 4u;
    let n = n0 + lid % N4;
    let begin = m0 + lid / N4 * 16u;
    var count = 0u;
    if (lid < FINISH_ITEMS && n < co4 && begin < rows) {
        count = min(16u, rows - begin);
    }
    var sum = vec4<f32>(0.0);
    for (var r = 0u; r < count; r++) {
        sum += out[(begin + r) * co4 + n];
    }
    let mean = sum / f32(max(count, 1u));
    var squares = vec4<f32>(0.0);
    for (var r = 0u; r < count; r++) {
        let d = out[(begin + r) * co4 + n] - mean;
        squares += d * d;
    }
    if (lid < FINISH_ITEMS) {
        finish_share[lid] = mean;
    }
    workgroupBarrier();
    // Some invocations merge four parts each: the means first, then the deviations.
    let chunk = m0 / 64u + lid / N4;
    let first = 4u * (lid / N4) * N4 + lid % N4;
    let merges = lid < FINISH_ITEMS / 4u && n < co4 && chunk * 64u < rows;
    var seen = 0u;
    var merged = vec4<f32>(0.0);
    var apart = vec4<f32>(0.0);
    if (merges) {
        for (var k = 0u; k < 4u; k++) {
            let more = min(16u, rows - min(rows, chunk * 64u + 16u * k));
            let share = f32(more) / f32(seen + max(more, 1u));
            let d = finish_share[first + k * N4] - merged;
            merged += d * share;
            apart += d * d * (f32(seen) * share);
            seen += more;
        }
    }
    workgroupBarrier();
    if (lid < FINISH_ITEMS) {
        finish_share[lid] = squares;
    }
    workgroupBarrier();
    if (merges) {
        for (var k = 0u; k < 4u; k++) {
            apart += finish_share[first + k * N4];
        }
        let o = p.part4 + 2u * (chunk * co4 + n);
        part[o] = merged;
        part[o + 1u] = apart;
    }
}
