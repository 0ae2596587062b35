// out[n, oy, ox, co] (+)= sum over taps, ci of x[n, iy, ix, ci] * w[tap, ci, co]: forward convolution or data gradient
// (see gather). Implicit GEMM for real GPUs: M = pixels of one parity class, N = c_out, K = taps x c_in.
// Sums in the variant's Sum4. x: NHWC in the variant's operand format; w: (taps, c_in, c_out) f32. Tile TILE_M x TILE_N x 16 in workgroup memory,
// 4 x 4 outputs a thread. Grid: (M / TILE_M, N / TILE_N, parity classes).
//use conv_params
//use gather
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
const TILE_K = 16u;
const THREADS = TILE_M * TILE_N / 16u;
var<workgroup> tile_x: array<Sum, TILE_M * TILE_K>;
var<workgroup> tile_w: array<Sum4, TILE_K * TILE_N / 4u>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let pixels = p.q_h * p.q_w;
    let rows = p.batch * pixels;
    let m0 = wg.x * TILE_M;
    let n0 = wg.y * TILE_N;
    let py = wg.z / p.parities;
    let px = wg.z % p.parities;
    let ay = axis(p.backward, py, p.kernel, p.pad, p.stride);
    let ax = axis(p.backward, px, p.kernel, p.pad, p.stride);
    let tn = lid % (TILE_N / 4u);
    let tm = lid / (TILE_N / 4u);
    var acc: array<Sum4, 4>;
    for (var ty = 0u; ty < ay.count; ty++) {
        for (var tx = 0u; tx < ax.count; tx++) {
            let tap = (ay.first + ty * ay.step) * p.kernel + ax.first + tx * ax.step;
            let dy = ay.offset + i32(ty) * ay.dir;
            let dx = ax.offset + i32(tx) * ax.dir;
            for (var c0 = 0u; c0 < p.in_c; c0 += TILE_K) {
                workgroupBarrier();
                for (var i = lid; i < TILE_M * TILE_K / 4u; i += THREADS) {
                    let m = m0 + i / (TILE_K / 4u);
                    let c = c0 + (i % (TILE_K / 4u)) * 4u;
                    let iy = i32(((m % pixels) / p.q_w) * p.q_stride) + dy;
                    let ix = i32((m % p.q_w) * p.q_stride) + dx;
                    let ok = m < rows && c < p.in_c && iy >= 0 && iy < i32(p.in_h) && ix >= 0 && ix < i32(p.in_w);
                    var v = Sum4();
                    if (ok) {
                        v = Sum4(decode(x[((m / pixels * p.in_h + u32(iy)) * p.in_w + u32(ix)) * (p.in_c / 4u) + c / 4u]));
                    }
                    let o = (i % (TILE_K / 4u)) * 4u * TILE_M + i / (TILE_K / 4u);
                    tile_x[o] = v.x;
                    tile_x[o + TILE_M] = v.y;
                    tile_x[o + 2u * TILE_M] = v.z;
                    tile_x[o + 3u * TILE_M] = v.w;
                }
                for (var i = lid; i < TILE_K * TILE_N / 4u; i += THREADS) {
                    let c = c0 + i / (TILE_N / 4u);
                    let n = n0 + (i % (TILE_N / 4u)) * 4u;
                    var v = Sum4();
                    if (c < p.in_c && n < p.out_c) {
                        v = Sum4(w[p.w_base + ((tap * p.in_c + c) * p.out_c + n) / 4u]);
                    }
                    tile_w[i] = v;
                }
                workgroupBarrier();
                for (var k = 0u; k < TILE_K; k++) {
                    let b = tile_w[k * (TILE_N / 4u) + tn];
                    for (var i = 0u; i < 4u; i++) {
                        acc[i] += tile_x[k * TILE_M + tm * 4u + i] * b;
                    }
                }
            }
        }
    }
    for (var i = 0u; i < 4u; i++) {
        let m = m0 + tm * 4u + i;
        let oy = ((m % pixels) / p.q_w) * p.parities + py;
        let ox = (m % p.q_w) * p.parities + px;
        if (m < rows && n0 + tn * 4u < p.out_c && oy < p.out_h && ox < p.out_w) {
            let o = ((m / pixels * p.out_h + oy) * p.out_w + ox) * (p.out_c / 4u) + n0 / 4u + tn;
            if (p.accumulate == 1u) {
                out[o] += vec4<f32>(acc[i]);
            } else {
                out[o] = vec4<f32>(acc[i]);
            }
        }
    }
}
