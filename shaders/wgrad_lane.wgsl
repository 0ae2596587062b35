// part[split, tap, ci, co] = sum over the split's output pixels of x[n, oy * S + ky - pad, ox * S + kx - pad, ci] * dy[n, oy, ox, co].
// For software adapters: no barriers. Lanes run over rows (tap, 4 input channels); all lanes multiply theirs by the same dy,
// which comes as the weights of conv_lane do (SHUFFLED). x in the variant's operand format, dy f32.
// Tile: LANES * ROWS rows x 4 * COLUMNS output channels, UNROLL pixels a turn; LANES is the subgroup size.
// Grid: (c_out / (4 * COLUMNS), rows / (LANES * ROWS), splits). chunk is a multiple of UNROLL.
//use wgrad_params
//use divide
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> maxima: array<u32>; // of wgrad_coop
@group(0) @binding(4) var<storage, read_write> part: array<vec4<f32>>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let ci4 = p.in_c / 4u;
    let co4 = p.out_c / 4u;
    let rows = p.kernel * p.kernel * ci4;
    let col = wg.x * COLUMNS;
    var y0: array<i32, ROWS>;
    var x0: array<i32, ROWS>;
    var c: array<u32, ROWS>;
    for (var r = 0u; r < ROWS; r++) { // unrolled
        let row = (wg.y * ROWS + r) * LANES + lid;
        let tap = divide(row, ci4);
        let ky = divide(tap, p.kernel);
        y0[r] = select(-1000000i, i32(ky) - i32(p.pad), row < rows); // a row too many reads zeros
        x0[r] = i32(tap - ky * p.kernel) - i32(p.pad);
        c[r] = row - tap * ci4;
    }
    let begin = wg.z * p.chunk;
    let end = min(p.batch * p.out_h * p.out_w, begin + p.chunk);
    let line = divide(begin, p.out_w);
    var n = divide(line, p.out_h);
    var oy = line - n * p.out_h;
    var ox = begin - line * p.out_w;
    var acc: array<vec4<f32>, ROWS * 4u * COLUMNS>;
    for (var m = begin; m < end; m += UNROLL) {
        var d: array<vec4<f32>, UNROLL * COLUMNS>;
        // A pixel too many meets zeros of x; a column too many is not stored.
        if (SHUFFLED) {
            for (var f = 0u; f < UNROLL * COLUMNS / LANES; f++) { // unrolled
                let t = f * LANES + lid;
                let mine = dy[min(m + t / COLUMNS, end - 1u) * co4 + min(col + t % COLUMNS, co4 - 1u)];
                for (var i = 0u; i < LANES; i++) { // unrolled
                    d[f * LANES + i] = subgroupShuffle(mine, i);
                }
            }
        } else {
            for (var u = 0u; u < UNROLL; u++) { // unrolled
                for (var j = 0u; j < COLUMNS; j++) { // unrolled
                    d[u * COLUMNS + j] = dy[min(m + u, end - 1u) * co4 + min(col + j, co4 - 1u)];
                }
            }
        }
        var a: array<vec4<f32>, ROWS * UNROLL>;
        for (var u = 0u; u < UNROLL; u++) { // unrolled
            for (var r = 0u; r < ROWS; r++) { // unrolled
                let iy = i32(oy * p.stride) + y0[r];
                let ix = i32(ox * p.stride) + x0[r];
                let inside = n < p.batch && m + u < end && u32(iy) < p.in_h && u32(ix) < p.in_w;
                a[r * UNROLL + u] = decode(select(Operand(), operand(select(0u, c[r] + ((n * p.in_h + u32(iy)) * p.in_w + u32(ix)) * ci4, inside)), inside));
            }
            let last_x = ox + 1u == p.out_w;
            let last_y = last_x && oy + 1u == p.out_h;
            ox = select(ox + 1u, 0u, last_x);
            oy = select(oy + select(0u, 1u, last_x), 0u, last_y);
            n += select(0u, 1u, last_y);
        }
        for (var r = 0u; r < ROWS; r++) { // unrolled
            let s = r * 4u * COLUMNS;
            for (var j = 0u; j < COLUMNS; j++) { // unrolled
                var t0 = acc[s + j];
                var t1 = acc[s + COLUMNS + j];
                var t2 = acc[s + 2u * COLUMNS + j];
                var t3 = acc[s + 3u * COLUMNS + j];
                for (var u = 0u; u < UNROLL; u++) { // unrolled
                    t0 += a[r * UNROLL + u].x * d[u * COLUMNS + j];
                    t1 += a[r * UNROLL + u].y * d[u * COLUMNS + j];
                    t2 += a[r * UNROLL + u].z * d[u * COLUMNS + j];
                    t3 += a[r * UNROLL + u].w * d[u * COLUMNS + j];
                }
                acc[s + j] = t0;
                acc[s + COLUMNS + j] = t1;
                acc[s + 2u * COLUMNS + j] = t2;
                acc[s + 3u * COLUMNS + j] = t3;
            }
        }
    }
    for (var r = 0u; r < ROWS; r++) { // unrolled
        let row = (wg.y * ROWS + r) * LANES + lid;
        let s = r * 4u * COLUMNS;
        if (row < rows) {
            let o = p.part4 + (wg.z * rows + row) * p.out_c + col;
            for (var j = 0u; j < COLUMNS; j++) { // unrolled
                if (col + j < co4) {
                    part[o + j] = acc[s + j];
                    part[o + co4 + j] = acc[s + COLUMNS + j];
                    part[o + 2u * co4 + j] = acc[s + 2u * COLUMNS + j];
                    part[o + 3u * co4 + j] = acc[s + 3u * COLUMNS + j];
                }
            }
        }
    }
}
