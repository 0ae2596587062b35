// out[n, oy, ox, co] (+)= sum over taps, ci of x[n, iy, ix, ci] * w[tap, ci, co]: forward convolution or data gradient
// (see gather). For software adapters: no barriers, no workgroup memory. Lanes run over pixels of one parity class; every
// lane loads its own four channels, and all lanes multiply them by the same weights. SHUFFLED: each lane loads a part of
// these and hands it to the others; else all load the same address, which compilers for long vectors do once.
// x: NHWC in the variant's operand format; w: (taps, c_in, c_out) in its weight format. Sums in its Sum4.
// Tile: LANES * PIXELS pixels x 4 * COLUMNS output channels a workgroup; LANES is the subgroup size.
// Grid: (c_out / (4 * COLUMNS), pixels of one parity class / (LANES * PIXELS), classes).
//use quant
//use act_params
//use conv_params
//use gather
//use divide
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read> w: array<Weight>;
@group(0) @binding(3) var<storage, read> maxima: array<u32>; // of conv_coop
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let ci4 = p.in_c / 4u;
    let co4 = p.out_c / 4u;
    let col = wg.x * COLUMNS;
    let py = wg.z / p.parities;
    let px = wg.z % p.parities;
    let ay = axis(p.backward, py, p.kernel, p.pad, p.stride);
    let ax = axis(p.backward, px, p.kernel, p.pad, p.stride);
    let rows = p.batch * p.q_h * p.q_w;
    var y0: array<i32, PIXELS>;
    var x0: array<i32, PIXELS>;
    var image: array<u32, PIXELS>;
    for (var r = 0u; r < PIXELS; r++) { // unrolled
        let m = (wg.y * PIXELS + r) * LANES + lid;
        let line = divide(m, p.q_w);
        let n = divide(line, p.q_h);
        // A pixel too many reads zeros.
        y0[r] = select(-1000000i, i32((line - n * p.q_h) * p.q_stride) + ay.offset, m < rows);
        x0[r] = i32((m - line * p.q_w) * p.q_stride) + ax.offset;
        image[r] = n * p.in_h;
    }
    var acc: array<Sum4, PIXELS * COLUMNS>;
    for (var ty = 0u; ty < ay.count; ty++) {
        for (var tx = 0u; tx < ax.count; tx++) {
            var base: array<u32, PIXELS>;
            var inside: array<bool, PIXELS>;
            for (var r = 0u; r < PIXELS; r++) { // unrolled
                let iy = y0[r] + ay.dir * i32(ty);
                let ix = x0[r] + ax.dir * i32(tx);
                inside[r] = u32(iy) < p.in_h && u32(ix) < p.in_w;
                base[r] = select(0u, ((image[r] + u32(iy)) * p.in_w + u32(ix)) * ci4, inside[r]);
            }
            let tap = (ay.first + ty * ay.step) * p.kernel + ax.first + tx * ax.step;
            let wb = p.w_base + tap * p.in_c * co4 + col;
            for (var c = 0u; c < ci4; c++) {
                // A column too many repeats the last one; its sums are not stored.
                var b: array<Sum4, 4u * COLUMNS>;
                if (SHUFFLED) {
                    for (var f = 0u; f < 4u * COLUMNS / LANES; f++) { // unrolled
                        let t = f * LANES + lid;
                        let mine = Sum4(weights(wb + (4u * c + t / COLUMNS) * co4 + min(t % COLUMNS, co4 - 1u - col)));
                        for (var i = 0u; i < LANES; i++) { // unrolled
                            b[f * LANES + i] = subgroupShuffle(mine, i);
                        }
                    }
                } else {
                    for (var f = 0u; f < 4u; f++) { // unrolled
                        for (var j = 0u; j < COLUMNS; j++) { // unrolled
                            b[f * COLUMNS + j] = Sum4(weights(wb + (4u * c + f) * co4 + min(j, co4 - 1u - col)));
                        }
                    }
                }
                var a: array<Sum4, PIXELS>;
                for (var r = 0u; r < PIXELS; r++) { // unrolled
                    a[r] = Sum4(decode(select(Operand(), operand(base[r] + c), inside[r])));
                }
                for (var j = 0u; j < COLUMNS; j++) { // unrolled
                    for (var r = 0u; r < PIXELS; r++) { // unrolled
                        acc[r * COLUMNS + j] = ((acc[r * COLUMNS + j] + a[r].x * b[j]) + a[r].y * b[COLUMNS + j]) + a[r].z * b[2u * COLUMNS + j] + a[r].w * b[3u * COLUMNS + j];
                    }
                }
            }
        }
    }
    for (var r = 0u; r < PIXELS; r++) { // unrolled
        let m = (wg.y * PIXELS + r) * LANES + lid;
        let line = divide(m, p.q_w);
        let n = divide(line, p.q_h);
        let oy = (line - n * p.q_h) * p.parities + py;
        let ox = (m - line * p.q_w) * p.parities + px;
        let o = ((n * p.out_h + oy) * p.out_w + ox) * co4 + col;
        if (m < rows && oy < p.out_h && ox < p.out_w) {
            for (var j = 0u; j < COLUMNS; j++) { // unrolled
                if (col + j < co4) {
                    var v = total(acc[r * COLUMNS + j]);
                    if (p.accumulate == 1u) {
                        v += out[o + j];
                    }
                    out[o + j] = v;
                }
            }
        }
    }
}
