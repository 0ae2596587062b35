// What follows the last data gradient that an activation gets: a workgroup's results (rows from m0 of a parity class, columns from the
// vec4 n0), which lie in `out` by now, go back through the activation (see act). part: four vec4 a (class, 64 rows, 4 channels) as
// act_bwd leaves them, of 16 rows each and four of these added. The tile's shape changes nothing.
@group(0) @binding(5) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> context: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> shortcut: array<Shortcut>;
@group(0) @binding(8) var<storage, read> ranges: array<RangeRow>;
@group(0) @binding(9) var<storage, read_write> part: array<vec4<f32>>;
const FINISH_ITEMS = TILE_M * N4 / 16u; // not more than invocations
var<workgroup> finish_share: array<vec4<f32>, FINISH_ITEMS>;

// Writes the sum of four parts, `first` and those that follow N4 apart.
fn finish_sum(lid: u32, merges: bool, first: u32, o: u32, v: vec4<f32>) {
    if (lid < FINISH_ITEMS) {
        finish_share[lid] = v;
    }
    workgroupBarrier();
    if (merges) {
        part[o] = finish_share[first] + finish_share[first + N4] + finish_share[first + 2u * N4] + finish_share[first + 3u * N4];
    }
    workgroupBarrier();
}

fn finish(m0: u32, n0: u32, parity_class: u32, lid: u32) {
    storageBarrier();
    let rows = p.batch * Q_H * Q_W;
    let co4 = p.out_c / 4u;
    let n = n0 + lid % N4;
    let begin = m0 + lid / N4 * 16u;
    var sums = ActSums();
    if (lid < FINISH_ITEMS && n < co4) {
        let k = act_channels(p.act, n, co4);
        for (var m = begin; m < min(begin + 16u, rows); m++) {
            let oy = m / Q_W % Q_H * p.parities + parity_class / p.parities;
            let ox = m % Q_W * p.parities + parity_class % p.parities;
            if (oy < p.out_h && ox < p.out_w) {
                let o = ((m / (Q_H * Q_W) * p.out_h + oy) * p.out_w + ox) * co4 + n;
                var s = vec4<f32>(0.0);
                if (SHORTCUT != 0u) {
                    s = decode_shortcut(shortcut[o]);
                }
                out[o] = act_backward(k, out[o], y[o], s, &sums);
            }
        }
    }
    let at = lid / N4 * 64u;
    let merges = lid < FINISH_ITEMS / 4u && n < co4 && m0 + at < rows;
    let first = 4u * (lid / N4) * N4 + lid % N4;
    let o = 4u * ((parity_class * ((rows + 63u) / 64u) + (m0 + at) / 64u) * co4 + n);
    finish_sum(lid, merges, first, o, sums.dz);
    finish_sum(lid, merges, first, o + 1u, sums.hat);
    finish_sum(lid, merges, first, o + 2u, sums.s_hat);
    finish_sum(lid, merges, first, o + 3u, act_common(sums));
}
